"""Saves of which a call fails in some way of its own, and reading of which every call does."""

import errno
import itertools

import pytest

import quantum_memory as qm
from quantum_memory.durability import atomic, files
from quantum_memory.errors import StorageError
from quantum_memory.testing.accidents import ERRORS
from quantum_memory.testing.faults import FaultyFiles, RecordingFiles, ShortFiles

from .conftest import SUFFIXES, leftovers

WAYS = ["new file", "overwrite", "create only"]


def save(memory, path, way):
    return qm.save(memory, path, overwrite=way != "create only")


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("verb", [qm.load, qm.verify, qm.info])
def test_reading_that_fails_anywhere_is_a_typed_error(tmp_path, new, suffix, error, verb):
    path = tmp_path / f"state.{suffix}"
    qm.save(new, path)
    before = path.read_bytes()
    for k in itertools.count():
        recording = RecordingFiles(FaultyFiles(k, error))
        with files.using(recording):
            try:
                result, problem = verb(path), None
            except StorageError as error_of_ours:
                result, problem = None, error_of_ours
        if problem is not None:
            assert (problem.path, problem.errno) == (str(path), error)
        assert recording.violations() == []
        assert path.read_bytes() == before
        assert (result is None) == bool(set(recording.inner.failed) - {"close"})
        if not recording.inner.failed:
            break
    assert k >= 4


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("way", WAYS)
def test_every_save_keeps_the_rules_of_durable_writing(tmp_path, old, new, suffix, way):
    path = tmp_path / f"state.{suffix}"
    if way == "overwrite":
        qm.save(old, path)
    recording = RecordingFiles()
    with files.using(recording):
        saved = save(new, path, way)
    assert recording.violations() == []
    assert recording.bytes_written == saved.bytes == path.stat().st_size
    assert [call.name for call in recording.log].count("fsync") == 2


def test_without_durability_nothing_is_synced_and_the_recorder_says_so(tmp_path, new):
    recording = RecordingFiles()
    with files.using(recording):
        qm.save(new, tmp_path / "state.qms", durable=False)
    assert not [call for call in recording.log if call.name == "fsync"]
    assert any("before it was synced" in line for line in recording.violations())
    assert any("was not synced after" in line for line in recording.violations())
    assert qm.load(tmp_path / "state.qms") == new


@pytest.mark.parametrize("most", [1, 7, 1000])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_short_reads_and_writes_are_gone_on_with(tmp_path, new, suffix, most):
    path = tmp_path / f"state.{suffix}"
    with files.using(ShortFiles(most)):
        qm.save(new, path)
        assert qm.load(path) == new
    assert qm.load(path) == new


def test_no_space_says_what_to_do(tmp_path, old, new):
    path = tmp_path / "state.qms"
    qm.save(old, path)
    with files.using(FaultyFiles(8, errno.ENOSPC, sticky=True)), pytest.raises(StorageError) as caught:
        qm.save(new, path)
    assert caught.value.errno == errno.ENOSPC
    assert "free some space" in caught.value.next_step


def test_an_error_after_the_rename_does_not_say_that_the_old_version_is_untouched(tmp_path, old, new):
    class NoFolderSync(RecordingFiles):
        def call(self, name, *arguments):
            if name == "fsync" and any(call.name == "rename" for call in self.log):
                raise OSError(errno.ENOSPC, "no space")
            return super().call(name, *arguments)

    path = tmp_path / "state.qms"
    qm.save(old, path)
    with files.using(NoFolderSync()), pytest.raises(StorageError) as caught:
        qm.save(new, path)
    assert "untouched" not in str(caught.value)
    assert qm.load(path) == new


def test_a_file_system_without_locks_or_folder_syncs_will_do(tmp_path, new):
    class Plain(RecordingFiles):
        def try_lock(self, fd):
            raise OSError(errno.ENOLCK, "no locks")

        def fsync(self, fd):
            if self.log[-1].name == "open" and self.log[-1].arguments[0] == str(tmp_path):
                raise OSError(errno.EINVAL, "not for folders")
            super().fsync(fd)

    with files.using(Plain()):
        qm.save(new, tmp_path / "state.qms")
        assert atomic.remove_leftovers(tmp_path) == []
    assert qm.load(tmp_path / "state.qms") == new


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_without_hard_links_is_said_to_have_none(tmp_path, new, error):
    class NoLinks(RecordingFiles):
        def link(self, source, target):
            raise OSError(error, "no links")

    path = tmp_path / "state.qms"
    with files.using(NoLinks()), pytest.raises(StorageError, match="no hard links") as caught:
        qm.save(new, path, overwrite=False)
    assert caught.value.errno == error
    assert "overwrite=True" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_that_cannot_be_removed_after_it_was_linked_does_not_fail_the_save(tmp_path, new):
    class NoUnlink(RecordingFiles):
        def unlink(self, path):
            raise OSError(errno.EIO, "no")

    path = tmp_path / "state.qms"
    with files.using(NoUnlink()):
        assert qm.save(new, path, overwrite=False).bytes == path.stat().st_size
    assert len(atomic.remove_leftovers(tmp_path)) == 1
    assert qm.load(path) == new


def test_a_write_of_nothing_is_an_error_and_not_tried_for_ever(tmp_path, new):
    with files.using(ShortFiles(0)), pytest.raises(StorageError, match="nothing past byte 0"):
        qm.save(new, tmp_path / "state.qms")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_temporary_that_somebody_removed_is_not_a_missing_folder(tmp_path, new, overwrite):
    class Removed(RecordingFiles):
        def fsync(self, fd):
            super().fsync(fd)
            for name in leftovers(tmp_path):
                (tmp_path / name).unlink()

    path = tmp_path / "state.qms"
    with files.using(Removed()), pytest.raises(StorageError, match="temporary file was removed") as caught:
        qm.save(new, path, overwrite=overwrite)
    assert caught.value.next_step == "save it again"
    assert list(tmp_path.iterdir()) == []

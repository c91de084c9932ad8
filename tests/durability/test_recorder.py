"""The safety net is tested too: each way to break the protocol is one that the recorder sees."""

import os

import pytest

from quantum_memory.durability.files import RealFiles
from quantum_memory.testing.damage import extensions, flip_bit, flips, truncations
from quantum_memory.testing.faults import KILLED, KillingFiles, RecordingFiles, in_child, killed_at


@pytest.fixture
def recording():
    return RecordingFiles()


def create(recording, path):
    fd = recording.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    recording.write(fd, b"x" * 10)
    return fd


def sync_folder(recording, folder):
    fd = recording.open(str(folder), os.O_RDONLY)
    recording.fsync(fd)
    recording.close(fd)


def test_the_protocol_passes(recording, tmp_path):
    fd = create(recording, tmp_path / "t")
    recording.fsync(fd)
    recording.rename(str(tmp_path / "t"), str(tmp_path / "x"))
    sync_folder(recording, tmp_path)
    recording.close(fd)
    assert recording.violations() == []
    assert recording.bytes_written == 10


def test_rename_before_fsync_is_seen(recording, tmp_path):
    fd = create(recording, tmp_path / "t")
    recording.rename(str(tmp_path / "t"), str(tmp_path / "x"))
    recording.fsync(fd)
    recording.close(fd)
    sync_folder(recording, tmp_path)
    assert any("before it was synced" in line for line in recording.violations())


def test_a_write_after_the_fsync_is_seen(recording, tmp_path):
    fd = create(recording, tmp_path / "t")
    recording.fsync(fd)
    recording.write(fd, b"more")
    recording.link(str(tmp_path / "t"), str(tmp_path / "x"))
    recording.close(fd)
    sync_folder(recording, tmp_path)
    assert any("before it was synced" in line for line in recording.violations())


def test_no_folder_sync_is_seen_unless_nothing_was_acknowledged(recording, tmp_path):
    fd = create(recording, tmp_path / "t")
    recording.fsync(fd)
    recording.close(fd)
    recording.rename(str(tmp_path / "t"), str(tmp_path / "x"))
    assert recording.violations() == [f"{tmp_path} was not synced after x got its name"]
    assert recording.violations(acknowledged=False) == []


def test_a_folder_sync_before_the_rename_does_not_count(recording, tmp_path):
    fd = create(recording, tmp_path / "t")
    recording.fsync(fd)
    recording.close(fd)
    sync_folder(recording, tmp_path)
    recording.rename(str(tmp_path / "t"), str(tmp_path / "x"))
    assert len(recording.violations()) == 1


def test_a_folder_whose_name_is_not_synced_is_seen(recording, tmp_path):
    recording.mkdir(str(tmp_path / "a"))
    recording.mkdir(str(tmp_path / "a/b"))
    sync_folder(recording, tmp_path / "a")
    assert recording.violations() == [f"{tmp_path} was not synced after a was made"]
    sync_folder(recording, tmp_path)
    assert recording.violations() == []


def test_what_was_made_in_a_folder_that_is_gone_needs_no_sync(recording, tmp_path):
    recording.mkdir(str(tmp_path / "a"))
    sync_folder(recording, tmp_path)
    recording.mkdir(str(tmp_path / "a/b"))
    with pytest.raises(OSError, match="not empty"):
        recording.rmdir(str(tmp_path / "a"))
    assert len(recording.violations()) == 1
    recording.rmdir(str(tmp_path / "a/b"))
    recording.rmdir(str(tmp_path / "a"))
    assert recording.violations() == []


def test_a_dirty_file_that_is_closed_must_be_removed(recording, tmp_path):
    recording.close(create(recording, tmp_path / "t"))
    assert recording.violations() == [f"{tmp_path / 't'} was closed with unsynced bytes and left there"]
    recording.unlink(str(tmp_path / "t"))
    assert recording.violations() == []


def test_a_name_used_twice_and_a_descriptor_left_open_are_seen(recording, tmp_path):
    recording.close(create(recording, tmp_path / "t"))
    recording.unlink(str(tmp_path / "t"))
    create(recording, tmp_path / "t")
    recording.unlink(str(tmp_path / "t"))
    assert recording.violations() == [
        f"the temporary name {tmp_path / 't'} was used twice",
        f"{tmp_path / 't'} is still open",
    ]
    RealFiles().close(recording.log[-3].result)


def test_a_file_that_was_there_may_stay_dirty_where_nothing_was_acknowledged(recording, tmp_path):
    (tmp_path / "t").write_bytes(b"old")
    fd = recording.open(str(tmp_path / "t"), os.O_WRONLY)
    recording.write(fd, b"new")
    recording.close(fd)
    assert recording.violations(acknowledged=False) == []
    assert recording.violations() == [f"{tmp_path / 't'} was closed with unsynced bytes and left there"]
    recording.close(create(recording, tmp_path / "new"))
    assert recording.violations(acknowledged=False) == [
        f"{tmp_path / 'new'} was closed with unsynced bytes and left there"
    ]


@pytest.mark.parametrize(("error", "more"), [(OSError(5, "EIO"), 1), (KeyboardInterrupt(), 0)])
def test_a_folder_is_synced_again_only_for_another_name_and_after_an_interrupt(tmp_path, error, more):
    class Once(RealFiles):
        errors = iter([error])

        def fsync(self, fd):
            for one in self.errors:
                raise one

    recording = RecordingFiles(Once())
    fd = recording.open(str(tmp_path), os.O_RDONLY)
    with pytest.raises(type(error)):
        recording.fsync(fd)
    recording.mkdir(str(tmp_path / "a"))
    recording.fsync(fd)
    assert len(recording.violations()) == 1  # it is still open
    Once.errors = iter([error])
    with pytest.raises(type(error)):
        recording.fsync(fd)
    recording.fsync(fd)
    recording.close(fd)
    assert len(recording.violations()) == more


def test_a_second_try_of_a_failed_fsync_is_seen(tmp_path):
    class Failing(RealFiles):
        def fsync(self, fd):
            raise OSError(5, "EIO")

    recording = RecordingFiles(Failing())
    fd = create(recording, tmp_path / "t")
    for _ in range(2):
        with pytest.raises(OSError, match="EIO"):
            recording.fsync(fd)
    recording.close(fd)
    recording.unlink(str(tmp_path / "t"))
    assert recording.violations() == [f"fsync was tried again on {tmp_path / 't'}, where it had failed"]


def test_a_killed_write_has_written_half(tmp_path):
    def work(dying):
        create(dying, tmp_path / "t")

    assert killed_at(1, work)
    assert (tmp_path / "t").read_bytes() == b"x" * 5
    (tmp_path / "t").unlink()
    assert not killed_at(2, work)
    assert in_child(lambda: KillingFiles(0).stat("/")) == KILLED
    assert in_child(lambda: 1 / 0) == 1
    with pytest.raises(RuntimeError, match="status 1"):
        killed_at(0, lambda dying: 1 / 0)


def test_every_damage_is_made_once():
    data = b"\x00\xff\x10"
    assert len(set(flips(data))) == 24
    assert data not in set(flips(data))
    assert flip_bit(flip_bit(data, 17), 17) == data
    assert flip_bit(data, 0) == b"\x01\xff\x10"
    assert list(truncations(data)) == [b"", b"\x00", b"\x00\xff"]
    assert {len(longer) for longer in extensions(data, 2)} == {4, 5, 6}

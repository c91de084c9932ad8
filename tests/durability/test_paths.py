"""Where a state is saved: links, modes, odd names, folders that are not there, disks that are full or read-only."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability import atomic, files
from quantum_memory.errors import ConflictError, InvalidStateError, MissingFileError, StorageError, UnsafeError
from quantum_memory.testing.faults import in_child
from quantum_memory.testing.loop_disk import SmallDisk

from .conftest import leftovers, names

ROOT = os.geteuid() == 0
BIG = {"classical_data": np.random.default_rng(0).normal(size=1 << 15)}  # 256 KiB that no codec shrinks


def test_this_environment_is_root_where_that_is_required():
    assert ROOT or not os.environ.get("QMS_REQUIRE_ROOT")


@pytest.mark.parametrize("kib", [0, 64, 200])
def test_a_limit_on_the_length_of_files_keeps_the_old_version_and_nothing_else(tmp_path, old, kib):
    path = tmp_path / "state.qms"
    qm.save(old, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            qm.save(BIG, path, compression="none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (caught.value.errno, caught.value.exit_code) == (errno.EFBIG, 8)
    assert qm.load(path) == old
    assert names(tmp_path) == ["state.qms"]


def test_a_read_only_folder_is_said_to_be_so(tmp_path, old):
    if ROOT:
        with SmallDisk(tmp_path) as disk:
            folder = disk.mount / "fixed"
            folder.mkdir()
            qm.save(old, folder / "state.qms")
            subprocess.run(["mount", "-o", "remount,ro", disk.mount], check=True)
            check_read_only(folder, old, errno.EROFS)
    else:
        folder = tmp_path / "fixed"
        folder.mkdir()
        qm.save(old, folder / "state.qms")
        folder.chmod(0o500)
        check_read_only(folder, old, errno.EACCES)


def check_read_only(folder, old, expected):
    for name in ("state.qms", "new.json"):
        with pytest.raises(StorageError) as caught:
            qm.save(old, folder / name)
        assert caught.value.errno == expected
        assert caught.value.next_step
    assert qm.load(folder / "state.qms") == old
    assert names(folder) == ["state.qms"]


def test_a_symbolic_link_stays_and_what_it_points_at_is_replaced(tmp_path, old, new):
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "state.qms", tmp_path / "latest.qms"
    qm.save(old, target)
    link.symlink_to("data/state.qms")
    qm.save(new, link)
    assert link.is_symlink()
    assert qm.load(target) == qm.load(link) == new
    with pytest.raises(ConflictError):
        qm.save(old, link, overwrite=False)
    assert leftovers(tmp_path) == leftovers(tmp_path / "data") == []


def test_a_link_to_nothing_is_filled(tmp_path, new):
    link = tmp_path / "latest.qms"
    link.symlink_to(tmp_path / "state.qms")
    qm.save(new, link)
    assert link.is_symlink()
    assert qm.load(tmp_path / "state.qms") == new


def test_a_link_that_goes_round_is_an_error(tmp_path, new):
    link = tmp_path / "loop.qms"
    link.symlink_to(link)
    with pytest.raises(StorageError):
        qm.save(new, link)
    with pytest.raises(StorageError):
        qm.load(link)
    assert names(tmp_path) == ["loop.qms"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o777])
def test_the_mode_of_a_file_that_is_replaced_is_kept(tmp_path, old, new, mode):
    path = tmp_path / "state.qms"
    qm.save(old, path)
    path.chmod(mode)
    qm.save(new, path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert qm.load(path) == new


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
def test_a_new_file_has_the_mode_that_the_umask_allows(tmp_path, new, umask, mode):
    path = tmp_path / "state.qms"

    def save():
        os.umask(umask)
        qm.save(new, path)

    assert in_child(save) == 0
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_other_names_of_a_file_keep_the_old_version(tmp_path, old, new):
    path, second = tmp_path / "state.qms", tmp_path / "second.qms"
    qm.save(old, path)
    os.link(path, second)
    qm.save(new, path)
    assert qm.load(second) == old
    assert qm.load(path) == new


def test_a_missing_folder_is_named_with_what_makes_it(tmp_path, new):
    path = tmp_path / "no" / "such" / "state.qms"
    with pytest.raises(MissingFileError, match="mkdir -p") as caught:
        qm.save(new, path)
    assert str(path.parent) in str(caught.value)
    assert caught.value.exit_code == 6
    with pytest.raises(FileNotFoundError):
        qm.load(path)
    with pytest.raises(MissingFileError):
        atomic.remove_leftovers(path.parent)
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_an_error(tmp_path, new):
    (tmp_path / "file").write_bytes(b"")
    for attempt in (lambda path: qm.save(new, path), qm.load):
        with pytest.raises(StorageError):
            attempt(tmp_path / "file" / "state.qms")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_regular_file_is_neither_replaced_nor_read(tmp_path, new, make):
    path = tmp_path / "state.qms"
    make(path)
    before = path.stat()
    for overwrite, error in ((True, UnsafeError), (False, ConflictError)):
        with pytest.raises(error):
            qm.save(new, path, overwrite=overwrite)
    for verb in (qm.load, qm.verify, qm.info, qm.open):
        with pytest.raises(UnsafeError) as caught:
            verb(path)
        assert caught.value.exit_code == 9
    assert path.stat() == before
    assert names(tmp_path) == ["state.qms"]


@pytest.mark.parametrize(
    "name",
    ["é" * 125 + ".qms", "n" * 251 + ".qms", "量子.qms", "line\nbreak.qms", " .qms", ".qms.qms", "-rf.qms",
     "🙂" * 50 + ".qms",
     os.fsdecode(b"\xff\xfe" * 100 + b".qms"), os.fsdecode("é".encode()[:1] * 251 + b".qms")],
    ids=lambda name: f"{len(os.fsencode(name))} bytes",
)  # fmt: skip
def test_any_name_that_the_file_system_takes_will_do(tmp_path, old, new, name):
    path = tmp_path / name
    qm.save(old, path, overwrite=False)
    qm.save(new, path)
    assert qm.load(path) == new
    assert names(tmp_path) == [name]


def test_a_name_that_is_too_long_or_has_a_nul_is_refused(tmp_path, new):
    with pytest.raises(StorageError):
        qm.save(new, tmp_path / ("n" * 252 + ".qms"))
    with pytest.raises(StorageError):
        qm.load(tmp_path / ("n" * 252 + ".qms"))
    with pytest.raises(InvalidStateError, match="name"):
        qm.save(new, f"{tmp_path}/a\0b.qms")
    with pytest.raises(MissingFileError, match="name"):
        qm.load(f"{tmp_path}/a\0b.qms")
    assert names(tmp_path) == []


def test_a_relative_path_means_the_folder_at_the_time(tmp_path, new, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with atomic.DurableFile("here.qms") as sink:
        os.chdir("elsewhere")
        sink.write(b"x")
    assert (tmp_path / "here.qms").read_bytes() == b"x"
    assert names(tmp_path / "elsewhere") == []


def test_what_cannot_be_saved_leaves_the_old_version(tmp_path, old):
    path = tmp_path / "state.qms"
    qm.save(old, path)
    for bad in ({"classical_data": object()}, {"classical_data": [np.zeros(3), {1, 2}]}, 5):
        with pytest.raises(InvalidStateError):
            qm.save(bad, path)
    with pytest.raises(InvalidStateError, match="axes"):
        qm.save({"classical_data": np.zeros((1,) * 33)}, path)
    assert qm.load(path) == old
    assert names(tmp_path) == ["state.qms"]


def test_saves_in_a_process_that_has_no_home_and_no_terminal(tmp_path):
    code = f"import quantum_memory as qm; qm.save({{'metadata': {{'a': 1}}}}, {str(tmp_path / 's.qms')!r})"
    subprocess.run([sys.executable, "-c", code], env={"PATH": ""}, stdin=subprocess.DEVNULL, check=True, cwd="/")
    assert qm.load(tmp_path / "s.qms").metadata == {"a": 1}


def test_the_temporary_of_a_private_file_is_never_readable_by_others(tmp_path, old, new):
    class Modes(files.RealFiles):
        seen: ClassVar[list[int]] = []

        def try_lock(self, fd):
            self.seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
            return super().try_lock(fd)

    path = tmp_path / "state.qms"
    for mode in (0o600, 0o640, 0o666):
        qm.save(old, path)
        path.chmod(mode)
        with files.using(Modes()):
            qm.save(new, path)
        assert Modes.seen[-1] & ~mode == 0
        assert stat.S_IMODE(path.stat().st_mode) == mode

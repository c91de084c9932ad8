"""What accidents are told of: a toy that writes is right, and each way in which it can be wrong is seen."""

import contextlib
import errno
import os
import shutil

import pytest

from quantum_memory.durability import atomic, files
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.errors import ConflictError, QuantumMemoryError, StorageError
from quantum_memory.testing.accidents import fail_at_each, kill_at_each
from quantum_memory.testing.operations import CopiedFolder, FromCopy, open_files, state_of

OLD, NEW = b"old" * 100, b"new" * 100


class Toy(FromCopy):
    """Replaces a file."""

    def __init__(self, place):
        super().__init__(place)
        self.path = self.folder / "file"
        self.path.write_bytes(OLD)
        self.keep()

    def do(self):
        with DurableFile(self.path) as sink:
            sink.write(NEW)

    def check(self, *, done):
        assert self.path.read_bytes() in ([NEW] if done else [OLD, NEW]), "torn"


def plainly(path, data):
    """Write a file without any care."""
    system = files.current()
    try:
        fd = system.open(str(path), os.O_WRONLY | os.O_CREAT)
        try:
            system.truncate(fd, 0)
            system.write(fd, data)
        finally:
            system.close(fd)
    except OSError as error:
        raise StorageError.from_os_error(error, "write", path) from error


class InPlace(Toy):
    def do(self):
        plainly(self.path, NEW)


class LeavesOpen(Toy):
    def do(self):
        super().do()
        files.current().open(str(self.path), os.O_RDONLY)


class LeavesOver(Toy):
    def do(self):
        try:
            super().do()
        except QuantumMemoryError:
            plainly(self.folder / atomic.temporary_name("file"), b"")
            raise


class Forgets(Toy):
    def do(self):
        with contextlib.suppress(QuantumMemoryError):
            super().do()


class SaysNothing(Toy):
    def do(self):
        try:
            super().do()
        except QuantumMemoryError as error:
            error.next_step = None
            raise


class SaysSomethingElse(Toy):
    def do(self):
        try:
            super().do()
        except QuantumMemoryError as error:
            raise QuantumMemoryError("no", path=self.path, next_step="none") from error


class RaisesWhatItGot(Toy):
    def do(self):
        files.current().stat(str(self.path))
        super().do()


class OnlyOnce(Toy):
    def do(self):
        plainly(self.folder / "mark", b"")
        super().do()

    def do_again(self):
        if (self.folder / "mark").exists():
            raise ConflictError("it was begun already", path=self.folder, next_step="none")
        self.do()


def test_what_is_right_passes(tmp_path):
    for number, error in enumerate((errno.EIO, KeyboardInterrupt)):
        assert fail_at_each(Toy(tmp_path / f"{number}"), error) > 10
    assert fail_at_each(Toy(tmp_path / "sticky"), errno.ENOSPC, sticky=True) > 10
    assert fail_at_each(Toy(tmp_path / "pairs"), errno.ENOSPC, again_after=1) > 10
    assert fail_at_each(Toy(tmp_path / "some"), errno.EIO, first=1, step=5) == 3
    assert kill_at_each(Toy(tmp_path / "killed")) > 5


@pytest.mark.parametrize(
    ("toy", "said"),
    [
        (InPlace, "torn"),
        (LeavesOpen, "still open"),
        (LeavesOver, "left over"),
        (Forgets, "torn"),
        (SaysNothing, "could not"),
        (SaysSomethingElse, "no"),
        (RaisesWhatItGot, "Input/output error"),
        (OnlyOnce, "begun already"),
    ],
)
def test_what_is_wrong_is_seen(tmp_path, toy, said):
    before = open_files()
    with pytest.raises((AssertionError, OSError), match=said) as caught:
        fail_at_each(toy(tmp_path), errno.EIO)
    assert "fails with 5" in caught.value.__notes__[0] or toy is LeavesOpen
    for fd in open_files().keys() - before.keys():
        os.close(int(fd))


@pytest.mark.parametrize("toy", [InPlace, OnlyOnce])
def test_what_a_kill_leaves_is_seen(tmp_path, toy):
    with pytest.raises((AssertionError, ConflictError)) as caught:
        kill_at_each(toy(tmp_path))
    assert "killed at change" in caught.value.__notes__[0]


CHANGES = {
    "another content": lambda at: (at / "y").write_text("z"),
    "another mode": lambda at: (at / "y").chmod(0),
    "another time": lambda at: os.utime(at / "y"),
    "gone": lambda at: (at / "y").unlink(),
    "a folder gone": lambda at: shutil.rmtree(at / "a"),
    "a folder in the place of a file": lambda at: ((at / "y").unlink(), (at / "y" / "q").mkdir(parents=True)),
    "a file in the place of a folder": lambda at: (shutil.rmtree(at / "a"), (at / "a").write_text("f")),
    "another mode of a folder": lambda at: (at / "e").chmod(0o755),
    "another target": lambda at: ((at / "l").unlink(), (at / "l").symlink_to("z")),
    "new folders": lambda at: (at / "n" / "m").mkdir(parents=True),
    "a second name": lambda at: (at / "h").hardlink_to(at / "y"),
    "another name": lambda at: (at / "a").rename(at / "b"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_is_brought_back_and_what_was_not_touched_stays_what_it_is(tmp_path, change):
    copied = CopiedFolder(tmp_path)
    at = copied.folder
    (at / "a").mkdir()
    (at / "a" / "x").write_text("x")
    (at / "y").write_text("y")
    (at / "untouched").write_text("u")
    os.utime(at / "y", ns=(1, 1))
    (at / "l").symlink_to("y")
    (at / "e").mkdir(mode=0o700)
    copied.keep()
    before, untouched = state_of(at), (at / "untouched").stat()
    CHANGES[change](at)
    assert state_of(at) != before
    copied.again()
    assert state_of(at) == before
    assert (at / "untouched").stat()[:8] == untouched[:8]

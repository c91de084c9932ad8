"""A folder of checkpoints or backups is held while a name in it is given or taken away, by every operation.

Packs and manifests come while nobody can collect, and go while nobody else saves or reads: between the look that finds
a chunk and the manifest that needs it nothing goes. Tags and pins are changed by one at a time.
"""

import fcntl
import os
from pathlib import Path

import pytest

from quantum_memory.testing.accidents import done_with
from quantum_memory.testing.faults import PassingFiles

from .catalogue import BACKUPS, CATALOGUE, CHECKPOINTS

OPERATIONS = [
    *(name for name in CHECKPOINTS if name != "checkpoints: export"),
    *(name for name in BACKUPS if not name.startswith(("backups: restore", "backups: export")) and "key" not in name),
    "backups: restore over a file",  # of which there is a backup before
    "purge",
]
"""Those that give or take names in such a folder."""

SUFFIXES = {".qmpack", ".qmindex", ".qmcp", ".qmbk"}


class Watching(PassingFiles):
    """Looks at the lock of a folder whenever something in it gets or loses its name."""

    def __init__(self, inner, below):
        super().__init__(inner)
        self._below = below
        self.seen, self.wrong = 0, []

    def call(self, name, *arguments):
        if name in {"link", "rename"}:
            self._look(name, Path(arguments[1]), alone=Path(arguments[1]).name == "refs.json")
        elif name == "unlink":
            self._look(name, Path(arguments[0]), alone=True)
        return super().call(name, *arguments)

    def _look(self, name, path, *, alone):
        if path.name.startswith(".") or not (path.suffix in SUFFIXES or path.name == "refs.json"):
            return
        lock = next((one / "lock" for one in path.parents if (one / "lock").exists()), None)
        if lock is None or not lock.is_relative_to(self._below):  # a file of backups that is taken elsewhere
            return
        self.seen += 1
        if is_free(lock, fcntl.LOCK_SH if alone else fcntl.LOCK_EX):
            self.wrong.append(f"{name} {path.relative_to(self._below)}")


def is_free(lock, how):
    """Tell whether somebody else could have a lock now."""
    fd = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_folder_is_held_while_a_name_in_it_changes(tmp_path, name):
    operation = CATALOGUE[name](tmp_path)
    operation.again()
    done_with(operation, watching := Watching(operation.system, operation.folder))
    assert watching.wrong == []
    assert watching.seen

"""Whatever an operation changes, it changes through `Files`: what goes past it no accident would ever hit."""

import os
import sys
import threading

import pytest

from quantum_memory.testing.accidents import done_with
from quantum_memory.testing.faults import PassingFiles, in_child

from .catalogue import CATALOGUE
from .operations.saves import Save

CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.utime",
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Inside(PassingFiles):
    """Knows whether a thread is in one of its calls."""

    def __init__(self, inner):
        super().__init__(inner)
        self.here, self.count = threading.local(), 0

    def call(self, name, *arguments):
        self.here.inside, self.count = True, self.count + 1
        try:
            return super().call(name, *arguments)
        finally:
            self.here.inside = False


def past(operation):
    """Return what an operation changes in its folder without any of the calls, and how many of these it makes."""
    inside, found = Inside(operation.system), []
    folder = os.path.realpath(operation.folder)

    def watch(event, arguments):
        if getattr(inside.here, "inside", False) or not (event in CHANGES or event == "open"):
            return
        if event == "open" and not arguments[2] & WRITES:
            return
        for one in arguments[:2]:
            path = f"/proc/self/fd/{one}" if isinstance(one, int) and one > 2 else one
            if isinstance(path, str | bytes | os.PathLike):
                where = os.path.realpath(os.fsdecode(path)) if isinstance(one, int) else os.fsdecode(path)
                if where.startswith(folder):
                    found.append(f"{event} {where}")

    sys.addaudithook(watch)  # which stays for as long as the process does: a child
    operation.again()
    found.clear()
    done_with(operation, inside)
    return found, inside.count


def said(operation, place):
    """Return it in the words of a child."""

    def look():
        found, count = past(operation)
        place.write_text("\n".join([f"{count}", *found]))

    assert in_child(look) == 0
    count, *found = place.read_text().splitlines()
    return int(count), found


@pytest.mark.parametrize("name", CATALOGUE)
def test_nothing_is_changed_but_through_the_calls(tmp_path, name):
    count, found = said(CATALOGUE[name](tmp_path), tmp_path / "said")
    assert found == []
    assert count > 5


class Past(Save):
    """A save that makes a note of its own."""

    def act(self):
        super().act()
        (self.folder / "note").write_text("saved")
        (self.folder / "note").unlink()


def test_what_goes_past_is_seen(tmp_path):
    _, found = said(Past(tmp_path, "qms", "new"), tmp_path / "said")
    assert [line.split()[0] for line in found] == ["open", "os.remove"]

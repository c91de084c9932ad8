"""What ends runs at random instants sees what is wrong with them."""

import random
import signal

import pytest

from quantum_memory.testing.loops import interrupt_at_random, kill_at_random

LENGTH = 20_000


class Sound:
    """Numbers in a file, which is replaced as a whole; the ways to go wrong inherit it."""

    def __init__(self, place):
        self.folder, self.path = place, place / "file"
        self.path.write_text("0\n" * LENGTH)

    def write(self, version):
        temporary = self.folder / ".file.0123456789abcdef.qmtmp"
        try:
            temporary.write_text(f"{version}\n" * LENGTH)
            temporary.rename(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def run(self, version, acknowledge, *, durable):
        while True:
            version += 1
            self.write(version)
            acknowledge(version)

    def check(self, acknowledged):
        lines = self.path.read_text().splitlines()
        (version,) = set(lines)
        assert len(lines) == LENGTH
        return int(version)

    def end(self, version):
        self.write(version + 1)


class TooEarly(Sound):
    def run(self, version, acknowledge, *, durable):
        while True:
            version += 1
            acknowledge(version)
            self.write(version)


class InPlace(Sound):
    def write(self, version):
        self.path.write_text(f"{version}\n" * LENGTH)


class NotForEver(Sound):
    def run(self, version, acknowledge, *, durable):
        raise ZeroDivisionError


class Untidy(Sound):
    def write(self, version):
        temporary = self.folder / ".file.0123456789abcdef.qmtmp"
        temporary.write_text(f"{version}\n" * LENGTH)
        temporary.rename(self.path)


def test_what_is_sound_is_not_said_to_be_wrong(tmp_path):
    ends = kill_at_random(Sound(tmp_path), 30, random.Random(1))
    assert ends.count == 30
    assert ends.acknowledged > 3
    assert interrupt_at_random(Sound(tmp_path), 5, random.Random(1)).count == 5
    assert interrupt_at_random(Sound(tmp_path), 5, random.Random(1), by=signal.SIGTERM).count == 5


@pytest.mark.parametrize(
    ("loop", "what"), [(TooEarly, "was acknowledged, and"), (InPlace, None), (NotForEver, "ended by itself")]
)
def test_kills_show_it(tmp_path, loop, what):
    with pytest.raises((AssertionError, ValueError), match=what):
        kill_at_random(loop(tmp_path), 500, random.Random(1))


def test_interrupts_show_it(tmp_path):
    with pytest.raises(AssertionError, match="left over"):
        interrupt_at_random(Untidy(tmp_path), 500, random.Random(1))

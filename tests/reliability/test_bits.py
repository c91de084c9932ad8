"""Whatever a disk, a cable or a transfer does to a whole file is found by whoever reads it: no bit of one is inert."""

import itertools
import mmap
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import (
    IntegrityError,
    InvalidStateError,
    QuantumMemoryError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.testing.damage import extensions, flip_bit, truncations
from quantum_memory.testing.faults import in_child

from .figures import TIMES, figure
from .goldens import GROUPS, Golden, goldens

DAMAGE = (IntegrityError, UnsupportedVersionError, UnsafeError)
OF_PLANS = (InvalidStateError, *DAMAGE)
"""A plan is not restored from a copy, but made anew."""

ABOUT_LENGTH = re.compile(
    "cut short|added to|appended|empty|should have|another length|not whole|where its end says|Extra data"
)
RECOGNISED = 128
"""Of a shorter beginning of a file, nobody can tell what it is the beginning of."""


class Victim:
    """A golden file on the disk, to be damaged: every reader says so each time, with an error that helps.

    Attributes
    ----------
    fd
        The file, to be written to.
    expected
        The errors that it may give.
    problems
        What went wrong: which file, what was done to it, what became of it.
    """

    def __init__(self, golden: Golden, place: Path) -> None:
        self.golden = golden
        self.problems: list[tuple[str, object, str]] = []
        self.expected = OF_PLANS if golden.name.startswith("plan") else DAMAGE
        place.mkdir(parents=True)
        self._path = str(place / golden.name)
        Path(self._path).write_bytes(golden.data)
        self.fd = os.open(self._path, os.O_RDWR)
        for read in golden.reads:
            read(self._path)

    def look(self, what: object, *, about_length: bool = False) -> None:
        """Read it, as it is now."""
        for read in self.golden.reads:
            try:
                read(self._path)
            except QuantumMemoryError as error:
                helps = error.next_step and str(error.path).startswith(self._path)
                if not isinstance(error, self.expected) or not helps:
                    self.problems.append((self.golden.name, what, repr(error)))
                elif about_length and not ABOUT_LENGTH.search(error.message):
                    self.problems.append((self.golden.name, what, error.message))
            else:
                self.problems.append((self.golden.name, what, "it was accepted"))

    def flip_all(self) -> int:
        """Flip each bit, one at a time, and return how many there are."""
        for at, byte in enumerate(self.golden.data):
            for bit in range(8):
                os.pwrite(self.fd, bytes([byte ^ 1 << bit]), at)
                self.look((at, bit))
            os.pwrite(self.fd, bytes([byte]), at)
        return 8 * len(self.golden.data)

    def flip_some(self, count: int) -> int:
        """Flip several bits at once, so many times, and return how often."""
        rng = random.Random(self.golden.name)
        for _ in range(count):
            damaged = bytearray(self.golden.data)
            for bit in rng.sample(range(8 * len(damaged)), rng.randint(2, 16)):
                damaged[bit // 8] ^= 1 << bit % 8
            self.become(damaged)
            self.look(damaged)
        return count

    def become(self, data: bytes | bytearray) -> None:
        """Hold other bytes."""
        os.pwrite(self.fd, data, 0)
        os.ftruncate(self.fd, len(data))

    def restretch(self) -> int:
        """Cut it at every length, append to it, and return how often."""
        count = 0
        for data in (*truncations(self.golden.data), *extensions(self.golden.data)):
            self.become(data)
            # Twice a file in one is no matter of its length where all of it is read from its end.
            known = RECOGNISED <= len(data) < 2 * len(self.golden.data)
            self.look(len(data), about_length=known)
            count += 1
        return count

    def retail(self, count: int) -> int:
        """Have it go on otherwise from anywhere, so many times, and return how often."""
        rng = random.Random(self.golden.name)
        for _ in range(count):
            start = rng.randrange(len(self.golden.data))
            data = self.golden.data[:start] + rng.randbytes(rng.randint(1, 64))
            self.become(data)
            self.look(data)
        return count


@pytest.fixture
def victims(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Victim]]:
    (tmp_path / "made").mkdir()
    whole = goldens(request.param, tmp_path / "made")
    made = [Victim(golden, tmp_path / f"{number}") for number, golden in enumerate(whole)]
    yield made
    for victim in made:
        os.close(victim.fd)


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("victims", GROUPS, indirect=True)
def test_every_single_bit_is_covered(victims):
    with figure("bits") as made:
        for victim in victims:
            made.count += victim.flip_all() + victim.flip_some((TIMES - 1) * 8 * len(victim.golden.data))
            assert victim.problems == []


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("victims", GROUPS, indirect=True)
def test_every_other_length_is_noticed_and_the_message_says_so(victims):
    with figure("lengths") as made:
        for victim in victims:
            made.count += victim.restretch() + victim.retail((TIMES - 1) * len(victim.golden.data))
            assert victim.problems == []


@pytest.mark.parametrize("victims", GROUPS, indirect=True)
def test_two_files_in_one_are_noticed(victims):
    with figure("lengths") as made:
        for victim, other in itertools.product(victims, repeat=2):
            for both in itertools.permutations((victim.golden, other.golden)):
                victim.become(both[0].data + both[1].data)
                victim.look([golden.name for golden in both])
                made.count += 1
        assert [problem for victim in victims for problem in victim.problems] == []


# HDF5, which a large library reads: it may end the process, or not end at all

HANGS = 20.0
"""Seconds after which a store that is not read yet counts as one that never is."""

STEP = 7
"""One bit of each so many bytes is flipped."""


@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_no_bit_of_a_store_changes_a_number_or_makes_it_hang(tmp_path, compression):
    """In children, a new one where one dies: the library may end the process, for a few bits."""
    path = tmp_path / "store.h5"
    memory = qm.MemoryState(np.exp(1j * np.arange(64)) / 8, {"w": np.zeros(900), "n": [1, None]}, metadata={"a": "b"})
    qm.HDF5QuantumStorage(path, compression=compression, durable=False).save_quantum_state(memory, "a")
    good = path.read_bytes()
    places = [at for turn in range(TIMES) for at in range(turn % STEP, len(good), STEP)]
    done, died = mmap.mmap(-1, 8), []  # how many are done, which the children tell

    def look() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in range(int.from_bytes(done[:], "little"), len(places)):
            done[:] = number.to_bytes(8, "little")
            path.write_bytes(flip_bit(good, 8 * places[number] + number % 8))
            signal.setitimer(signal.ITIMER_REAL, HANGS)
            try:
                assert qm.load(path) == memory
            except QuantumMemoryError:
                continue
        done[:] = len(places).to_bytes(8, "little")

    with figure("hdf5 bits") as made:
        while (number := int.from_bytes(done[:], "little")) < len(places):
            status = in_child(look)
            if status != 0:
                number = int.from_bytes(done[:], "little")
                died.append((places[number], status))
                done[:] = (number + 1).to_bytes(8, "little")
        made.count += len(places)
        assert [one for one in died if one[1] in {1, -signal.SIGALRM}] == []
        assert len(died) <= len(places) // 100

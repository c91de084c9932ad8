"""Processes that write to one thing at once, and one that looks on: ``python -m tests.reliability.writers store DIR``.

It ends with what has come out of it, and has seen that nothing was torn, and nothing older than what was seen before.
"""

import argparse
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

import quantum_memory as qm
from quantum_memory.durability.transaction import TransactionFile
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.retention import KeepAll

from .loops.transactions import NUMBER, opened

PROCESSES = 8
NUMBERS = 500


class Counter:
    """A number in a file, many times over, which each one reads and writes one higher."""

    def __init__(self, place: Path) -> None:
        self._path = place / "counter"
        with self._opened(write=True) as file:
            self._write(file, 0)

    def _opened(self, *, write: bool) -> TransactionFile:
        return opened(self._path, write=write)

    def _write(self, file: TransactionFile, number: int) -> None:
        body = NUMBER.pack(number) * NUMBERS
        file.write_at(body, NUMBER.size)
        file.write_at(NUMBER.pack(NUMBER.size + len(body)), 0)

    def _read(self, file: TransactionFile) -> int:
        ((number,),) = set(NUMBER.iter_unpack(file.read(NUMBER.size, file.size - NUMBER.size)))
        return int(number)

    def add(self, who: int, number: int) -> None:
        with self._opened(write=True) as file:
            self._write(file, self._read(file) + 1)

    def look(self) -> int:
        with self._opened(write=False) as file:
            return self._read(file)

    look_at_all = look


class Store:
    """An HDF5 store to which each appends states."""

    def __init__(self, place: Path) -> None:
        self._storage = qm.HDF5QuantumStorage(place / "store.h5", lock_timeout=60.0)
        self._storage.save_quantum_state(self._state(0, 0), "first")

    def _state(self, who: int, number: int) -> qm.MemoryState:
        return qm.MemoryState(classical={"who": who, "payload": np.full(300, number)}, metadata={"number": number})

    def add(self, who: int, number: int) -> None:
        self._storage.save_quantum_state(self._state(who, number), f"{who}-{number}")

    def _check(self, name: str) -> None:
        found = self._storage.load_quantum_state(name)
        number = found.metadata["number"]
        assert (found.classical["payload"] == number).all()
        assert name in {"first", f"{found.classical['who']}-{number}"}

    def look(self) -> int:
        listed = self._storage.list_states()
        self._check(listed[0]["id"])
        return len(listed) - 1

    def look_at_all(self) -> int:
        listed = self._storage.list_states()
        for one in listed:
            self._check(one["id"])
        return len(listed) - 1


class Checkpoints:
    """A folder in which each makes checkpoints, by one manager that it is forked with."""

    def __init__(self, place: Path) -> None:
        self._manager = CheckpointManager(place / "run", signals=False, keep=KeepAll())

    def add(self, who: int, number: int) -> None:
        self._manager.create_checkpoint({"who": who, "w": np.full(100, number)}, progress=number)

    def look(self) -> int:
        listed = self._manager.list_checkpoints()
        for one in listed[:1]:
            assert (self._manager.restore(one["id"])["w"] == one["progress"]).all()
        return len(listed)

    def look_at_all(self) -> int:
        found = self._manager.verify()
        assert set(found.values()) == {None}, found
        return len(found)


THINGS = {"counter": Counter, "store": Store, "checkpoints": Checkpoints}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=THINGS)
    parser.add_argument("place", type=Path, help="an empty folder")
    parser.add_argument("--each", type=int, help="how often each process writes")
    parser.add_argument("--kills", type=int, help="how many processes are killed, while others begin")
    options = parser.parse_args()
    thing = THINGS[options.what](options.place)
    least, most = _killed(thing, options.kills) if options.kills else _counted(thing, options.each)
    found = thing.look_at_all()
    assert least <= found <= most, f"{found} are there, and {least} to {most} are to be"
    print(found)  # noqa: T201 - for who started it


def _counted(thing: Counter | Store | Checkpoints, each: int) -> tuple[int, int]:
    """Let each write so often, and look on meanwhile."""

    def work(who: int) -> None:
        for number in range(each):
            thing.add(who, number)

    running = {_begun(work, who) for who in range(PROCESSES)}
    seen = 0
    while running:
        now = thing.look()
        assert now >= seen, f"{now} were seen after {seen}"
        seen = now
        for child in list(running):
            if (ended := os.waitpid(child, os.WNOHANG))[0]:
                assert os.waitstatus_to_exitcode(ended[1]) == 0
                running.remove(child)
    return PROCESSES * each, PROCESSES * each


def _killed(thing: Counter | Store | Checkpoints, kills: int) -> tuple[int, int]:
    """Kill one after another, of those that write for ever, while another one begins; return what may be there then."""
    reading, writing = os.pipe()
    rng = random.Random(kills)

    def work(who: int) -> None:
        number = 0
        while True:
            thing.add(who, number)
            os.write(writing, b".")
            number += 1

    running = [_begun(work, who) for who in range(PROCESSES)]
    seen = 0
    for kill in range(kills):
        time.sleep(rng.uniform(0, 0.03))
        _end(running.pop(rng.randrange(len(running))))
        running.append(_begun(work, PROCESSES + kill))
        if kill % 10 == 0:  # eight that write for ever let nobody else in for long
            now = thing.look()
            assert now >= seen, f"{now} were seen after {seen}"
            seen = now
    for child in running:
        _end(child)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        acknowledged = len(pipe.read())
    return acknowledged, acknowledged + PROCESSES + kills


def _begun(work: Callable[[int], None], who: int) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(who)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == -signal.SIGKILL, f"it ended by itself, with status {status}: see its traceback"


if __name__ == "__main__":
    main()

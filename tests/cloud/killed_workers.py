"""Kill workers that write parts of a version: ``python -m tests.cloud.killed_workers URL KILLS``.

Some of what was handed out is written then, some is not, and some is written half. Whoever began the version gives up,
and nothing has happened; or hands out once more what did not come back, and the version is whole.

It prints in how many of the versions something was missing when the worker was killed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import quantum_memory as qm

from .numbered import history, number_of, numbered

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from typing import Self

    import numpy as np

    from quantum_memory.cloud.transaction import Part, Transaction

QUBITS = 19
WORKERS, PARTS = 2, 4  # of two chunks
PATIENCE = 60.0
_SPAWNING = multiprocessing.get_context("forkserver")  # which has not used what it has imported, and has no threads


class GivenUpError(Exception):
    """A worker was killed, and that is that."""


class Worker:
    """A process that writes parts, one after the other, for as long as a block lasts.

    Attributes
    ----------
    process
        It.
    end
        Where its answers come from.
    start
        From which amplitude on it writes; None: nowhere.
    """

    def __init__(self) -> None:
        self.end, other = _SPAWNING.Pipe()
        self.process = _SPAWNING.Process(target=work, args=(other,))
        self.process.start()
        other.close()
        self.start: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end.close()
        self.process.kill()
        self.process.join()

    def begin(self, part: Part, start: int, amplitudes: np.ndarray) -> None:
        """Let it write something."""
        self.start = start
        with contextlib.suppress(OSError):  # it has been killed, which its answer tells
            self.end.send((part, start, amplitudes))

    def answer(self) -> Part | None:
        """Return what it has written; None: it is gone."""
        try:
            part: Part = self.end.recv()
        except (EOFError, OSError):
            return None
        return part


def work(end: Connection) -> None:
    """Write what is asked for, in a worker."""
    while True:
        try:
            part, start, amplitudes = end.recv()
        except EOFError:
            return
        part.write(start, amplitudes)
        end.send(part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("kills", type=int)
    options = parser.parse_args()
    _SPAWNING.set_forkserver_preload(["tests.cloud.numbered"])
    print(killed(options.url, options.kills))  # noqa: T201


def killed(url: str, kills: int) -> int:
    """Kill a worker in each of so many versions, and return in how many of them something was missing then."""
    rng = random.Random(f"{os.environ.get('QMEM_SEED', '0')} {kills}")
    save(url, 0, None, give_up=False)
    there, missing, longest = 0, 0, 0.05
    for number in range(1, kills + 1):
        give_up = number % 2 == 0
        try:
            lost = save(url, number, (rng.randrange(PARTS), rng.uniform(0, longest)), give_up=give_up)
            there = number
        except GivenUpError as error:
            lost = error.args[0]
        longest *= 1.2 if lost else 0.8  # so that it is some time after a part was begun, and mostly before its end
        missing += lost > 0
        assert qm.verify(url).content_id == numbered(0, there, QUBITS).content_id
        assert number_of(qm.load(url)) == (0, there)
    assert [number_of(qm.load(f"{url}@{version.id}"))[1] for version in history(url)] == [
        number for number in range(kills + 1) if number % 2 or number == 0
    ]
    return missing


def save(url: str, number: int, kill: tuple[int, float] | None, *, give_up: bool) -> int:
    """Write a version in parts, of whose workers one is killed; return how many parts did not come back.

    Parameters
    ----------
    kill
        After how many parts have come back, and so many seconds.
    """
    memory = numbered(0, number, QUBITS)
    state = memory.quantum
    assert isinstance(state, qm.StateVector)
    with qm.transaction(
        url,
        n_qubits=QUBITS,
        dtype=state.dtype,
        qubit_order="little",
        classical=memory.classical,
        chunk_bytes=1 << 20,
    ) as tx:
        starts = list(range(0, tx.size, tx.size // PARTS))
        left = handed_out(tx, state.amplitudes, starts, kill)
        if give_up:
            raise GivenUpError(len(left))
        assert handed_out(tx, state.amplitudes, left, None) == []
    return len(left)


def handed_out(tx: Transaction, amplitudes: np.ndarray, starts: list[int], kill: tuple[int, float] | None) -> list[int]:
    """Let workers write, and take back what they have written; return the starts of what did not come back."""
    waiting, left, back = starts[::-1], [], 0
    end = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker()) for _ in range(WORKERS)]
        while True:
            for worker in workers:
                if worker.start is None and waiting:
                    worker.begin(tx.fork(), start := waiting.pop(), amplitudes[start : start + tx.size // PARTS])
            busy = {worker.end: worker for worker in workers if worker.start is not None}
            if not busy:
                assert not waiting, "all workers are gone"
                return left
            if kill is not None and back >= kill[0]:
                time.sleep(kill[1])
                next(iter(busy.values())).process.kill()
                kill = None
            ready = wait([*busy], end - time.monotonic())
            assert ready, f"nobody has said anything for {PATIENCE} s"
            for one in ready:
                worker = busy[one]
                part = worker.answer()
                if part is None:
                    left.append(worker.start)
                    workers.remove(worker)
                else:
                    tx.merge(part)
                    back += 1
                worker.start = None


if __name__ == "__main__":
    main()

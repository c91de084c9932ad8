"""Memories that say who has written them, and which of his own: one that is torn, or somebody else's, is seen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

import quantum_memory as qm
import quantum_memory.cloud.transaction
from quantum_memory.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantum_memory.cloud.repository import Version

QUBITS = 6
_TRIES = 1000
Number = tuple[int, int]
"""Who, and which."""


def numbered(who: int, number: int, qubits: int = QUBITS) -> qm.MemoryState:
    """Return a memory that differs from all others in each of its arrays, and is the same each time."""
    amplitudes = np.random.default_rng((who, number)).normal(size=2 << qubits).view(np.complex128)
    state = qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="little")
    return qm.MemoryState(state, {"who": who, "number": number, "payload": np.full(300, number)})


def number_of(memory: qm.MemoryState) -> Number:
    """Return who has written a memory, and which of his own it is, having seen that it is nothing else."""
    tree = memory.classical
    assert memory.quantum is not None
    assert memory == numbered(tree["who"], tree["number"], memory.quantum.n_qubits)
    return tree["who"], tree["number"]


def save(memory: qm.MemoryState, url: str, *, durable: bool = True) -> None:
    """Save it; see `SAVES`."""
    qm.save(memory, url, durable=durable)


def save_in_parts(memory: qm.MemoryState, url: str, *, durable: bool = True, parts: int = 2) -> None:
    """Save it in a transaction, in chunks of 1 MiB, and begin again as often as somebody else was quicker."""
    state = memory.quantum
    assert isinstance(state, qm.StateVector)
    for _ in range(_TRIES):
        try:
            with qm.transaction(
                url,
                n_qubits=state.n_qubits,
                dtype=state.dtype,
                qubit_order=state.qubit_order,
                classical=memory.classical,
                chunk_bytes=1 << 20,
                durable=durable,
            ) as tx:
                forks = []
                for start in range(0, tx.size, step := max(tx.chunk, tx.size // parts)):
                    forks.append(tx.fork())
                    forks[-1].write(start, state.amplitudes[start : start + step])
                tx.merge(*forks)
        except ConflictError:
            continue  # at once: a pause would hide most of what can go wrong
        return
    raise AssertionError(f"others were quicker {_TRIES} times")


SAVES = {"save": save, "transaction": save_in_parts}
"""How a memory becomes the next version."""


def history(url: str) -> list[Version]:
    """Return all versions, the oldest first."""
    return [*qm.repository(url).history()][::-1]


def numbers(url: str, versions: Iterable[Version]) -> list[Number]:
    """Return what is in versions, having read each."""
    return [number_of(qm.load(f"{url}@{version.id}")) for version in versions]


def check_all(url: str, acknowledged: Iterable[Number], maybe: Iterable[Number] = ()) -> list[Number]:
    """See that the history holds what was acknowledged, each once, and nothing that nobody wrote; return what it holds.

    Parameters
    ----------
    maybe
        What was begun, and not acknowledged: it is there once, or not at all.
    """
    found = numbers(url, history(url))
    twice = [number for number, count in Counter(found).items() if count > 1]
    assert not twice, f"more than once: {twice}"
    lost = set(acknowledged) - set(found)
    assert not lost, f"lost: {sorted(lost)}"
    strange = set(found) - set(acknowledged) - set(maybe)
    assert not strange, f"nobody has written {sorted(strange)}"
    for who in {who for who, _ in found}:
        own = [number for other, number in found if other == who]
        assert own == sorted(own), f"those of {who} are not in their order: {own}"
    if found:
        assert qm.verify(url).content_id == numbered(*found[-1]).content_id
    return found

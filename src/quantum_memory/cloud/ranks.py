"""A transaction of all ranks of an MPI job: each writes its amplitudes, and the first one commits."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from quantum_memory.errors import QuantumMemoryError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.cloud.parts import Part
    from quantum_memory.cloud.transaction import Transaction


class Communicator(Protocol):
    """What is used of a communicator of mpi4py."""

    rank: int
    size: int

    def bcast(self, value: Any, root: int = 0) -> Any: ...
    def gather(self, value: Any, root: int = 0) -> list[Any] | None: ...


@contextlib.contextmanager
def among(transaction: Transaction, comm: Communicator) -> Iterator[Part]:
    """Give each rank its part of a transaction, for a block; see `Transaction.among`."""
    with contextlib.ExitStack() as stack:
        part = _begun(transaction, comm, stack)
        mine: BaseException | None = None
        try:
            yield part
        except BaseException as error:
            mine = error
        said = comm.gather((None, f"rank {comm.rank}: {mine!r}") if mine is not None else (part, None))
        outcome: tuple[Any, BaseException | None] = (None, None)
        if said is not None:
            outcome = _ended(transaction, said, stack)
        saved, theirs = comm.bcast(outcome)
    if mine is not None:
        raise mine
    if theirs is not None:
        raise theirs
    transaction.saved = saved


def _begun(transaction: Transaction, comm: Communicator, stack: contextlib.ExitStack) -> Part:
    """Begin on the first rank, and return a part on each."""
    begun: tuple[Part | None, BaseException | None] = (None, None)
    if comm.rank == 0:
        try:
            stack.enter_context(transaction)
            begun = (transaction.fork(), None)
        except Exception as error:
            begun = (None, _told(error))
    part, failed = comm.bcast(begun)
    if failed is not None:
        raise failed
    given: Part = part
    return given


def _ended(
    transaction: Transaction, said: list[tuple[Part | None, str | None]], stack: contextlib.ExitStack
) -> tuple[Any, BaseException | None]:
    """Commit on the first rank, or undo it where a rank has failed; return what was saved, or what is to be raised."""
    failures = [failure for _, failure in said if failure is not None]
    try:
        with stack.pop_all():
            if failures:
                raise StorageError(
                    f"{len(failures)} of {len(said)} ranks failed, and nothing was saved: {failures[0]:.300}",
                    path=transaction.name,
                    next_step="see what that rank said, and write the version again",
                )
            transaction.merge(*(part for part, _ in said if part is not None))
    except Exception as error:
        return None, _told(error)
    return transaction.saved, None


def _told(error: Exception) -> BaseException:
    """Return an error that every rank can be sent."""
    if isinstance(error, QuantumMemoryError):
        return error
    return StorageError(f"the first rank failed: {error!r:.300}", next_step="see what it said, and try again")

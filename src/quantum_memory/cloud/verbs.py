"""Repositories and transactions at addresses; Zarr and Icechunk are imported when one is asked for."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.urls import URL, storage
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.quantum_state import StateVector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantum_memory.cloud.repository import Repository
    from quantum_memory.cloud.transaction import Transaction
    from quantum_memory.state.dense_array import QubitOrder


def repository(url: str, *, create: bool = False) -> Repository:
    """Return the repository at an address: its versions, tags and branches.

    Parameters
    ----------
    url
        The address; what version it names does not matter here.
    create
        Make it where there is none.

    Raises
    ------
    MissingFileError
        There is none, and none is to be made.
    MissingError
        The extra ``cloud`` is not installed.
    StorageError
        The storage cannot be reached, or refuses.
    """
    storage()
    from quantum_memory.cloud.repository import Repository  # noqa: PLC0415 - after it is known to be installed

    return Repository(URL.parse(url), create=create)


def transaction(
    url: str,
    *,
    n_qubits: int | None = None,
    dims: Sequence[int] | None = None,
    dtype: Any = None,
    qubit_order: QubitOrder = "unstated",
    labels: Sequence[str] | None = None,
    classical: Any = None,
    emotion: Any = None,
    metadata: dict[str, Any] | None = None,
    chunk_bytes: int | None = None,
    partial: bool = False,
    durable: bool = True,
    message: str | None = None,
) -> Transaction:
    """Begin a version of a state vector that several write, and that becomes visible as a whole, or not at all.

    Use it as a context manager: the version is committed when the block ends, and when it ends with an error nothing
    has happened. The one who holds it hands out parts with `Transaction.fork` and takes them back with
    `Transaction.merge`.

    Parameters
    ----------
    url
        An address, as ``s3://bucket/run-42`` or ``s3://bucket/run-42@step-7`` for a version with a tag.
    n_qubits, dims
        Size of the state. With neither, the state is like that of the version before, in everything, and so are the
        other parts of the memory that are not given.
    dtype, qubit_order, labels
        See `StateVector`; by default complex128.
    classical, emotion, metadata
        Other parts of the memory; see `MemoryState`. They are written by the one who commits.
    chunk_bytes
        How long a chunk is, a multiple of 1 MiB; up to 1 GiB; by default 8 MiB, and longer for states above
        8 TiB.
    partial
        Keep what the version before has where nothing is written.
    durable
        See `quantum_memory.save`.
    message
        What the history says of the version.

    Raises
    ------
    InvalidStateError
        The parts of what is said do not fit together; not all of the state was written; it is like the version before,
        and there is none.
    ConflictError
        Somebody else has written a version meanwhile: begin again from that; or the tag exists.
    UnsafeError
        The storage does not keep two writers apart.
    StorageError
        The storage cannot be reached, or refuses.

    Examples
    --------
    >>> with transaction("s3://bucket/run-42", n_qubits=33, dtype="complex64") as tx:  # doctest: +SKIP
    ...     parts = executor.map(simulate, [(tx.fork(), lo) for lo in range(0, tx.size, tx.size // 64)])
    ...     tx.merge(*parts)
    """
    address = URL.parse(url)
    storage()
    from quantum_memory.cloud.transaction import begin  # noqa: PLC0415 - as above

    parts = {"classical": classical, "emotion": emotion, "metadata": metadata}
    memory = None
    if n_qubits is not None or dims is not None:
        kind = np.complex128 if dtype is None else dtype
        amplitudes = _amplitudes(n_qubits, dims, kind)
        state = StateVector(amplitudes, qubit_order=qubit_order, dims=dims, labels=labels)
        memory = MemoryState(state, **parts)
    elif dtype is not None or labels is not None or qubit_order != "unstated":
        raise InvalidStateError(
            "dtype, qubit_order and labels are said of a state whose size is said",
            path=url,
            next_step="give n_qubits or dims, or leave them out: the state is like that of the version before",
        )
    replaced = {name: part for name, part in parts.items() if part is not None}
    return begin(address, memory, replaced, chunk_bytes=chunk_bytes, partial=partial, durable=durable, message=message)


def _amplitudes(n_qubits: int | None, dims: Sequence[int] | None, dtype: Any) -> Any:
    """Return amplitudes that take no memory."""
    try:
        size = 1 << operator.index(n_qubits) if n_qubits is not None else math.prod(map(operator.index, dims or ()))
        return np.broadcast_to(np.zeros((), dtype), (size,))
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise InvalidStateError(
            f"n_qubits={n_qubits!r:.40}, dims={dims!r:.60} and dtype={dtype!r:.40} are of no state vector: {error}",
            next_step='say them as n_qubits=33, or dims=(3, 3), and dtype="complex64"',
        ) from None

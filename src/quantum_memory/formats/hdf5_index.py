"""The index of an HDF5 store: a line for each state, in the order in which they were saved."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from quantum_memory.errors import IntegrityError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.hdf5_layout import new_group

if TYPE_CHECKING:
    from collections.abc import Callable

    import h5py

    from quantum_memory.formats.hdf5_store import Store

INDEX_ROW = np.dtype([
    ("id", "S64"), ("created_ns", "<i8"), ("kind", "S24"), ("sites", "<u4"), ("raw_bytes", "<u8"),
    ("stored_bytes", "<u8"), ("content_id", "u1", (32,)), ("check", "<u8"),
])  # fmt: skip
"""What the index says of a state, and the xxh3 of what comes before; zeros stand for a state that was deleted."""


def add_to_index(store: Store, state_id: str, created_ns: int, facts: dict[str, Any], stored_bytes: int) -> None:
    """Append a state to the index."""
    index = store.index
    index.resize(len(index) + 1, axis=0)
    index[-1:] = index_row(state_id, created_ns, facts, stored_bytes)


def index_row(
    state_id: str, created_ns: int, facts: dict[str, Any], stored_bytes: int
) -> np.ndarray[Any, np.dtype[np.void]]:
    """Return the row of a state, as an array of one.

    Parameters
    ----------
    created_ns
        When it was saved, in nanoseconds since 1970; 0 where that is not known.
    facts
        ``kind``, ``sites``, ``raw_bytes`` and ``content_id``.
    """
    row = np.zeros(1, INDEX_ROW)
    row["id"], row["created_ns"], row["kind"] = state_id.encode(), created_ns, str(facts["kind"]).encode()
    row["sites"], row["raw_bytes"], row["stored_bytes"] = facts["sites"], facts["raw_bytes"], stored_bytes
    row["content_id"] = np.frombuffer(bytes.fromhex(facts["content_id"]), np.uint8)
    row["check"] = _checksum(row[0])
    return row


def index_rows(store: Store, start: int, stop: int) -> np.ndarray[Any, Any]:
    """Return rows of the index, checked to be what `add_to_index` writes."""
    rows = _read_rows(store, start, stop)
    if not all(map(_is_intact, rows)):
        raise IntegrityError("its index is damaged", next_step="HDF5QuantumStorage(path).optimize_storage()")
    return rows


def intact_rows(store: Store) -> dict[str, np.ndarray[Any, Any]]:
    """Return the rows of the index by id that are not damaged, each as an array of one."""
    rows = _read_rows(store, 0, len(store.index))
    return {row["id"].decode(): rows[n : n + 1] for n, row in enumerate(rows) if row["id"] and _is_intact(row)}


def says(row: np.void, facts: dict[str, Any]) -> bool:
    """Tell whether a row of the index says of a state what its group says."""
    wanted = index_row(row["id"].decode(), int(row["created_ns"]), facts, int(row["stored_bytes"]))
    return row.tobytes() == wanted.tobytes()


def _read_rows(store: Store, start: int, stop: int) -> np.ndarray[Any, Any]:
    index, size = store.index, store.file.size
    guard.checked_dataset(index, max_bytes=size, dtypes=[INDEX_ROW], file_bytes=size)
    rows: np.ndarray[Any, Any] = index[start:stop]
    return rows


def _is_intact(row: np.void) -> bool:
    return bool(row["check"] == _checksum(row)) or not any(row.tobytes())


def _checksum(row: np.void) -> int:
    return xxhash.xxh3_64_intdigest(row.tobytes()[:-8])


def add_state(
    store: Store, name: str, created_ns: int, write: Callable[[h5py.Group], dict[str, Any]]
) -> dict[str, Any]:
    """Write a state and its line in the index."""
    before = store.file.size
    facts = write(new_group(store.states, name))
    store.root.flush()
    add_to_index(store, name, created_ns, facts, store.file.size - before)
    return facts


def described(row: Any) -> dict[str, Any]:
    """Return what a line of the index says of its state, for people."""
    created = int(row["created_ns"])
    moment = datetime.datetime.fromtimestamp(created / 1e9, datetime.UTC).isoformat() if created else None
    return {
        "id": row["id"].decode(),
        "created": moment,
        "kind": row["kind"].decode() or None,
        "sites": int(row["sites"]),
        "raw_bytes": int(row["raw_bytes"]),
        "stored_bytes": int(row["stored_bytes"]),
        "content_id": row["content_id"].tobytes().hex(),
    }

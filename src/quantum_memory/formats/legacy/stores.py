"""HDF5 stores: many states in one file, each by its id."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.durability.files import physical_memory
from quantum_memory.errors import IntegrityError, InvalidStateError, MissingError, UnsafeError, UnsupportedVersionError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats.json_format import MAX_TEXT_BYTES
from quantum_memory.formats.legacy.containers import check_vector
from quantum_memory.formats.legacy.found import Found
from quantum_memory.formats.legacy.text import from_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.legacy.found import Legacy
    from quantum_memory.formats.legacy.windows import StoredArray
    from quantum_memory.state.arrays import AnyArray

KIND = "hdf5-store"
SCHEMA = "1.0"
_STATES = "quantum_states"
_ID_BYTES = 64
_MAX_TEXT = 1 << 16
_MAX_TENSORS = 10_000
_FILTERS = frozenset({guard.DEFLATE, guard.LZF})
_COMPLEX = (np.dtype("<c16"),)
_FLOAT = (np.dtype("<f8"),)
_IN_MEMORY = 8 << 20
"""Bytes of the arrays of a state that are in memory all the same, where its arrays stay in the file."""

_KNOWN = {"metadata", "quantum_data", "classical_data", "emotional_context"}


def is_store(source: Readable) -> bool:
    """Tell whether an HDF5 file is a store of the first implementation."""
    try:
        with guard.opened(source) as root:
            return _is_store(root)
    except (IntegrityError, UnsafeError):
        return False


def ids(source: Readable) -> list[str]:
    """Return the ids of the states in a store, in the order of their names."""
    with guard.opened(source) as root:
        return _ids(root)


class Store:
    """A store that is open for its states to be read one after another; close it.

    Large arrays of amplitudes stay in the file (`Legacy.windows`) and are read when the state is written, for as long
    as the store is open. They have been read once by then, so that their checksum is known to hold.

    Parameters
    ----------
    source
        The file, which stays open when the store is closed.
    looked_at
        Whether all of this very file was read before, as its SHA-256 shows: large arrays are then not read once more to
        compare their checksums, and nothing is said of what is odd about them.

    Attributes
    ----------
    ids
        Of the states, in their order.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError
    """

    def __init__(self, source: Readable, *, looked_at: bool = False) -> None:
        self._source = source
        self._looked_at = looked_at
        with contextlib.ExitStack() as stack:
            self._root = stack.enter_context(_opened(source))
            self.ids = _ids(self._root)
            self._opened = stack.pop_all()

    def read(self, state_id: str) -> Legacy:
        """Return one of the states; see `legacy.read` for the errors."""
        with guard.guarded(self._source.name):
            state = _State(self._source, physical_memory(), _IN_MEMORY, looked_at=self._looked_at)
            return state.read(self._root, state_id)

    def close(self) -> None:
        """Close it: what has stayed in the file can no longer be read."""
        self._opened.close()


def read_store(source: Readable, state_id: str | None, max_bytes: int) -> Legacy:
    """Return a state of a store.

    Parameters
    ----------
    state_id
        Which; None if there is but one.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError
    MissingError
        There is none of this id.
    InvalidStateError
        There are several, and no id was given.
    """
    with _opened(source) as root:
        held = _ids(root)
        shown = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "")
        if state_id is not None and state_id not in held:
            raise MissingError(
                f"the store has no state {state_id!r:.80}", path=source.name, next_step=f"it has: {shown or 'none'}"
            )
        if state_id is None and not held:
            raise MissingError("the store has no states", path=source.name, next_step="give another file")
        if state_id is None and len(held) > 1:
            raise InvalidStateError(
                f"the store has {len(held)} states", path=source.name, next_step=f"give the state_id of one: {shown}"
            )
        return _State(source, max_bytes).read(root, held[0] if state_id is None else state_id)


@contextlib.contextmanager
def _opened(source: Readable) -> Iterator[Any]:
    """Open a store; it is looked through once (`hdf5_guard.check_heaps`), which takes time where it is large."""
    with guard.opened(source) as root:
        if not _is_store(root):
            raise IntegrityError(
                "it is an HDF5 file, but no store of quantum-memory", path=source.name, next_step="read it with h5py"
            )
        yield root


def _is_store(root: Any) -> bool:
    version = guard.text_attribute(root, "schema_version", _MAX_TEXT, variable=True)
    return version == SCHEMA and guard.has(root, _STATES)


def _ids(root: Any) -> list[str]:
    return sorted(guard.names(_states(root)))


def _states(root: Any) -> Any:
    version = guard.text_attribute(root, "schema_version", _MAX_TEXT, variable=True)
    if version != SCHEMA:
        raise UnsupportedVersionError(
            f"it is a store of version {version:.20}, which the first implementation never wrote",
            next_step="read it with the program that wrote it",
        )
    return guard.subgroup(root, _STATES)


class _State:
    """One state while it is read.

    Parameters
    ----------
    source
        The file.
    max_bytes
        What its arrays may take.
    in_memory
        How many bytes of quantum data are read into memory; what comes after them stays in the file. None: all.
    looked_at
        See `Store`.
    """

    def __init__(
        self, source: Readable, max_bytes: int, in_memory: int | None = None, *, looked_at: bool = False
    ) -> None:
        self._looked_at = looked_at
        self._source = source
        self._file_bytes = source.size
        self._left = max_bytes
        self._in_memory = in_memory
        self._found = Found()

    def read(self, root: Any, name: str) -> Legacy:
        """Return the state of this id."""
        found = self._found
        state = guard.subgroup(_states(root), name)
        found.keep("state_id", name)
        members = {part: guard.subgroup(state, part) for part in guard.names(state) if part in _KNOWN}
        self._note_unknown(state, _KNOWN)
        if metadata := members.get("metadata"):
            found.metadata = self._attributes(metadata)
        else:
            found.notes.append("it has no metadata")
        self._quantum(members.get("quantum_data"))
        if classical := members.get("classical_data"):
            self._classical(classical)
        if emotion := members.get("emotional_context"):
            tree: dict[str, Any] = self._attributes(emotion)
            tree |= {part: self._array(emotion, part, _FLOAT) for part in guard.names(emotion)}
            found.keep("emotional_context", tree)
        if name.encode()[:_ID_BYTES] not in self._index(root):
            found.notes.append("it is not in the index of the store: its save may have ended half-way")
        return found.legacy(KIND, SCHEMA)

    def _quantum(self, group: Any) -> None:
        vector = None
        if group is not None and guard.has(group, "state_vector"):
            vector = self._quantum_array(group, "state_vector")
            self._found.take_vector(vector)
        check_vector(self._found, vector, self._found.metadata.get("checksum"))
        if group is None:
            return
        self._note_unknown(group, {"state_vector", "mps_tensors"})
        if guard.has(group, "mps_tensors"):
            tensors = guard.subgroup(group, "mps_tensors")
            count = guard.number_attribute(tensors, "n_tensors")
            if not 0 <= count <= _MAX_TENSORS or count != len(guard.names(tensors)):
                raise IntegrityError(f"it says that it has {count} tensors, and has {len(tensors)}")
            self._found.take_tensors([self._quantum_array(tensors, f"tensor_{index}") for index in range(int(count))])
            if guard.has_attribute(tensors, "bond_dimension"):
                self._found.keep("bond_dimension", guard.number_attribute(tensors, "bond_dimension"))

    def _classical(self, group: Any) -> None:
        for name, value in self._attributes(group).items():
            self._found.keep(name, value)
        for name in guard.names(group):
            if name == "measurement_cache":
                self._found.keep(name, self._cache(guard.child(group, name)))
            else:
                self._found.keep(name, self._array(group, name, _FLOAT))

    def _cache(self, dataset: Any) -> Any:
        """Return the tree that a text of fixed length is in."""
        text = guard.read_dataset(
            dataset,
            max_bytes=min(self._left, MAX_TEXT_BYTES),
            dtypes=[np.dtype(f"S{min(dataset.dtype.itemsize, MAX_TEXT_BYTES)}")],
            file_bytes=self._file_bytes,
        )
        if text.shape != ():
            raise IntegrityError("its measurement_cache is not one text")
        return from_text(bytes(text.item()))

    def _quantum_array(self, group: Any, name: str) -> AnyArray | StoredArray:
        """Return an array of amplitudes or a tensor, which may stay in the file."""
        dataset = guard.child(group, name)
        if self._in_memory is not None:
            guard.checked_dataset(
                dataset,
                max_bytes=max(self._left, self._file_bytes),
                dtypes=_COMPLEX,
                filters=_FILTERS,
                file_bytes=self._file_bytes,
            )
            self._in_memory -= dataset.nbytes
            if self._in_memory < 0:
                from quantum_memory.formats.legacy.windows import stored_array  # noqa: PLC0415 - only for large states

                found = stored_array(self._source, dataset, looked_at=self._looked_at)
                if found is not None:
                    return found
        return self._array(group, name, _COMPLEX)

    def _array(self, group: Any, name: str, dtypes: tuple[np.dtype[Any], ...]) -> AnyArray:
        array = guard.read_dataset(
            guard.child(group, name),
            max_bytes=self._left,
            dtypes=dtypes,
            filters=_FILTERS,
            file_bytes=self._file_bytes,
        )
        self._left -= array.nbytes
        return array

    def _attributes(self, group: Any) -> dict[str, Any]:
        """Return the attributes of a group, each a text or a number."""
        made: dict[str, Any] = {}
        for name in guard.attribute_names(group):
            text = guard.is_text(group, name)
            made[name] = (
                guard.text_attribute(group, name, _MAX_TEXT, variable=True)
                if text
                else guard.number_attribute(group, name)
            )
        return made

    def _index(self, root: Any) -> set[bytes]:
        if not guard.has(root, "index") or not guard.has(guard.subgroup(root, "index"), "chronological"):
            return set()
        listed = self._array(guard.subgroup(root, "index"), "chronological", (np.dtype(f"S{_ID_BYTES}"),))
        return set(listed.reshape(-1).tolist())

    def _note_unknown(self, group: Any, known: set[str]) -> None:
        if unknown := [name for name in guard.names(group) if name not in known]:
            self._found.notes.append(f"it has a part {unknown[0]!r:.80}, which is not read")

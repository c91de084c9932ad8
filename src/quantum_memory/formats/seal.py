"""What the formats that are read in one piece share: a seal over every byte, and a memory on its way in and out.

A seal is the SHA-256 of every byte before it, at the end of the file. It is checked first, so that of a damaged file
nothing else is looked at. It says that the file is whole, not who wrote it: what is read then is checked as well.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from quantum_memory.errors import RESTORE, IntegrityError, InvalidStateError
from quantum_memory.formats.form_reader import with_forms
from quantum_memory.formats.reader import (
    AMPLITUDES,
    WholeEntry,
    WholeReader,
    check_budget,
    damaged,
    nbytes_of,
    new_array,
)
from quantum_memory.formats.record import squared_norm
from quantum_memory.formats.stated_version import check_version
from quantum_memory.state.arrays import (
    CHUNK_BYTES,
    STORABLE,
    bytes_of,
    chunk_count,
    chunk_items,
    combine_digests,
    dtype_name,
)
from quantum_memory.state.document import MAX_DIMENSIONS, ArrayIdentity
from quantum_memory.state.json_text import MAX_DOCUMENT_BYTES, document_text, parts_of_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Buffer
    from quantum_memory.formats.prepared import Prepared
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, Progress, Sink
    from quantum_memory.state.arrays import AnyArray

FORMAT = "quantum-memory"
VERSION = "2.0"
SEAL_BYTES = 32
MAX_ARRAYS = 1 << 14
"""How many arrays there may be, written or read: a few bytes of a file make one that costs far more memory and time."""


class Source(Protocol):
    """Bytes that are read at any offset: an open file, bytes in memory, or what a text decodes to."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on."""


class SealedSink:
    """A sink that takes the SHA-256 of what passes through to another, and ends with it.

    Parameters
    ----------
    sink
        The other.
    held
        How many of the last bytes are held back, and replaced by the seal: where the form of a file says that it is
        complete before its seal can be known.

    Attributes
    ----------
    length
        Bytes that have been written.
    """

    def __init__(self, sink: Sink, held: int = 0) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self._most = held
        self._held = b""
        self.length = 0

    def write(self, data: Buffer) -> int:
        """Take all of `data`."""
        view = memoryview(data).cast("B")
        self.length += len(view)
        if len(view) >= self._most:
            self._pass(self._held)
            split = len(view) - self._most
            self._pass(view[:split])
            self._held = bytes(view[split:])
        else:
            joined = self._held + view
            split = max(0, len(joined) - self._most)
            self._pass(joined[:split])
            self._held = joined[split:]
        return len(view)

    def flush(self) -> None:
        """Do nothing: there is no buffer but the bytes that are held back."""

    def seal(self, spelled: Callable[[bytes], bytes] = bytes) -> None:
        """Write the seal, as `spelled` gives it, in the place of what is held back."""
        self._sink.write(spelled(self._hash.digest()))

    def _pass(self, data: Buffer) -> None:
        if len(data):
            self._hash.update(data)
            self._sink.write(data)


def check_seal(source: Source, length: int, expected: bytes) -> None:
    """Compare the SHA-256 of the first `length` bytes with the seal.

    Raises
    ------
    IntegrityError
        They differ.
    """
    if digest_of(source, 0, length) != expected:
        what = "it is damaged, cut short or added to, or not a saved state"
        raise damaged(f"its bytes do not match the SHA-256 at its end: {what}", source.name)


def digest_of(source: Source, start: int, stop: int, progress: Progress | None = None) -> bytes:
    """Return the SHA-256 of the bytes ``start:stop``, of which nothing is kept."""
    found = hashlib.sha256()
    buffer = memoryview(bytearray(min(stop - start, CHUNK_BYTES)))
    for at in range(start, stop, CHUNK_BYTES):
        part = buffer[: stop - at]
        source.read_into(part, at)
        found.update(part)
        if progress is not None:
            progress(len(part))
    return found.digest()


class Outgoing:
    """A memory on its way into a file: its arrays first, then the document, then its name.

    Parameters
    ----------
    memory
        The memory.
    progress
        Called with the raw bytes of each chunk that is done.

    Attributes
    ----------
    arrays
        By path, in the order in which they are written.
    """

    def __init__(self, memory: Prepared, progress: Progress | None) -> None:
        self._memory = memory
        self._progress = progress
        arrays = memory.arrays
        if len(arrays) > MAX_ARRAYS:
            raise InvalidStateError(
                f"it has {len(arrays)} arrays, and this format holds up to {MAX_ARRAYS}",
                next_step="save it as .qms or .h5",
            )
        self.arrays = {path: arrays[path] for path in sorted(arrays)}
        self._identities: dict[str, ArrayIdentity] = {}
        self._squares: list[float] | None = None

    def write(self, path: str, write: Callable[[memoryview], object]) -> None:
        """Write the logical bytes of an array, a chunk at a time.

        Each chunk is a copy: were the caller to change the array meanwhile, digest and data would not fit together.
        """
        array = self.arrays[path]
        digests, squares = bytearray(), []
        for index in range(chunk_count(array.nbytes)):
            items = chunk_items(array, index).copy()
            raw = bytes_of(items)
            digests += hashlib.sha256(raw).digest()
            if path == AMPLITUDES:
                squares.append(squared_norm(items))
            write(raw)
            if self._progress is not None:
                self._progress(items.nbytes)
        if path == AMPLITUDES:
            self._squares = squares
        digest = combine_digests(bytes(digests), chunk_count(array.nbytes))
        self._identities[path] = ArrayIdentity(dtype_name(array.dtype) or "", array.shape, digest)

    def document(self, written: int) -> bytes:
        """Return the JSON text of document and record, once the arrays are written.

        Parameters
        ----------
        written
            Bytes of the file up to here, which bound how many values it may hold.

        Raises
        ------
        InvalidStateError
            No reader would take it.
        """
        return document_text(self._memory.parts(self._squares), written)

    def content_id(self) -> str:
        """Return the name of the content, once the arrays are written."""
        return self._memory.content_id(self._identities)


class Incoming:
    """A memory on its way out of a file, whose seal has been checked.

    Parameters
    ----------
    source
        The file.
    options
        `max_bytes` bounds what its arrays take.
    file_bytes
        Length of the file, where it is not that of the source.
    """

    def __init__(self, source: Source, options: OpenOptions, file_bytes: int | None = None) -> None:
        self._source = source
        self._file_bytes = source.size if file_bytes is None else file_bytes
        self._most = options.max_bytes
        self._taken = 0
        self.arrays: dict[str, AnyArray] = {}

    def new(self, path: str, dtype: str, shape: tuple[int, ...], length: int) -> memoryview:
        """Return the memory of a new array, to be filled.

        Raises
        ------
        IntegrityError
            It has no such shape, or no such dtype, in `length` bytes.
        BudgetError
            All arrays so far need more memory than is allowed; none has been taken for this one.
        """
        self._check(path, dtype, shape, length)
        self._taken += length
        check_budget(self._taken, self._most, self._source.name)
        entry = WholeEntry(ArrayIdentity(dtype, shape, b""), length)
        self.arrays[path] = new_array(entry, path, self._source.name)
        return bytes_of(self.arrays[path].reshape(-1))

    def lend(self, path: str, dtype: str, shape: tuple[int, ...], buffer: Any) -> None:
        """Take memory of the caller as an array."""
        raw = np.frombuffer(buffer, np.uint8)
        self._check(path, dtype, shape, raw.nbytes)
        self.arrays[path] = raw.view(STORABLE[dtype]).reshape(shape)

    def _check(self, path: str, dtype: str, shape: tuple[int, ...], length: int) -> None:
        if len(self.arrays) >= MAX_ARRAYS:
            raise IntegrityError(f"it has more than the {MAX_ARRAYS} arrays that any release writes")
        if len(shape) > MAX_DIMENSIONS or path in self.arrays or nbytes_of(dtype, shape) != length:
            raise IntegrityError(f"its array {path[:80]!r} is not what its shape and dtype say")

    def reader(self, kind: str, text: bytes | bytearray, name: str) -> Reader:
        """Return the reader, from the JSON text of document and record and the `content_id` that the file states."""
        document, record, packed = parts_of_document(text, self._source.size)
        stored = self.arrays
        return with_forms(
            WholeReader(
                kind, VERSION, self._source.name, self._file_bytes, document, record, stored, name, packed=packed
            ),
            self._most,
        )


def check_document(length: int) -> None:
    """Refuse a document that no release writes, before memory is taken for it."""
    if length > MAX_DOCUMENT_BYTES:
        raise IntegrityError("its document is past the limits of the format")


def check_format(kind: object, version: object) -> None:
    """Refuse a file that does not say that it is one of ours, or is of another version.

    Raises
    ------
    IntegrityError, UnsupportedVersionError
    """
    if kind != FORMAT or version is None:
        raise IntegrityError("it does not say that it is a saved state, and of which version", next_step=RESTORE)
    check_version(version, VERSION)

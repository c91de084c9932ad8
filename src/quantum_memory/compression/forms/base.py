"""What a form is: it packs one array into plain values and a few one-dimensional arrays, its *parts*, and unpacks them.

A form knows nothing of files. Whoever writes one puts the parts beside the other arrays and the plain values into the
document, in every format alike. Forms can be nested: what is left of an array after one has been taken in another form.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from quantum_memory.errors import RESTORE, IntegrityError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from quantum_memory.compression.forms.views import View
    from quantum_memory.state.arrays import AnyArray

Json = Any
Effort = Literal["fast", "balanced", "max"]
EFFORTS: tuple[Effort, ...] = ("fast", "balanced", "max")
"""How long to look for the smallest form."""

IN_MEMORY_BYTES = 8 << 20
"""Up to so many bytes of a part are kept in memory while it is made; a longer one goes through a temporary file."""


class Part(Protocol):
    """A one-dimensional array that may still be in a file: slices of it are read, and checked, when they are taken."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, items: slice, /) -> AnyArray: ...


@dataclass(frozen=True)
class Packed:
    """An array in a form.

    Attributes
    ----------
    form
        Name of the form.
    facts
        Plain values, as JSON has them. Numbers that must come back exactly are strings (``float.hex``) or integers
        below 2**53.
    parts
        By name: one-dimensional arrays of types that every format stores. Names are lower-case words; those of a nested
        form come after the name of what it packs and a dot.
    """

    form: str
    facts: dict[str, Json]
    parts: dict[str, AnyArray] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes in a file."""
        return len(str(self.facts)) + sum(part.nbytes + 100 for part in self.parts.values())


class Unpacks(Protocol):
    """What reads arrays in a form."""

    def view(
        self, facts: Mapping[str, Json], parts: Mapping[str, Part], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        """Return what computes any stretch of the array that was packed.

        Parts and facts may be anything: a hostile file must not make this, or what is returned, run for long, take much
        memory or raise other errors than ours.

        Parameters
        ----------
        dtype, shape
            Of the array.

        Raises
        ------
        IntegrityError
            Facts and parts are not what `pack` makes. What does not show here does when a window is computed.
        """


class Form(Unpacks, Protocol):
    """How an array is packed and unpacked.

    Attributes
    ----------
    name
        As files have it; it never changes.
    """

    name: ClassVar[str]

    def pack(self, array: AnyArray, effort: Effort) -> Packed | None:
        """Return the array in this form, bit for bit, or None where the form has nothing to offer for it.

        Parameters
        ----------
        array
            C-contiguous, little-endian: float32, float64, complex64 or complex128, of one axis (a state vector) or two
            (a density matrix).
        effort
            How long to try. A form that does not pay is to be found out by a cheap test.
        """


def temporary_file(nbytes: int = 0) -> Any:
    """Return a temporary file without a name, with room for so many bytes: touching a mapping cannot fail later.

    Raises
    ------
    StorageError
        There is no room, or no folder for temporary files.
    """
    import tempfile  # noqa: PLC0415 - takes a while to import

    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        if nbytes and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, nbytes)
        elif nbytes:  # macOS, where only writing takes the room
            os.truncate(file.fileno(), nbytes)
    except OSError as error:
        raise _no_room(error) from error
    return file


def _no_room(error: OSError) -> StorageError:
    import tempfile  # noqa: PLC0415 - as above

    made = StorageError.from_os_error(error, "write a temporary file", tempfile.tempdir or "temporary folder")
    made.next_step = "free some space in the folder for temporary files, or set TMPDIR to another one"
    return made


class Stream:
    """Bytes that are appended, and are an array of u8 in the end, without being held in memory when they are many."""

    def __init__(self) -> None:
        self._file: Any = io.BytesIO()
        self._length = 0
        self._spilled = False

    def append(self, data: bytes | memoryview) -> None:
        """Take all of `data`.

        Raises
        ------
        StorageError
            There is no room for a temporary file.
        """
        self._length += len(data)
        try:
            if not self._spilled and self._length > IN_MEMORY_BYTES:
                short, self._file = self._file, temporary_file()
                self._spilled = True
                with short:
                    self._file.write(short.getbuffer())
            self._file.write(data)
        except StorageError:  # of the temporary file
            raise
        except OSError as error:
            raise _no_room(error) from error

    def array(self) -> AnyArray:
        """Return what was appended; nothing can be appended after that."""
        with self._file:
            if not self._spilled:
                return np.frombuffer(self._file.getvalue(), np.uint8)
            try:
                self._file.flush()
            except OSError as error:
                raise _no_room(error) from error
            return np.memmap(self._file, np.uint8, "r", shape=(self._length,))  # which outlives the open file

    def __del__(self) -> None:
        self._file.close()


def row_parts(name: str, stream: Stream, lengths: Sequence[int]) -> dict[str, AnyArray]:
    """Return the blocks of a packed row as parts: one after another, and the length of each where there are several."""
    several = {f"{name}.lengths": np.array(lengths, np.uint32)} if len(lengths) > 1 else {}
    return {name: stream.array()} | several


_NOTED = 1 << 9
"""Blocks from one of which it is noted where it begins to the next."""


class RowBlocks:
    """The blocks of a packed row; see `row_parts`.

    Parameters
    ----------
    count
        How many there are.
    most
        Bytes of one at most.

    Raises
    ------
    IntegrityError
        The parts cannot be such a row.
    """

    def __init__(self, parts: Mapping[str, Part], name: str, count: int, most: int) -> None:
        self._stream = part_of(parts, name, np.uint8)
        self._lengths = part_of(parts, f"{name}.lengths", np.uint32, count) if count > 1 else None
        self._starts = [0]  # of every `_NOTED`-th block: a file can state that it has any number
        for first in range(0, count, _NOTED):
            lengths = self._between(first, min(first + _NOTED, count))
            if not lengths.min() or lengths.max() > most:
                raise malformed(f"a block of {name!r} does not have the length that is stated")
            self._starts.append(self._starts[-1] + int(lengths.sum()))
        if self._stream.shape[0] != self._starts[-1]:
            raise malformed(f"the blocks of {name!r} do not have the lengths that are stated")

    def __getitem__(self, index: int) -> AnyArray:
        first = index - index % _NOTED
        lengths = self._between(first, index + 1)
        stop = self._starts[index // _NOTED] + int(lengths.sum())
        return self._stream[stop - int(lengths[-1]) : stop]

    def _between(self, first: int, last: int) -> AnyArray:
        if self._lengths is None:
            return np.full(last - first, self._stream.shape[0])
        return self._lengths[first:last].astype(np.int64)


def malformed(what: str) -> IntegrityError:
    """Return the error for facts or parts that no release makes."""
    return IntegrityError(f"what a packed array is made of does not fit together: {what}", next_step=RESTORE)


def part_of(parts: Mapping[str, Part], name: str, dtype: Any, count: int | None = None) -> Part:
    """Return a part that has the dtype, and where that is given the number of items, that a form expects.

    Raises
    ------
    IntegrityError
    """
    part = parts.get(name)
    if part is None or part.dtype != np.dtype(dtype) or len(part.shape) != 1:
        raise malformed(f"there is no part {name!r} of {np.dtype(dtype)}")
    if count is not None and part.shape[0] != count:
        raise malformed(f"the part {name!r} has {part.shape[0]} items, and not {count}")
    return part


def nested(parts: Mapping[str, Part], name: str) -> dict[str, Part]:
    """Return the parts of the form that packs `name` within another."""
    return {key.removeprefix(f"{name}."): part for key, part in parts.items() if key.startswith(f"{name}.")}


def under(name: str, parts: Mapping[str, AnyArray]) -> Iterator[tuple[str, AnyArray]]:
    """Yield the parts of a form that packs `name` within another, with their names there."""
    yield from ((f"{name}.{key}", part) for key, part in parts.items())

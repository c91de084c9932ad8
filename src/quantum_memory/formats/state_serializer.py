"""States as JSON, MessagePack, pickle, NumPy or Base64 in memory, and what of them would not come back.

The bytes are those of the files: ``serialize(state, "numpy")`` gives what `quantum_memory.save` writes to a ``.npz``.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.reader import read_memory
from quantum_memory.formats.registry import OpenOptions, SaveOptions, format_named
from quantum_memory.state.arrays import chunk_count, chunk_items, dtype_name
from quantum_memory.state.emotional_state import EmotionalContext
from quantum_memory.state.json_text import to_json
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.memory_state import MemoryState, as_memory_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from quantum_memory.durability.files import Buffer
    from quantum_memory.state.arrays import AnyArray

SUFFIXES = {"json": "json", "msgpack": "msgpack", "pickle": "pkl", "numpy": "npz", "base64": "b64"}
"""The formats, and the suffix that a file of each has."""

TEXTS = frozenset({"json", "base64"})
"""The formats whose serialized form is a str; that of the others is bytes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Difference:
    """One thing that differs between two memories.

    Attributes
    ----------
    path
        Of the array, or of the value in the document.
    what
        "missing" (only in the first), "added" (only in the second), "dtype", "shape" or "value".
    before, after
        What stands in the first and in the second; None where nothing does.
    dtype
        Of the array in the first, or in the second where it was added; None for a value of the document.
    index
        Of the first item that differs, where values of an array do.
    """

    path: str
    what: str
    before: Any
    after: Any
    dtype: str | None = None
    index: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Validation:
    """Whether a state comes back from a format as it was; true when it does.

    Attributes
    ----------
    format
        Which format.
    content_id
        Name of the content that went in.
    differences
        What came back otherwise.
    """

    format: str
    content_id: str
    differences: list[Difference] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.differences


@dataclass(frozen=True)
class FormatFigures:
    """What a format makes of a state.

    Attributes
    ----------
    bytes
        Length of the serialized form; that of text counts its ASCII characters.
    ratio
        Bytes of the arrays for each byte of it; None where there are no arrays.
    serialize_seconds, deserialize_seconds
        Medians.
    ok
        Whether every bit came back.
    """

    bytes: int
    ratio: float | None
    serialize_seconds: float
    deserialize_seconds: float
    ok: bool


class _Serializer(Generic[T]):
    """What the serializers share: a value becomes a memory, the memory bytes, and back.

    Parameters
    ----------
    max_text_bytes
        How long JSON text may become, and be when it is read; by default 16 MiB.
    """

    def __init__(self, max_text_bytes: int | None = None) -> None:
        self.max_text_bytes = max_text_bytes

    def _memory(self, value: Any) -> MemoryState:
        raise NotImplementedError

    def _value(self, memory: MemoryState) -> T:
        raise NotImplementedError

    def serialize(
        self,
        value: Any,
        format: str = "json",  # noqa: A002
        *,
        compression: str = "auto",
        readable: bool = False,
    ) -> str | bytes:
        """Return a value in serialized form, a str in the formats "json" and "base64", and bytes in the others.

        Parameters
        ----------
        format
            "json", "msgpack", "pickle", "numpy" or "base64".
        compression
            "zlib" where the format has it, which "numpy" does.
        readable
            See `quantum_memory.save`.

        Raises
        ------
        InvalidStateError
            It cannot be kept exactly, or not in this format.
        """
        handler = _format(format).handler
        if compression not in handler.compressions:
            raise InvalidStateError(
                f"the format {format!r} has no compression {compression!r:.40}",
                next_step=f"use one of {', '.join(sorted(handler.compressions))}",
            )
        sink = io.BytesIO()
        options = SaveOptions(compression, max_text_bytes=self.max_text_bytes, readable=readable)
        handler.write(sink, Prepared.plain(self._memory(value)), options)
        return sink.getvalue().decode("ascii") if format in TEXTS else sink.getvalue()

    def deserialize(
        self,
        data: str | Buffer,
        format: str = "json",  # noqa: A002
        *,
        allow_pickle: bool = False,
        max_bytes: int | None = None,
    ) -> T:
        """Return the value that was serialized, checking every byte.

        Parameters
        ----------
        data
            What `serialize` returned, as str or bytes.
        format
            As it was given to `serialize`.
        allow_pickle
            Read a pickle: only those that this package wrote are, and no code of theirs runs.
        max_bytes
            What the arrays may take; by default all the memory of the machine.

        Raises
        ------
        IntegrityError
            It is damaged, or of another format.
        UnsafeError, BudgetError, UnsupportedVersionError
        """
        kind = _format(format)
        name = f"<{format}>"
        if isinstance(data, str):
            if not data.isascii():
                raise IntegrityError("it is text with characters that no release writes", path=name)
            data = data.encode("ascii")
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise InvalidStateError(
                f"a {type(data).__name__} is not what serialize returned", next_step="give its text or its bytes"
            )
        most = self.max_text_bytes if format == "json" and max_bytes is None else max_bytes
        reader = kind.handler.open(ReadableBytes(data, name), OpenOptions(most, allow_pickle))
        return self._value(read_memory(reader, max_bytes=max_bytes))

    def validate_serialization(self, value: Any, format: str = "json") -> Validation:  # noqa: A002
        """Serialize a value, read it back, and say what differs in any bit."""
        before = self._memory(value)
        data = self.serialize(value, format)
        after = self._memory(self.deserialize(data, format, allow_pickle=True))
        return Validation(format, before.content_id, differences(before, after))

    def compare_formats(
        self, value: Any, formats: Sequence[str] = tuple(SUFFIXES), repeats: int = 5
    ) -> dict[str, FormatFigures]:
        """Return length, times (medians of `repeats`) and fidelity of a value in each format."""
        raw = sum(array.nbytes for array in self._memory(value).flatten().arrays.values())
        found = {}
        for name in formats:
            writing, reading = [], []
            ok = bool(self.validate_serialization(value, name))
            data: str | bytes = b""
            for _ in range(max(1, repeats)):
                start = time.perf_counter()
                data = self.serialize(value, name)
                between = time.perf_counter()
                self.deserialize(data, name, allow_pickle=True)
                writing.append(between - start)
                reading.append(time.perf_counter() - between)
            found[name] = FormatFigures(
                len(data), raw / len(data) if raw else None, statistics.median(writing), statistics.median(reading), ok
            )
        return found


class QuantumStateSerializer(_Serializer[MemoryState]):
    """Whole states, in anything that `quantum_memory.save` takes; they come back as a `MemoryState`.

    Parameters
    ----------
    max_text_bytes
        How long JSON text may become, and be when it is read; by default 16 MiB.

    Examples
    --------
    >>> serializer = QuantumStateSerializer()
    >>> state_data = {"quantum_data": {"state_vector": np.array([1, 1j]) / np.sqrt(2)}, "metadata": {"run": 7}}
    >>> serializer.deserialize(serializer.serialize(state_data, "msgpack"), "msgpack") == state_data
    True
    """

    def _memory(self, value: Any) -> MemoryState:
        return as_memory_state(value)

    def _value(self, memory: MemoryState) -> MemoryState:
        return memory


class EmotionalStateSerializer(_Serializer[EmotionalContext]):
    """Emotional contexts: an `EmotionalContext`, or a dict as `EmotionalContext.from_dict` reads it.

    They come back as an `EmotionalContext`, whose `to_dict` gives the dict.

    Parameters
    ----------
    max_text_bytes
        How long JSON text may become, and be when it is read; by default 16 MiB.
    """

    def _memory(self, value: Any) -> MemoryState:
        if not isinstance(value, (EmotionalContext, Mapping)):
            raise InvalidStateError(
                f"a {type(value).__name__} is not an emotional context", next_step="give an EmotionalContext or a dict"
            )
        return MemoryState(emotion=value)

    def _value(self, memory: MemoryState) -> EmotionalContext:
        if memory.emotion is None:
            raise _another("an emotional context")
        return memory.emotion


class MPSTensorSerializer(_Serializer[MatrixProductState]):
    """Matrix product states: a `MatrixProductState`, or its tensors (left, physical, right); nothing is truncated.

    They come back as a `MatrixProductState`.

    Parameters
    ----------
    max_text_bytes
        How long JSON text may become, and be when it is read; by default 16 MiB.
    """

    def _memory(self, value: Any) -> MemoryState:
        if isinstance(value, MatrixProductState):
            return MemoryState(value)
        if isinstance(value, (list, tuple)):
            return MemoryState(MatrixProductState(value))
        raise InvalidStateError(
            f"a {type(value).__name__} is no matrix product state",
            next_step="give a MatrixProductState or a list of tensors, one per site",
        )

    def _value(self, memory: MemoryState) -> MatrixProductState:
        if not isinstance(memory.quantum, MatrixProductState):
            raise _another("a matrix product state")
        return memory.quantum


def differences(a: MemoryState, b: MemoryState) -> list[Difference]:
    """Return everything in which two memories differ, bit for bit; what does not count for `content_id` does not here.

    Arrays come first, by path, and the values of the document after them.
    """
    flat_a, flat_b = a.flatten(), b.flatten()
    found: list[Difference] = []
    for path in sorted({*flat_a.arrays, *flat_b.arrays}):
        found += _of_arrays(path, flat_a.arrays.get(path), flat_b.arrays.get(path))
    leaves_a, leaves_b = dict(_leaves(flat_a.document, "")), dict(_leaves(flat_b.document, ""))
    for path in sorted({*leaves_a, *leaves_b}):
        before, after = leaves_a.get(path), leaves_b.get(path)
        if path not in leaves_b:
            found.append(Difference(path, "missing", before, None))
        elif path not in leaves_a:
            found.append(Difference(path, "added", None, after))
        elif to_json(before) != to_json(after):  # as text, in which 0.0 and -0.0 differ, and True and 1
            found.append(Difference(path, "value", before, after))
    return found


def _of_arrays(path: str, a: AnyArray | None, b: AnyArray | None) -> Iterator[Difference]:
    if a is None or b is None:
        if a is not None:
            yield Difference(path, "missing", a.shape, None, dtype_name(a.dtype))
        if b is not None:
            yield Difference(path, "added", None, b.shape, dtype_name(b.dtype))
        return
    names = dtype_name(a.dtype), dtype_name(b.dtype)
    if names[0] != names[1]:
        yield Difference(path, "dtype", *names, dtype=names[0])
    elif a.shape != b.shape:
        yield Difference(path, "shape", a.shape, b.shape, dtype=names[0])
    else:
        for index in range(chunk_count(a.nbytes)):
            items_a, items_b = chunk_items(a, index), chunk_items(b, index)
            rows = (items_a.view(np.uint8) != items_b.view(np.uint8)).reshape(len(items_a), -1).any(axis=1)
            if rows.any():
                first = int(rows.argmax())
                where = np.unravel_index(index * len(chunk_items(a, 0)) + first, a.shape)
                place = tuple(int(n) for n in where)
                yield Difference(path, "value", items_a[first], items_b[first], names[0], place)
                return


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values at the ends of a document, by path; pairs of a dict by the text of their keys."""
    if isinstance(node, dict) and "$dict" in node:
        items = [(to_json(key, canonical=True).decode(), item) for key, item in node["$dict"]]
    elif isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = [(str(index), item) for index, item in enumerate(node)]
    else:
        items = []
    if not items:
        yield path, node
    for key, item in items:
        yield from _leaves(item, f"{path}.{key}" if path else key)


def _format(name: str) -> Any:
    if name not in SUFFIXES:
        raise InvalidStateError(f"there is no format {name!r:.40}", next_step=f"use one of {', '.join(SUFFIXES)}")
    return format_named(SUFFIXES[name])


def _another(wanted: str) -> InvalidStateError:
    return InvalidStateError(
        f"what was serialized is a memory without {wanted}", next_step="deserialize it with QuantumStateSerializer"
    )

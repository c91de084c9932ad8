"""Check a whole file, byte by byte, and, unless only its bytes matter, say what is odd about the state in it."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.form_reader import lossy_arrays
from quantum_memory.formats.reader import AMPLITUDES, identities, outline, read_memory
from quantum_memory.formats.record import norm_of, squared_norm
from quantum_memory.formats.registry import opened
from quantum_memory.state.document import content_id, well_formed
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sites import vector_problems
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import OpenOptions, Path, Progress
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import QuantumState

Depth = Literal["bytes", "full"]
"""How deep a check looks: "bytes" compares stored bytes with their checksums and decodes nothing, "full" reads all that
is stored, compares it with every digest, and looks at the state."""

_PUT_TOGETHER = 32 << 20
"""Raw bytes up to which a memory is not only checked but also put together, to see that its parts fit."""

_LISTED = 20
"""Problems of a store that are listed."""

_LARGEST_MATRIX = 1 << 9
_LARGEST_TABLEAU = 1 << 11
_MOST_NUMBERS = 1 << 21
_MOST_PRODUCTS = 1 << 28
"""Dimension of a density matrix, qubits of a stabiliser state, and numbers in a matrix product state and products of
them in its norm, up to which the properties of the state are computed: they take more memory than the state, or grow
faster than the file."""


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found in a file that is whole.

    Attributes
    ----------
    content_id
        The name of its content; None where only the bytes were looked at.
    arrays, chunks
        How many arrays there are, and how many chunks of 1 MiB or less they and the document make; None as well.
    depth
        How deep was looked: "full" also where "bytes" was asked for, and the format has no check of bytes alone.
    problems
        What is odd about the data that were saved, and is kept exactly as it was: values that are not finite, a norm
        that is not 1. The file itself is good.
    """

    path: str
    format: str
    bytes: int
    content_id: str | None
    arrays: int | None
    chunks: int | None
    problems: list[str] = field(default_factory=list)
    depth: Depth = "full"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a plain dict."""
        return asdict(self)


def depth_of(depth: Depth) -> Depth:
    """Return how deep somebody wants to look, or say that there is no such depth."""
    if depth not in get_args(Depth):
        known = " or ".join(map(repr, get_args(Depth)))
        raise InvalidStateError(f"no check has the depth {depth!r:.40}", next_step=f"use {known}")
    return depth


def verify_one(
    path: Path,
    options: OpenOptions,
    progress: Progress | None = None,
    seen: Callable[[Reader], Seen] | None = None,
    *,
    depth: Depth = "full",
) -> VerifyReport:
    """Check every byte of a file; see `quantum_memory.verify`.

    Parameters
    ----------
    seen
        Looks at the chunks of a reader; by default this process does.
    """
    source, handler = opened(path, options)
    # Closed here, and not when the last error that names them is forgotten.
    with closing(source):
        if depth == "bytes" and (kind := handler.check_bytes(source, options, progress)) is not None:
            return VerifyReport(source.name, kind, source.size, None, None, None, depth="bytes")
        with closing(handler.each(source, options)) as readers:
            reports = {reader.member: _verify(reader, progress, seen) for reader in readers}
    return next(iter(reports.values())) if len(reports) == 1 else _together(reports, source.name, source.size)


class Seen(NamedTuple):
    """What was seen of chunks that are whole.

    Attributes
    ----------
    chunks
        How many there are.
    odd
        Of each array how many values are not finite.
    squares
        The squared norms of the parts of the state vector.
    """

    chunks: int
    odd: Counter[str]
    squares: list[float]


def look_at(check: Callable[[Callable[[str, AnyArray], object]], int]) -> Seen:
    """Return what is seen of the chunks that `check` calls its argument with; it returns their number."""
    odd: Counter[str] = Counter()
    squares: list[float] = []
    lock = threading.Lock()

    def look(path: str, items: AnyArray) -> None:
        count = _count_odd(items)
        square = squared_norm(items) if path == AMPLITUDES else 0.0
        with lock:
            odd[path] += count
            squares.append(square)

    return Seen(check(look), odd, squares)


def _verify(reader: Reader, progress: Progress | None, seen: Callable[[Reader], Seen] | None = None) -> VerifyReport:
    everything = look_at(lambda look: reader.check_everything(progress, look)) if seen is None else seen(reader)
    chunks, odd, squares = everything
    problems = None
    if sum(entry.nbytes for entry in reader.entries.values()) <= _PUT_TOGETHER:
        problems = _of_state(read_memory(reader).quantum, _tolerance(reader))
    elif isinstance(state := outline(reader), StateVector):
        amplitudes, tolerance = state.amplitudes, _tolerance(reader)
        problems = vector_problems(odd[AMPLITUDES], norm_of(squares), state.dtype, len(amplitudes), tolerance)
    with well_formed(reader.name):
        name = content_id(reader.document, identities(reader))
    found = [*reader.notes, *_problems(problems, odd)]
    return VerifyReport(reader.name, reader.format, reader.size, name, len(reader.entries), chunks, found)


def _together(reports: dict[str, VerifyReport], name: str, size: int) -> VerifyReport:
    """Return the report of a store: its `content_id` is the SHA-256 of those of its states, sorted and joined."""
    each = reports.values()
    content = hashlib.sha256("".join(sorted(str(report.content_id) for report in each)).encode()).hexdigest()
    arrays, chunks = (sum(getattr(report, what) or 0 for report in each) for what in ("arrays", "chunks"))
    problems = [f"{member}: {problem}" for member, report in reports.items() for problem in report.problems]
    more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    return VerifyReport(name, "h5", size, content, arrays, chunks, problems[:_LISTED] + more)


def _tolerance(reader: Reader) -> float | None:
    """Return how far the norm may be from 1: as far as the vector from the original, where it was packed with loss."""
    lost = [node.certificate.infidelity for node in lossy_arrays(reader).values() if node.certificate is not None]
    return 2 * math.sqrt(max(lost)) if lost else None


def _of_state(state: QuantumState | None, tolerance: float | None) -> list[str] | None:
    """Return what is odd about a state, or None where it would take too long to say."""
    if state is None or not _is_quick(state):
        return None
    with np.errstate(all="ignore"):  # what overflows shows in what is said
        return state.problems(tolerance)


def _is_quick(state: QuantumState) -> bool:
    if isinstance(state, DensityMatrix):
        return len(state.matrix) <= _LARGEST_MATRIX
    if isinstance(state, StabilizerState):
        return state.n_sites <= _LARGEST_TABLEAU
    if isinstance(state, MatrixProductState):
        numbers = sum(tensor.size for tensor in state.tensors)
        products = sum(tensor.size * (tensor.shape[0] + tensor.shape[2]) for tensor in state.tensors)
        return numbers <= _MOST_NUMBERS and products <= _MOST_PRODUCTS
    return True


def _problems(of_state: list[str] | None, odd: Counter[str]) -> list[str]:
    """Return what is odd about the state, if that is known, and which other arrays have values that are not finite."""
    others = {path: count for path, count in odd.items() if of_state is None or not path.startswith("quantum/")}
    return [
        *(of_state or []),
        *(f"{count} values of {path} are not finite" for path, count in others.items() if count),
    ]


def _count_odd(array: AnyArray) -> int:
    """Return how many values are NaN or infinite."""
    if array.dtype.kind not in "fc":
        return 0
    finite = np.isfinite(array)
    return 0 if finite.all() else int(finite.size - np.count_nonzero(finite))

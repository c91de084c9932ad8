"""Check a whole file, byte by byte, and say what is odd about the state in it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.formats import json_format
from quantum_memory.formats.binary_format import AMPLITUDES, norm_of, squared_norm
from quantum_memory.formats.qms_reader import QMSReader
from quantum_memory.formats.verbs import opened
from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.document import content_id, unflatten, well_formed
from quantum_memory.state.quantum_state import vector_problems

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from quantum_memory.state.arrays import AnyArray

_LOADED_FOR_PROBLEMS = 1 << 30


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found in a file that is whole.

    Attributes
    ----------
    problems
        What is odd about the data that were saved, and is kept exactly as it was: values that are not finite, a norm
        that is not 1. The file itself is good.
    """

    path: str
    format: str
    bytes: int
    content_id: str
    arrays: int
    chunks: int
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a plain dict."""
        return asdict(self)


def verify(path: str | os.PathLike[str], *, progress: Callable[[int], object] | None = None) -> VerifyReport:
    """Check every byte of a file against its checksum and its SHA-256, needing only a few MiB of memory.

    Parameters
    ----------
    path
        The file.
    progress
        Called with the raw bytes of each chunk that is done.

    Raises
    ------
    IntegrityError
        The file is damaged. It says where.
    UnsupportedVersionError, MissingFileError, StorageError, UnsafeError
    """
    kind, source = opened(path)
    with source:
        if kind == "qms":
            return _verify_qms(QMSReader(source), progress)
        memory = json_format.from_text(json_format.read_text(source), source.name)
    flat = memory.flatten()
    odd = Counter({path: _count_odd(array) for path, array in flat.arrays.items() if not path.startswith("quantum/")})
    problems = [*([] if memory.quantum is None else memory.quantum.problems()), *_not_finite(odd)]
    count = len(flat.arrays)
    return VerifyReport(source.name, kind, source.size, memory.content_id, count, count, problems)


def _verify_qms(reader: QMSReader, progress: Callable[[int], object] | None) -> VerifyReport:
    odd: Counter[str] = Counter()
    squares: list[float] = []
    lock = threading.Lock()

    def look(path: str, items: AnyArray) -> None:
        count = _count_odd(items)
        square = squared_norm(items) if path == AMPLITUDES else 0.0
        with lock:
            odd[path] += count
            squares.append(square)

    chunks = reader.check_everything(progress, look)
    with well_formed(reader.source.name):
        problems = _of_state(reader, odd, squares)
    if problems is not None:
        odd = Counter({path: count for path, count in odd.items() if not path.startswith("quantum/")})
    problems = [*(problems or []), *_not_finite(odd)]
    with well_formed(reader.source.name):
        name = content_id(reader.document, reader.identities())
    return VerifyReport(reader.source.name, "qms", reader.source.size, name, len(reader.entries), chunks, problems)


def _of_state(reader: QMSReader, odd: Counter[str], squares: list[float]) -> list[str] | None:
    """Say what is odd about the quantum state; None when it was not looked at as a whole."""
    if AMPLITUDES in reader.entries:
        entry = reader.entries[AMPLITUDES]
        norm = norm_of(squares)
        return vector_problems(odd[AMPLITUDES], norm, np.dtype(STORABLE[entry.dtype]), entry.shape[0])
    quantum = {path: entry for path, entry in reader.entries.items() if path.startswith("quantum/")}
    if not quantum or sum(entry.nbytes for entry in quantum.values()) > _LOADED_FOR_PROBLEMS:
        return None
    arrays = {path: reader.read(path) for path in quantum}
    state = unflatten(reader.document["quantum_data"], arrays)
    return list(state.problems())


def _count_odd(array: AnyArray) -> int:
    """Return how many values are NaN or infinite."""
    if array.dtype.kind not in "fc":
        return 0
    finite = np.isfinite(array)
    return 0 if finite.all() else int(finite.size - np.count_nonzero(finite))


def _not_finite(odd: Counter[str]) -> list[str]:
    return [f"{count} values of {path} are not finite" for path, count in odd.items() if count]

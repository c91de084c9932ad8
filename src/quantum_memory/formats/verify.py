"""Check a whole file, byte by byte, and say what is odd about the state in it."""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.formats import json_format
from quantum_memory.formats.binary_format import AMPLITUDES, norm_of, read_memory, squared_norm
from quantum_memory.formats.qms_reader import QMSReader
from quantum_memory.formats.verbs import opened
from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.document import content_id, well_formed
from quantum_memory.state.quantum_state import vector_problems

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.memory_state import MemoryState

_PUT_TOGETHER = 64 << 20
"""Raw bytes up to which a memory is not only checked but also put together, to see that its parts fit."""


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
    """Check every byte of a file against its checksum and its SHA-256, needing at most 64 MiB of memory.

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
    arrays = memory.flatten().arrays
    odd = Counter({path: _count_odd(array) for path, array in arrays.items()})
    problems = _problems(_of_memory(memory), odd)
    return VerifyReport(source.name, kind, source.size, memory.content_id, len(arrays), len(arrays), problems)


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
    problems = None
    if sum(entry.nbytes for entry in reader.entries.values()) <= _PUT_TOGETHER:
        problems = _of_memory(read_memory(reader))
    elif AMPLITUDES in reader.entries:
        entry = reader.entries[AMPLITUDES]
        dtype = np.dtype(STORABLE[entry.dtype])
        problems = vector_problems(odd[AMPLITUDES], norm_of(squares), dtype, math.prod(entry.shape))
    with well_formed(reader.source.name):
        name = content_id(reader.document, reader.identities())
    file = reader.source
    return VerifyReport(file.name, "qms", file.size, name, len(reader.entries), chunks, _problems(problems, odd))


def _of_memory(memory: MemoryState) -> list[str]:
    with np.errstate(all="ignore"):  # what overflows shows in what is said
        return [] if memory.quantum is None else memory.quantum.problems()


def _problems(of_state: list[str] | None, odd: Counter[str]) -> list[str]:
    """Return what is odd about the state, and which other arrays have values that are not finite."""
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

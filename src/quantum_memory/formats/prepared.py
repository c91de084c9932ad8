"""A memory that is ready to be written: taken apart, with its arrays as they are or in a form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from quantum_memory.compression.forms.base import EFFORTS
from quantum_memory.errors import InvalidStateError
from quantum_memory.formats.form_nodes import NO_FORMS, Forms
from quantum_memory.formats.form_reader import lossy_arrays, read_parts
from quantum_memory.formats.reader import PACKED, check_budget, nbytes_of, read_memory
from quantum_memory.formats.record import noted
from quantum_memory.formats.stored_amplitudes import left_array, left_there
from quantum_memory.state.document import content_id
from quantum_memory.state.json_text import check_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from quantum_memory.compression.forms.base import Effort
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import Progress
    from quantum_memory.formats.stored_amplitudes import Source
    from quantum_memory.state.arrays import AnyArray
    from quantum_memory.state.document import ArrayIdentity, QuantumState
    from quantum_memory.state.memory_state import MemoryState


SMALLEST = 2048
"""A state of fewer bytes is stored as it is: what is said of a form takes hundreds of bytes itself."""


@dataclass(frozen=True)
class Fidelity:
    """How faithful a save has to be.

    Attributes
    ----------
    infidelity
        The largest 1 - F; 0 for every bit.
    max_bytes
        How long the file may become; None: as long as it takes.
    effort
        How long to look for the smallest form.
    """

    infidelity: float = 0.0
    max_bytes: int | None = None
    effort: Effort = "fast"

    @classmethod
    def asked(cls, fidelity: Any, max_bytes: Any, effort: Any) -> Fidelity | None:
        """Return what a caller asks for; see `quantum_memory.save`. None stands for what is not said.

        Raises
        ------
        InvalidStateError
            It is nothing that can be asked for.
        """
        if fidelity is None and max_bytes is None and effort is None:
            return None
        if fidelity is not None and max_bytes is not None:
            raise InvalidStateError("fidelity and max_bytes exclude each other", next_step="leave one of them out")
        if fidelity is not None and (not isinstance(fidelity, Real) or not 0 < float(fidelity) <= 1):
            raise InvalidStateError(f"fidelity is {fidelity!r:.40}", next_step="give a number above 0 and up to 1")
        if max_bytes is not None and (not isinstance(max_bytes, Integral) or max_bytes < 0):
            raise InvalidStateError(f"max_bytes is {max_bytes!r:.40}", next_step="give a number of bytes")
        if effort is not None and (not isinstance(effort, str) or effort not in EFFORTS):
            raise InvalidStateError(f"effort is {effort!r:.40}", next_step=f"give one of {', '.join(EFFORTS)}")
        # The difference of a number between 1/2 and 1 from 1 is not rounded.
        return cls(
            1.0 - float(1 if fidelity is None else fidelity),
            None if max_bytes is None else int(max_bytes),
            effort or "fast",
        )


@dataclass(frozen=True)
class Prepared:
    """What every format writes.

    Attributes
    ----------
    document
        What the memory says of itself.
    arrays
        What is stored, by path: the arrays of the memory, and the parts of those that are in a form.
        Large ones of an old store are `state.arrays.Windows`, which only a store takes.
    record
        What the caller has noted beside the memory, without what is noted at every save.
    quantum
        The quantum state, of which more is noted; None where there is none, or its norm is in the record already.
    forms
        Which arrays are in a form.
    squares
        The squared norms of the chunks of the state vector, where it is in a form.
    """

    document: dict[str, Any]
    arrays: dict[str, AnyArray]
    record: Mapping[str, Any]
    quantum: QuantumState | None = None
    forms: Forms = NO_FORMS
    squares: list[float] | None = None

    @classmethod
    def plain(cls, memory: MemoryState) -> Prepared:
        """Take a memory apart, with every array as it is.

        Raises
        ------
        InvalidStateError
            It has a part that cannot be kept exactly, or its record is not JSON.
        """
        check_record(memory.record)
        document, arrays = memory.flatten()
        return cls(document, arrays, memory.record, memory.quantum)

    @classmethod
    def of_reader(
        cls,
        reader: Reader,
        max_bytes: int | None = None,
        progress: Progress | None = None,
        *,
        mapped: bool = True,
        source: Source | None = None,
    ) -> Prepared:
        """Take over what a reader reads, in its form where that is with loss; what is at an address stays there.

        Parameters
        ----------
        max_bytes
            See `read_memory`; what is mapped does not count.
        mapped
            Map what is stored as it is.
        source
            From where others read the state, which then stays there.
        """
        mapped = mapped and any(reader.is_mapped(path) for path in reader.entries)
        lossy = lossy_arrays(reader)
        if not lossy:
            leave = None if mapped and source is None else partial(left_there, source=source)
            return cls.plain(read_memory(reader, mmap=mapped, max_bytes=max_bytes, progress=progress, leave=leave))
        reader.check_rest()
        whole = [path for path in reader.entries if path not in lossy]
        check_budget(sum(reader.entries[path].nbytes for path in whole), max_bytes, reader.name)
        read = reader.map if mapped else reader.read
        arrays = {path: read(path, progress=progress) for path in whole}
        arrays |= read_parts(reader, lossy, partial(left_array, reader, source=source))
        return cls(reader.document, arrays, reader.record, None, Forms(lossy))

    @property
    def raw_bytes(self) -> int:
        """Bytes of the arrays of the memory, as plain binary numbers."""
        nodes = self.forms.nodes.values()
        parts = {part for node in nodes for part in node.parts.values()}
        plain = sum(array.nbytes for path, array in self.arrays.items() if path not in parts)
        return plain + sum(nbytes_of(node.identity.dtype, node.identity.shape) for node in nodes)

    @property
    def is_worth_packing(self) -> bool:
        """Whether a form could make it smaller."""
        return any(path in self.arrays and self.arrays[path].nbytes >= SMALLEST for path in PACKED)

    def parts(self, squares: Iterable[float] | None = None) -> dict[str, Any]:
        """Return what is written beside the arrays: ``document``, ``record``, and ``forms`` where there are any.

        Parameters
        ----------
        squares
            The squared norms of the chunks of the state vector, when they are known already.
        """
        parts = {
            "document": self.document,
            "record": noted(self.record, self.quantum, self.squares if squares is None else squares),
        }
        return parts | {"forms": self.forms.to_json()} if self.forms.nodes else parts

    def content_id(self, stored: Mapping[str, ArrayIdentity]) -> str:
        """Return the name of the content, from the identities of the arrays that are stored."""
        return content_id(self.document, self.forms.identities(stored))

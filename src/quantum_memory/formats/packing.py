"""How a memory is prepared for a save: which of its arrays are written in a form, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from quantum_memory.compression import representations
from quantum_memory.compression.forms.base import Packed
from quantum_memory.errors import InvalidStateError, StorageError
from quantum_memory.formats import prepared
from quantum_memory.formats.form_nodes import Checksums, FormNode, Forms, identity_of_parts
from quantum_memory.formats.reader import AMPLITUDES, PACKED
from quantum_memory.formats.record import squared_norm
from quantum_memory.state.arrays import chunk_count, dtype_name, is_elsewhere
from quantum_memory.state.document import ArrayIdentity, identify
from quantum_memory.state.windows import InMemory

if TYPE_CHECKING:
    from quantum_memory.compression.certificate import Certificate
    from quantum_memory.compression.representations import Look, Representation
    from quantum_memory.formats.prepared import Fidelity, Prepared
    from quantum_memory.formats.registry import Progress
    from quantum_memory.state.arrays import AnyArray, Windows

_COPIED = 32 << 20
"""A strided or big-endian state is copied for a form that nobody has asked for up to here, and one that is elsewhere is
read into memory for one that is asked for."""


@dataclass(frozen=True)
class _Made:
    """An array in a form; see `FormNode`."""

    packed: Packed
    certificate: Certificate | None
    checksum: bytes
    digest: bytes
    squares: list[float] | None
    tried: dict[str, int | None]


def packed(plain: Prepared, asked: Fidelity, progress: Progress | None = None, executor: Any = None) -> Prepared:
    """Return a memory with its quantum state in the smallest form that is as faithful as is asked for.

    What is in a form already stays in it. A state vector that is elsewhere, or that others pack, is quantised run by
    run: other forms need all of it at once.

    Parameters
    ----------
    progress
        Called with the raw bytes that packing has made disappear, so that they add up when the rest is written.
    executor
        Who packs a state vector, and will write its parts, which are `state.arrays.Windows` then.

    Raises
    ------
    InvalidStateError
        The state alone does not fit into `max_bytes`, or has no fidelity, being zero or not finite.
    """
    arrays, nodes, squares = dict(plain.arrays), dict(plain.forms.nodes), plain.squares
    for path in PACKED:
        array = plain.arrays.get(path)
        if array is None or (array.nbytes < prepared.SMALLEST and asked.max_bytes is None):
            continue
        found = _quantised(array, asked, executor) if _is_shared(path, array, asked, executor) else _made(array, asked)
        if found is None:
            continue
        if found.certificate is not None and _named(plain.document, path) > 1:
            raise InvalidStateError(
                "the array of the state is also in another part of the memory, where every bit is kept",
                next_step="give a copy of it there, or save without loss",
            )
        made: dict[str, Any] = found.packed.parts
        identity = ArrayIdentity(dtype_name(array.dtype) or "", array.shape, found.digest)
        parts = {name: f"{path}~{name}" for name in made}
        form, facts = found.packed.form, found.packed.facts
        nodes[path] = FormNode(form, identity, facts, parts, found.certificate, found.checksum, found.tried)
        squares = found.squares if path == AMPLITUDES else squares
        if progress is not None:
            progress(max(0, array.nbytes - sum(part.nbytes for part in made.values())))
        del arrays[path]
        arrays |= {parts[name]: part for name, part in made.items()}
    # Of a state that is unpacked a little differently on each machine no norm is noted: the original's is not its own.
    quantum = None if any(node.by_parts for node in nodes.values()) else plain.quantum
    return replace(plain, arrays=arrays, forms=Forms(nodes), squares=squares, quantum=quantum)


def state_bytes(memory: Prepared) -> int:
    """Return how many bytes the quantum state of a prepared memory takes, as `Packed.nbytes` counts them."""
    total = sum(memory.arrays[path].nbytes for path in PACKED if path in memory.arrays)
    for node in memory.forms.nodes.values():
        parts = {name: memory.arrays[part] for name, part in node.parts.items()}
        total += Packed(node.form, node.facts, parts).nbytes
    return total


def _named(document: Any, path: str) -> int:
    """Return how often a document names an array."""
    if isinstance(document, dict):
        return (document.get("$array") == path) + sum(_named(one, path) for one in document.values())
    return sum(_named(one, path) for one in document) if isinstance(document, list) else 0


def _is_shared(path: str, array: AnyArray | Windows, asked: Fidelity, executor: Any) -> bool:
    """Tell whether a state vector is packed run by run."""
    if path != AMPLITUDES or asked.max_bytes is not None:
        return False
    large = is_elsewhere(array) and array.nbytes > _COPIED and asked.effort == "fast" and asked.infidelity > 0
    return executor is not None or large


def _quantised(array: AnyArray | Windows, asked: Fidelity, executor: Any) -> _Made | None:
    """Return a state vector as numbers of few bits, made run by run; None where all bits are to be kept."""
    from quantum_memory.compression.forms.registry import ARRAY_TYPES  # noqa: PLC0415 - few states are elsewhere
    from quantum_memory.formats.shared_packing import quantised  # noqa: PLC0415

    if not asked.infidelity or array.dtype.newbyteorder("<") not in ARRAY_TYPES:
        return None
    source = InMemory(array) if isinstance(array, np.ndarray) else array
    found = quantised(source, asked.infidelity, executor)
    if found is None:
        return None
    tried: dict[str, int | None] = {found.packed.form: found.packed.nbytes}
    return _Made(found.packed, found.certificate, found.checksum, found.digest, found.squares, tried)


def _made(array: AnyArray | Windows, asked: Fidelity) -> _Made | None:
    """Return an array in the smallest form that is found, with all of it in memory; None: it stays as it is."""
    if is_elsewhere(array):
        if asked == prepared.Fidelity():
            return None  # nobody has asked, and it is not in memory
        array = cast("Windows", array).items(0, array.shape[0])
    array = cast("AnyArray", array)
    little = array.dtype.newbyteorder("<")
    copied = not array.flags.c_contiguous or array.dtype != little
    if copied and array.nbytes > _COPIED and asked == prepared.Fidelity():
        return None  # nobody has asked, and a copy of it would take too much memory
    seen = _Seen(array.nbytes)
    found = _represented(np.ascontiguousarray(array, little), asked, seen.look)
    if found.packed is None:
        return None
    if found.exact:
        sums = seen.checksums
        return _Made(found.packed, found.certificate, sums.checksum, sums.digest or b"", seen.squares, found.tried)
    digest = identity_of_parts(found.packed.form, found.packed.facts, identify(found.packed.parts))
    return _Made(found.packed, found.certificate, b"", digest, None, found.tried)


class _Seen:
    """What is noted of an array as it will be loaded: whatever becomes of the one that was given to be saved."""

    def __init__(self, nbytes: int) -> None:
        self.checksums = Checksums(nbytes, digests=True)
        self.squares = [0.0] * chunk_count(nbytes)

    def look(self, index: int, items: AnyArray) -> None:
        self.checksums.look(index, items)
        self.squares[index] = squared_norm(items)


def _represented(array: AnyArray, asked: Fidelity, look: Look) -> Representation:
    try:
        return _searched(array, asked, look)
    except np.linalg.LinAlgError as error:
        raise InvalidStateError(
            f"the state cannot be packed: {error}",
            next_step="see whether it is finite, and is not being changed",
        ) from error
    except StorageError:
        if asked != prepared.Fidelity():
            raise
        return representations.Representation()  # as it is, which needs no room for temporary files


def _searched(array: AnyArray, asked: Fidelity, look: Look) -> Representation:
    if asked.max_bytes is not None:
        found = representations.fitting(array, max(0, asked.max_bytes), asked.effort, look)
        if found is None:
            raise InvalidStateError(
                f"a state of {array.nbytes} bytes does not fit, however much is lost", next_step="allow more bytes"
            )
        return found
    if asked.infidelity:
        return representations.faithful(array, asked.infidelity, asked.effort, look)
    return representations.lossless(array, asked.effort, look)

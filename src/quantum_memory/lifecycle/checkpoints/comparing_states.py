"""How far apart two quantum states are, as far as memory and time allow; what is left out is said, with the reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.errors import QuantumMemoryError
from quantum_memory.lifecycle.checkpoints.comparing_arrays import same_chunk
from quantum_memory.state import metrics, tensor_chain
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE
from quantum_memory.state.document import array_paths, unflatten, well_formed
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.sites import double
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from quantum_memory.formats.reader import Reader
    from quantum_memory.state.document import Json
    from quantum_memory.state.metrics import QuantumState as Measurable

    Bloch = tuple[tuple[float, float, float] | None, ...]
    Entropies = tuple[float | None, ...]

_LARGEST_MATRIX = 1 << 11
"""Dimension up to which measures of density matrices are computed, which takes seconds."""

_LONGEST_VECTOR = 1 << 24
"""Amplitudes up to which the reduced state of every qubit is computed, which takes seconds as well."""

_LARGEST_TABLEAU = 128
"""Qubits of a stabiliser state up to which its reduced states and entropies are computed, each in n^3 steps."""

_LONGEST_CUT = 1 << 20
_WORK = 1 << 27
"""Amplitudes up to which entropies of a state vector are computed, and the multiplications that its cuts may take,
which is what those of 17 qubits take."""

_DISTANCES = ("fidelity", "trace_distance", "bures_distance", "bures_angle")
_ALL = ("fidelity", "norms", "bloch", "entropies")


class _LeftOutError(QuantumMemoryError):
    """Says why something is not computed."""


@dataclass(frozen=True)
class StateDifference:
    """Two quantum states that have one name. Measures are those of the normalised states, see `state.metrics`.

    Attributes
    ----------
    name
        Where they stand in the memory.
    kinds
        What each is, in words.
    same
        They agree in every bit. Then nothing is read: they have fidelity 1 by being the same.
    fidelity, trace_distance, bures_distance, bures_angle
        How far apart they are; the angle in radians. None where they cannot be had.
    norms
        Norm of each state vector and matrix product state, trace of each density matrix.
    bloch
        The Bloch vectors ``(<X>, <Y>, <Z>)`` of each state by site, from the reduced states of one qubit; None for a
        site that is no qubit, and for both where they were not computed.
    entropies
        The entanglement entropies of each state, in bits, across the cuts 1 to n - 1; None for a cut that takes too
        long.
    left_out
        What is not there, of "fidelity", "norms", "bloch" and "entropies", and why.
    """

    name: str
    kinds: tuple[str, str]
    same: bool = False
    fidelity: float | None = None
    trace_distance: float | None = None
    bures_distance: float | None = None
    bures_angle: float | None = None
    norms: tuple[float | None, float | None] = (None, None)
    bloch: tuple[Bloch | None, Bloch | None] = (None, None)
    entropies: tuple[Entropies | None, Entropies | None] = (None, None)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def bloch_change(self) -> Bloch | None:
        """The Bloch vectors of the second less those of the first, by site."""
        first, second = self.bloch
        if first is None or second is None or len(first) != len(second):
            return None
        return tuple(
            None if a is None or b is None else (b[0] - a[0], b[1] - a[1], b[2] - a[2])
            for a, b in zip(first, second, strict=True)
        )

    @property
    def entropy_change(self) -> Entropies | None:
        """The entropies of the second less those of the first, by cut."""
        first, second = self.entropies
        if first is None or second is None or len(first) != len(second):
            return None
        return tuple(None if a is None or b is None else b - a for a, b in zip(first, second, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict, with the changes."""
        return {**vars(self), "bloch_change": self.bloch_change, "entropy_change": self.entropy_change}


def between(
    name: str, first: tuple[Reader, Json], second: tuple[Reader, Json], *, max_bytes: int = 1 << 30
) -> StateDifference:
    """Compare two states, each a reader and the node of its document that the state is.

    Parameters
    ----------
    max_bytes
        What both may take in memory. State vectors that take more are read twice, window by window, for the distances.
    """
    kinds = _kind(first[1]), _kind(second[1])
    same = _identity(*first) == _identity(*second)
    if "operator" in {first[1]["$state"]["kind"], second[1]["$state"]["kind"]}:
        return StateDifference(name, kinds, same, left_out=dict.fromkeys(_ALL, "an operator is no state"))
    if same:
        why = "the two agree in every bit, and were not read"
        return StateDifference(name, kinds, True, 1.0, 0.0, 0.0, 0.0, left_out=dict.fromkeys(_ALL[1:], why))
    needed = _nbytes(*first) + _nbytes(*second)
    if needed <= max_bytes:
        return StateDifference(name, kinds, **_measures(_loaded(*first), _loaded(*second)))
    why = f"the two take {needed} bytes of memory, and {max_bytes} are allowed"
    left_out = dict.fromkeys(_ALL, why)
    if _same_basis(first[1]["$state"], second[1]["$state"]):
        found, failed = _attempt("fidelity", lambda: _of_windows(first, second))
        found = found or {}
        for one in ("fidelity", "norms"):
            del left_out[one]
        return StateDifference(name, kinds, **found, left_out={**left_out, **failed})
    return StateDifference(name, kinds, left_out=left_out)


def _kind(node: Json) -> str:
    body = node["$state"]
    sites = body["sites"] if body["kind"] == "matrix_product_state" else body["dims"]
    return f"{str(body['kind']).replace('_', ' ')} of {len(sites)} sites"


def _identity(reader: Reader, node: Json) -> Json:
    """Return a node with what identifies each array in the place of its path."""
    if isinstance(node, list):
        return [_identity(reader, item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$array" in node:
        return {**node, "$array": reader.entries[node["$array"]].identity}
    return {key: _identity(reader, item) for key, item in node.items()}


def _nbytes(reader: Reader, node: Json) -> int:
    return sum(reader.entries[path].nbytes for path in array_paths(node))


def _loaded(reader: Reader, node: Json) -> Measurable:
    arrays = {path: reader.read(path) for path in array_paths(node)}
    with well_formed(reader.name):
        state: Measurable = unflatten(node, arrays)
        return state


def _attempt(what: str, work: Callable[[], Any]) -> tuple[Any, dict[str, str]]:
    """Return what work gives, or None and why it gives nothing."""
    try:
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return work(), {}
    except (QuantumMemoryError, np.linalg.LinAlgError, MemoryError) as error:
        return None, {what: str(getattr(error, "message", error))}


# --- states in memory


def _measures(a: Measurable, b: Measurable) -> dict[str, Any]:
    found, left_out = _attempt("fidelity", lambda: _distances(a, b))
    measured: dict[str, Any] = found or {}
    measured["norms"] = tuple(_size(one) for one in (a, b))
    for what, work in (("bloch", _bloch), ("entropies", _entropies)):
        made = []
        for one in (a, b):
            result, failed = _attempt(what, lambda one=one, work=work: work(one))  # type: ignore[misc]
            values, why = result or (None, None)
            made.append(values)
            left_out |= failed or ({what: why} if why else {})
        measured[what] = tuple(made)
    return {**measured, "left_out": left_out}


def _distances(a: Measurable, b: Measurable) -> dict[str, float]:
    dimension = math.prod(a.dims)
    if (isinstance(a, DensityMatrix) or isinstance(b, DensityMatrix)) and dimension > _LARGEST_MATRIX:
        raise _LeftOutError(f"of matrices of dimension {dimension} they take too long: {_LARGEST_MATRIX} is the limit")
    return {name: getattr(metrics, name)(a, b) for name in _DISTANCES}


def _size(state: Measurable) -> float | None:
    try:
        return float(state.trace().real) if isinstance(state, DensityMatrix) else state.norm()
    except (QuantumMemoryError, OverflowError, ValueError):
        return None


def _bloch(state: Measurable) -> tuple[Bloch, str | None]:
    """Return the Bloch vector of each site, and why some are not there."""
    if isinstance(state, StateVector) and math.prod(state.dims) > _LONGEST_VECTOR:
        raise _LeftOutError(f"of {math.prod(state.dims)} amplitudes they take too long: {_LONGEST_VECTOR} is the limit")
    _check_tableau(state)
    if isinstance(state, MatrixProductState):
        reduced = _reduced_of_chain(state)
    else:
        reduced = (
            state.reduced_density_matrix(site, dtype=np.complex128).matrix if dim == 2 else None
            for site, dim in enumerate(state.dims)
        )
    vectors = tuple(None if one is None else _bloch_vector(one) for one in reduced)
    others = [site for site, dim in enumerate(state.dims) if dim != 2]
    if not others:
        return vectors, None
    return vectors, f"{len(others)} of {len(state.dims)} sites are no qubits, the first of them site {others[0]}"


def _check_tableau(state: Measurable) -> None:
    if isinstance(state, StabilizerState) and state.n_sites > _LARGEST_TABLEAU:
        raise _LeftOutError(
            f"of a tableau of {state.n_sites} qubits they take too long: {_LARGEST_TABLEAU} is the limit"
        )


def _bloch_vector(rho: NDArray[Any]) -> tuple[float, float, float]:
    trace = rho.trace().real
    if not (np.isfinite(rho).all() and trace > 0):
        raise _LeftOutError(f"a reduced state has the trace {trace}")
    x, y, z = 2 * rho[1, 0].real, 2 * rho[1, 0].imag, (rho[0, 0] - rho[1, 1]).real
    return float(x / trace), float(y / trace), float(z / trace)


def _reduced_of_chain(state: MatrixProductState) -> Iterator[NDArray[Any] | None]:
    """Yield the reduced state of each site, in one sweep."""
    tensors = [tensor.astype(double(tensor.dtype)) for tensor in state.tensors]
    tensor_chain.refuse_non_finite(tensors)
    tensor_chain.normalize(tensors, 0)  # so that what is to the right of a site gives 1
    left: NDArray[Any] = np.eye(1)  # bonds of ket and bra
    for tensor in tensors:
        ket = np.tensordot(left, tensor, ((0,), (0,)))  # bond of bra, digit, bond of ket
        if tensor.shape[1] == 2:
            yield np.tensordot(ket, tensor.conj(), ((0, 2), (0, 2)))
        else:
            yield None
        left = np.tensordot(ket, tensor.conj(), ((0, 1), (0, 1)))


def _entropies(state: Measurable) -> tuple[Entropies, str | None]:
    """Return the entropy of each cut, and why some are not there."""
    if isinstance(state, MatrixProductState):
        return tuple(map(float, state.entropies())), None
    if isinstance(state, DensityMatrix):
        raise _LeftOutError("a mixed state has no entanglement entropy across a cut")
    if isinstance(state, StabilizerState):
        _check_tableau(state)
        return tuple(state.entropy(cut) for cut in range(1, state.n_sites)), None
    n, size = state.n_sites, math.prod(state.dims)
    if size > _LONGEST_CUT:
        raise _LeftOutError(f"of {size} amplitudes they take too long: {_LONGEST_CUT} is the limit")
    sides = {cut: math.prod(state.dims[:cut]) for cut in range(1, n)}
    work = {cut: size * min(side, size // side) for cut, side in sides.items()}
    values: list[float | None] = [None] * (n - 1)
    left = _WORK
    for cut in sorted(work, key=work.__getitem__):  # the cheap ones first, near the ends
        left -= work[cut]
        if left < 0:
            break
        values[cut - 1] = state.entropy(cut)
    missing = values.count(None)
    return tuple(values), f"{missing} of {n - 1} cuts take too long" if missing else None


# --- states that are too large for that


def _same_basis(a: Json, b: Json) -> bool:
    """Tell whether two nodes are state vectors whose amplitudes of one index belong to one basis state."""
    labels = a.get("labels"), b.get("labels")
    return (
        a["kind"] == b["kind"] == "state_vector"
        and (a["dims"], a["qubit_order"]) == (b["dims"], b["qubit_order"])
        and (None in labels or labels[0] == labels[1])
    )


def _windows(first: tuple[Reader, Json], second: tuple[Reader, Json]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the same amplitudes of two state vectors in double precision; a chunk that both have is read once."""
    readers = first[0], second[0]
    paths = [node["$state"]["amplitudes"]["$array"] for _, node in (first, second)]
    entries = [reader.entries[path] for reader, path in zip(readers, paths, strict=True)]
    dtypes = [np.dtype(STORABLE[entry.dtype]) for entry in entries]
    window = CHUNK_BYTES // max(dtype.itemsize for dtype in dtypes)
    size = entries[0].nbytes // dtypes[0].itemsize
    for index, start in enumerate(range(0, size, window)):
        stop = min(start + window, size)
        left = readers[0].read_items(paths[0], start, stop)
        shared = dtypes[0] == dtypes[1] and same_chunk(entries[0], entries[1], index)
        right = left if shared else readers[1].read_items(paths[1], start, stop)
        yield left.astype(double(dtypes[0]), copy=False), right.astype(double(dtypes[1]), copy=False)


def _of_windows(first: tuple[Reader, Json], second: tuple[Reader, Json]) -> dict[str, Any]:
    """Return distances and norms, as `metrics` computes them: the sine as the length of what is orthogonal."""
    inner, aa, bb = 0j, 0.0, 0.0
    for left, right in _windows(first, second):
        inner += complex(np.vdot(left, right))
        aa += float(np.vdot(left, left).real)
        bb += float(np.vdot(right, right).real)
    norms = math.sqrt(aa), math.sqrt(bb)
    if not (all(map(math.isfinite, norms)) and all(norms)):
        raise _LeftOutError(f"the norms are {norms[0]} and {norms[1]}")
    cosine = inner / (norms[0] * norms[1])
    squares = 0.0
    for left, right in _windows(first, second):
        orthogonal = right / norms[1] - left * (cosine / norms[0])
        squares += float(np.vdot(orthogonal, orthogonal).real)
    root, sine = min(1.0, abs(cosine)), min(1.0, math.sqrt(squares))
    return {
        "fidelity": root**2,
        "trace_distance": sine,
        "bures_distance": sine * math.sqrt(2 / (1 + root)),
        "bures_angle": math.atan2(sine, root),
        "norms": norms,
    }

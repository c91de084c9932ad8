"""Hypothesis strategies for everything that a memory may hold, down to the last bit pattern.

Values are made from random bytes and not from random numbers: NaN payloads, subnormals, negative zeros and states that
no physicist would accept are what storage must keep, too.

>>> from hypothesis import given
>>> from quantum_memory.testing.strategies import memory_states
>>> @given(memory_states())
... def test_my_format(memory): ...
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from hypothesis import strategies as st
except ImportError as error:  # it is not needed to run the package
    raise ImportError("quantum_memory.testing.strategies needs Hypothesis: pip install hypothesis") from error

from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.dtypes import SMALL_FLOATS
from quantum_memory.state.emotional_state import Emotion, EmotionalContext, Trajectory
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.memory_state import MemoryState
from quantum_memory.state.operator import Operator
from quantum_memory.state.pad import PAD, PADScale
from quantum_memory.state.quantum_state import DensityMatrix, StateVector
from quantum_memory.state.stabilizer_state import StabilizerState

if TYPE_CHECKING:
    from quantum_memory.state.document import QuantumState

NUMBERS = ("f2", "f4", "f8", "c8", "c16")
"""Dtypes that a quantum state may have."""

OTHERS = (
    "S5", "U3", "V7", "M8[ns]", "M8[D]", "m8[s]", [("x", "<f4"), ("y", "<i8", (2,)), ("name", "S3")],
    [("nested", [("a", "<c8"), ("b", "?")]), ("when", "M8[us]")],
)  # fmt: skip
"""Dtypes that are stored as bytes, with a description."""

_MOST_BYTES = 64  # of one array: short ones fail as well as long ones, and shrink sooner


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """NumPy dtypes of every kind that is kept, in both byte orders."""
    described: list[Any] = [*STORABLE.values(), *OTHERS]
    plain = st.sampled_from([np.dtype(one) for one in described])
    return st.one_of(plain, plain.map(lambda dtype: dtype.newbyteorder(">")))


@st.composite
def arrays(
    draw: st.DrawFn, dtype: st.SearchStrategy[Any] | None = None, shape: tuple[int, ...] | None = None
) -> np.ndarray[Any, Any]:
    """NumPy arrays of any bits and layout: C or Fortran order, strided, reversed, read-only, of 0 to 4 axes, empty."""
    kind: np.dtype[Any] = np.dtype(draw(dtypes() if dtype is None else dtype))
    lengths = draw(st.lists(st.integers(0, 4), max_size=4).map(tuple)) if shape is None else shape
    array = _filled(draw, kind, lengths)
    layout = draw(st.sampled_from(["C", "F", "strided", "reversed", "read-only"]))
    if layout == "F":
        array = np.asfortranarray(array).reshape(lengths, order="A")
    elif layout == "strided" and lengths:
        spread = np.zeros((*lengths[:-1], 2 * lengths[-1]), kind)
        spread[..., ::2] = array
        array = spread[..., ::2]
    elif layout == "reversed" and lengths:
        array = array[::-1]
    elif layout == "read-only":
        array.flags.writeable = False
    return array


@st.composite
def scalars(draw: st.DrawFn) -> np.generic:
    """NumPy scalars of every kind that is kept."""
    code = draw(st.sampled_from([*STORABLE.values(), "M8[ns]", "m8[D]", OTHERS[-1]]))
    array: Any = draw(arrays(st.just(code), ()))
    scalar: np.generic = array[()]
    return scalar


@st.composite
def small_float_arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Arrays of bfloat16 and the 8-bit floats; needs the package ``ml_dtypes``."""
    import ml_dtypes  # noqa: PLC0415 - for this strategy only

    name = draw(st.sampled_from(sorted(SMALL_FLOATS)))
    bits = draw(arrays(st.just(SMALL_FLOATS[name])))
    return np.ascontiguousarray(bits).reshape(bits.shape).view(getattr(ml_dtypes, name))


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    """Tensors of torch of every type that is kept, views and parameters among them; needs torch."""
    import torch  # noqa: PLC0415 - for this strategy only

    codes = ["?", "u1", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8", "<c8", "<c16"]
    array = np.array(draw(arrays(st.sampled_from(codes))), order="C")
    tensor = torch.from_numpy(array)
    if array.dtype == np.int16:
        tensor = tensor.view(torch.bfloat16)
    elif array.dtype == np.uint8:
        tensor = tensor.view(draw(st.sampled_from([torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2])))
    if tensor.ndim > 1 and draw(st.booleans()):
        tensor = tensor.transpose(0, 1)
    if tensor.is_complex() and draw(st.booleans()):
        tensor = tensor.conj()
    if tensor.dtype in {torch.float32, torch.float64, torch.complex128} and draw(st.booleans()):
        return torch.nn.Parameter(tensor, requires_grad=draw(st.booleans()))
    return tensor


@st.composite
def state_vectors(draw: st.DrawFn, max_qubits: int = 5) -> StateVector:
    """State vectors of qubits and qudits, of any bits: most are not normalised, many not finite."""
    dims = draw(_dims(max_qubits))
    amplitudes = draw(arrays(_numbers(), (math.prod(dims),)))
    order: Any = draw(st.sampled_from(["little", "big", "unstated"]))
    return StateVector(amplitudes, qubit_order=order, dims=dims, labels=draw(_labels(len(dims))))


@st.composite
def density_matrices(draw: st.DrawFn, max_qubits: int = 3) -> DensityMatrix:
    """Density matrices of any bits."""
    dims = draw(_dims(max_qubits))
    matrix = draw(arrays(_numbers(), (math.prod(dims),) * 2))
    order: Any = draw(st.sampled_from(["little", "big", "unstated"]))
    return DensityMatrix(matrix, qubit_order=order, dims=dims, labels=draw(_labels(len(dims))))


@st.composite
def matrix_product_states(draw: st.DrawFn, max_sites: int = 5) -> MatrixProductState:
    """Matrix product states of any bits, with any claims about their form."""
    sites = draw(st.integers(1, max_sites))
    bonds = [1, *(draw(st.integers(1, 3)) for _ in range(sites - 1)), 1]
    dtype = draw(_numbers())
    form: Any = draw(st.sampled_from([None, "left", "right", "mixed"]))
    return MatrixProductState(
        [draw(arrays(st.just(dtype), (bonds[k], draw(st.integers(1, 3)), bonds[k + 1]))) for k in range(sites)],
        labels=draw(_labels(sites)),
        canonical_form=form,
        orthogonality_center=draw(st.integers(0, sites - 1)) if form == "mixed" else None,
        log_scale=draw(st.floats(allow_nan=False, allow_infinity=False)),
    )


@st.composite
def operators(draw: st.DrawFn, max_qubits: int = 3) -> Operator:
    """Operators of any bits."""
    like = draw(density_matrices(max_qubits))
    return Operator(like.matrix, qubit_order=like.qubit_order, dims=like.dims, labels=like.labels)


@st.composite
def stabilizer_states(draw: st.DrawFn, max_qubits: int = 5) -> StabilizerState:
    """Stabiliser states of any bits: most are no tableaus."""
    qubits = draw(st.integers(1, max_qubits))
    table = draw(arrays(st.just(np.dtype(bool)), (2 * qubits, 2 * qubits + 1)))
    return StabilizerState(table, labels=draw(_labels(qubits)))


def quantum_states() -> st.SearchStrategy[QuantumState]:
    """States of every kind, and operators: what the quantum part of a memory may be."""
    return st.one_of(state_vectors(), density_matrices(), matrix_product_states(), stabilizer_states(), operators())


def plain_values() -> st.SearchStrategy[Any]:
    """Values of Python's own types: integers of any size, NaN, text with lone surrogates, long bytes."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(1 << 200), 1 << 200),
        st.floats(),
        st.complex_numbers(),
        st.text(st.characters(exclude_categories=()), max_size=20),
        st.binary(max_size=40),
        st.sampled_from([b"long" * 2000, "$array", float.fromhex("0x1p-1074")]),
    )


def keys() -> st.SearchStrategy[Any]:
    """Keys that a dictionary may have."""
    plain = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.binary(max_size=4), _names()
    )
    return st.one_of(plain, st.tuples(plain, plain))


def trees(leaves: st.SearchStrategy[Any] | None = None, max_leaves: int = 15) -> st.SearchStrategy[Any]:
    """Nested lists, tuples and dictionaries of everything that a memory keeps.

    Parameters
    ----------
    leaves
        What is at their ends; by default plain values, arrays, NumPy scalars and quantum states.
    max_leaves
        How many, at most.
    """
    ends = st.one_of(plain_values(), arrays(), scalars(), quantum_states()) if leaves is None else leaves
    return st.recursive(
        ends,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(_names(), inner, max_size=4),
            st.dictionaries(keys(), inner, max_size=3),
            st.lists(st.tuples(keys(), inner), max_size=3).map(OrderedDict),
        ),
        max_leaves=max_leaves,
    )


@st.composite
def emotional_contexts(draw: st.DrawFn) -> EmotionalContext:
    """Emotional contexts on every scale."""
    scale = draw(st.sampled_from(PADScale))
    point, unit = st.tuples(*(st.floats(low, high) for low, high in scale.bounds)), st.floats(0, 1)
    rows = draw(st.none() | st.lists(point, max_size=4))
    emotion = st.builds(Emotion, point, st.none() | st.text(max_size=9), st.none() | unit)
    return EmotionalContext(
        pad=draw(st.none() | st.builds(PAD, *[st.floats(-1, 1)] * 3)),
        scale=scale,
        recent_emotions=tuple(draw(st.lists(emotion, max_size=3))),
        stability=draw(st.none() | unit),
        confidence=draw(st.none() | unit),
        trajectory=None if rows is None else Trajectory(np.array(rows).reshape(-1, 3), np.arange(len(rows))),
        extra=draw(st.dictionaries(st.text(max_size=5), plain_values(), max_size=2)),
    )


@st.composite
def memory_states(draw: st.DrawFn, leaves: st.SearchStrategy[Any] | None = None) -> MemoryState:
    """Whole memories; `leaves` as for `trees`."""
    return MemoryState(
        quantum=draw(st.none() | quantum_states()),
        classical=draw(st.none() | trees(leaves)),
        emotion=draw(st.none() | emotional_contexts()),
        metadata=draw(st.dictionaries(_names(), plain_values(), max_size=3)),
        record=draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(0, 9), max_size=2)),
    )


def _filled(draw: st.DrawFn, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return an array whose bytes repeat a drawn pattern, as far as its dtype allows every pattern."""
    nbytes = math.prod(shape) * dtype.itemsize
    pattern = draw(st.binary(min_size=1, max_size=_MOST_BYTES))
    raw = np.frombuffer((pattern * (nbytes // len(pattern) + 1))[:nbytes], np.uint8).copy()
    if dtype.kind == "b":
        raw &= 1
    if dtype.kind == "U":
        codes = raw.view("<u4")
        codes %= 0x110000
        raw = codes.astype(">u4" if dtype.byteorder == ">" else "<u4").view(np.uint8)
    if dtype.fields is not None:  # a truth value among the fields must be 0 or 1
        raw &= 1
    return np.frombuffer(raw, dtype).reshape(shape) if dtype.itemsize else np.ndarray(shape, dtype)


def _numbers() -> st.SearchStrategy[np.dtype[Any]]:
    return st.tuples(st.sampled_from("<>"), st.sampled_from(NUMBERS)).map(lambda pair: np.dtype(pair[0] + pair[1]))


def _dims(most: int) -> st.SearchStrategy[tuple[int, ...]]:
    qubits = st.integers(1, most).map(lambda n: (2,) * n)
    return st.one_of(qubits, st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple))


def _labels(count: int) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.none() | st.lists(st.text(max_size=5), min_size=count, max_size=count, unique=True).map(tuple)


def _names() -> st.SearchStrategy[str]:
    return st.one_of(st.text(max_size=8), st.sampled_from(["a/b", "~1", "$state", "", "../x", "\u202ebidi", "\ud800"]))

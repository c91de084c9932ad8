"""Geodesics: straight in PAD space, through cat states in the space of states."""

import numpy as np
import pytest

from quantum_memory.encoding.entangler import Entangler
from quantum_memory.encoding.pad_encoding import PADEncoding
from quantum_memory.encoding.trajectory import fubini_study, pad_geodesic
from quantum_memory.errors import InvalidStateError
from quantum_memory.state.emotional_state import PAD
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import StateVector

A, B = PAD(0.8, -0.4, 0.7), PAD(-0.5, 0.8, -0.3)
CODE = PADEncoding(9)


def angle(x, y):
    overlap = x.inner(y) if isinstance(x, MatrixProductState) else np.vdot(x.amplitudes, y.amplitudes)
    return np.arccos(min(1.0, abs(overlap)))


def test_the_pad_geodesic_is_straight_and_keeps_its_ends():
    path = pad_geodesic(A, B, 5)
    assert (path[0], path[-1]) == (A, B)
    np.testing.assert_allclose(np.asarray(path[2]), [0.15, 0.2, 0.2], atol=1e-15)
    assert [path[k].distance(path[k + 1]) for k in range(4)] == pytest.approx([A.distance(B) / 4] * 4)
    assert pad_geodesic(PAD(1, -1, 1), PAD(1, -1, 1), 7) == [PAD(1, -1, 1)] * 7


@pytest.mark.parametrize("kind", ["mps", "dense"])
def test_the_fubini_study_geodesic_has_equal_angles_and_unit_norm(kind):
    ends = [CODE.encode(point, dtype="complex128") for point in (A, B)]
    a, b = ends if kind == "mps" else [end.to_dense(qubit_order="little") for end in ends]
    path = fubini_study(a, b, 6)
    total = angle(a, b)
    assert [state.norm() for state in path] == pytest.approx([1] * 6, abs=1e-12)
    assert [angle(path[k], path[k + 1]) for k in range(5)] == pytest.approx([total / 5] * 5, abs=1e-7)
    assert (angle(path[0], a), angle(path[-1], b)) == pytest.approx((0, 0), abs=1e-7)
    assert {state.dtype for state in path} == {np.dtype(np.complex128)}


def test_both_kinds_of_state_agree():
    a, b = CODE.encode(A), CODE.encode(B)
    for mps, dense in zip(
        fubini_study(a, b, 4),
        fubini_study(a.to_dense(qubit_order="big"), b.to_dense(qubit_order="big"), 4),
        strict=True,
    ):
        np.testing.assert_allclose(mps.to_dense(qubit_order="big").amplitudes, dense.amplitudes, atol=1e-13)


def test_midway_it_is_a_cat_state_that_decodes_to_another_mean():
    middle = fubini_study(CODE.encode(A), CODE.encode(B), 3)[1]
    np.testing.assert_allclose(np.asarray(CODE.decode(middle).pad), [0.08, 0.12, 0.14], atol=0.005)
    assert middle.entropy(3) == pytest.approx(0.97, abs=0.005)
    assert CODE.encode(pad_geodesic(A, B, 3)[1]).entropy(3) == pytest.approx(0, abs=1e-12)


def test_a_global_phase_changes_nothing():
    a = CODE.encode(A, dtype="complex128").to_dense(qubit_order="big")
    b = CODE.encode(B, dtype="complex128").to_dense(qubit_order="big")
    turned = StateVector(b.amplitudes * np.exp(2.1j), qubit_order="big")
    for plain, other in zip(fubini_study(a, b, 5), fubini_study(a, turned, 5), strict=True):
        np.testing.assert_allclose(plain.amplitudes, other.amplitudes, atol=1e-14)
    minus = StateVector(-a.amplitudes.real, qubit_order="big")
    plus = StateVector(a.amplitudes.real, qubit_order="big")
    for state in fubini_study(plus, minus, 3):
        np.testing.assert_allclose(state.amplitudes, plus.amplitudes, atol=1e-15)


def test_from_a_state_to_itself_and_to_an_orthogonal_one():
    chain = PADEncoding(27, entangler=Entangler.cnot_chain(27))
    here, there = chain.encode((1, 0, 0)), chain.encode((-1, 0, 0))
    for state in fubini_study(here, here, 4):
        assert state.inner(here) == pytest.approx(1, abs=1e-12)
    middle = fubini_study(here, there, 3)[1]
    assert [abs(middle.inner(end)) ** 2 for end in (here, there)] == pytest.approx([0.5, 0.5])


def test_single_precision_and_real_states_keep_their_dtype():
    for dtype in ("float32", "complex64"):
        ends = [CODE.encode(point, dtype=dtype) for point in (A, B)]
        assert {state.dtype for state in fubini_study(*ends, 3)} == {np.dtype(dtype)}
        dense = [end.to_dense(qubit_order="big") for end in ends]
        assert {state.dtype for state in fubini_study(*dense, 3)} == {np.dtype(dtype)}


def test_what_has_no_path_is_refused():
    a = CODE.encode(A)
    dense = a.to_dense(qubit_order="big")
    with pytest.raises(InvalidStateError, match="two ends"):
        pad_geodesic(A, B, 1)
    with pytest.raises(InvalidStateError, match="one kind"):
        fubini_study(a, dense, 3)
    with pytest.raises(InvalidStateError, match="differ in qubit order"):
        fubini_study(dense, a.to_dense(qubit_order="little"), 3)
    with pytest.raises(InvalidStateError, match="differ in dims or dtype"):
        fubini_study(a, CODE.encode(B, dtype="float32"), 3)
    with pytest.raises(InvalidStateError, match="norm 2"):
        fubini_study(dense, StateVector(2 * dense.amplitudes, qubit_order="big"), 3)

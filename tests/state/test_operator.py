"""Operators keep their matrix and the order of their qubits, which counts where they meet a state."""

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import InvalidStateError

X, Z = np.array([[0, 1], [1, 0]]), np.diag([1, -1])


def test_properties():
    swap_like = qm.Operator(np.kron(X, Z) * 1j, qubit_order="big")
    assert swap_like.is_unitary()
    assert not swap_like.is_hermitian()
    assert qm.Operator(np.kron(X, Z).astype(float), qubit_order="big").is_hermitian()
    assert not qm.Operator(np.diag([1.0, 2.0]), qubit_order="big").is_unitary()
    assert list(qm.Operator(np.diag([2.0, -1.0]), qubit_order="big").eigenvalues()) == [-1, 2]
    assert qm.Operator(np.diag([5.0, 2.0]), qubit_order="big").problems() == []  # an operator may be anything finite
    assert qm.Operator(np.diag([np.nan, 2.0]), qubit_order="big").problems() == ["1 of 4 entries are not finite"]


def test_large_unitaries_are_looked_at_in_blocks():
    found, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(1024, 1024)))
    assert qm.Operator(found, qubit_order="big").is_unitary()
    found[1000, 3] += 1e-3
    assert not qm.Operator(found, qubit_order="big").is_unitary()


@pytest.mark.parametrize("matrix", [np.zeros((2, 4)), np.zeros(4), np.zeros((2, 2), int)])
def test_what_is_no_operator_is_refused(matrix):
    with pytest.raises(InvalidStateError, match="operator"):
        qm.Operator(matrix, qubit_order="big")


@pytest.mark.parametrize("kind", [lambda v: v, qm.MatrixProductState.from_dense, lambda v: v.to_density_matrix()])
def test_expectations_are_in_the_order_that_an_operator_says(kind):
    vector = np.random.default_rng(1).normal(size=4)
    state = kind(qm.StateVector(vector / np.linalg.norm(vector), qubit_order="big"))
    plain = np.kron(X, Z).astype(float)
    big, little = qm.Operator(plain, qubit_order="big"), qm.Operator(np.kron(Z, X).astype(float), qubit_order="little")
    expected = state.expectation(plain, [0, 1])
    assert state.expectation(big, [0, 1]) == pytest.approx(expected)
    assert state.expectation(little, [0, 1]) == pytest.approx(expected)
    with pytest.raises(InvalidStateError, match="unstated"):
        state.expectation(qm.Operator(plain, qubit_order="unstated"), [0, 1])


def test_it_is_no_state_for_a_comparison(tmp_path):
    paths = [tmp_path / "a.qms", tmp_path / "b.qms"]
    for path, factor in zip(paths, (1.0, 2.0), strict=True):
        qm.save(qm.Operator(np.eye(2) * factor, qubit_order="big"), path)
    found = qm.compare(*paths)
    assert (found.same_content, found.fidelity, found.max_difference) == (False, None, 1)
    assert "operator" in found.why_not


def test_it_is_never_saved_with_loss(tmp_path):
    matrix = np.random.default_rng(2).normal(size=(64, 64))
    operator = qm.Operator(matrix @ matrix.T / np.trace(matrix @ matrix.T), qubit_order="big")
    qm.save(operator, tmp_path / "rho.qms", fidelity=0.9)
    assert qm.load(tmp_path / "rho.qms").quantum == operator

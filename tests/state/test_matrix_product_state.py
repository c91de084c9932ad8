"""Matrix product states against the dense states that they stand for, and against quimb."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import quimb.tensor as qtn
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit import quantum_info as qi

from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

H = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
X, Z = np.array([[0, 1], [1, 0]]), np.diag([1, -1])
CNOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])


def chain(n: int, bond: int, seed: int = 0, dtype: type = np.complex128, dims: list[int] | None = None, **kw: object):
    """A random matrix product state, neither normalised nor canonical."""
    rng = np.random.default_rng(seed)
    dims = dims or [2] * n
    bonds = [1, *[bond] * (n - 1), 1]
    tensors = []
    for k, dim in enumerate(dims):
        shape = (bonds[k], dim, bonds[k + 1])
        real, imag = rng.normal(size=shape), rng.normal(size=shape)
        tensors.append((real + 1j * imag if np.dtype(dtype).kind == "c" else real).astype(dtype) / np.sqrt(2 * bond))
    return MatrixProductState([t.astype(dtype) for t in tensors], **kw)


def dense(state: MatrixProductState) -> np.ndarray:
    """The amplitudes with site 0 most significant, by plain contraction."""
    total = state.tensors[0].astype(complex)
    for tensor in state.tensors[1:]:
        total = np.tensordot(total, tensor, 1)
    return total.ravel() * math.exp(state.log_scale)


def ghz(n: int, dtype: type = np.complex128) -> MatrixProductState:
    state = MatrixProductState.from_product([np.array([1, 0], dtype)] * n).apply(H, 0)
    for k in range(n - 1):
        state = state.apply(CNOT, (k, k + 1))
    return state


class TestConstruction:
    def test_fields(self) -> None:
        state = chain(4, 3, labels=list("abcd"), log_scale=0.5, dims=[2, 3, 2, 4])
        assert (state.n_sites, state.dims, state.bond_dims, state.max_bond_dim) == (4, (2, 3, 2, 4), (3, 3, 3), 3)
        assert (state.dtype, state.labels, state.log_scale) == (np.complex128, ("a", "b", "c", "d"), 0.5)
        assert (state.canonical_form, state.orthogonality_center) == (None, None)
        assert state.nbytes == 16 * (6 + 27 + 18 + 12)
        assert repr(state) == "MatrixProductState(4 sites, bond dimension 3, complex128)"
        assert MatrixProductState([np.ones((1, 2, 1))]).max_bond_dim == 1

    def test_tensors_are_read_only_views_of_arrays_that_stay_writable(self) -> None:
        array = np.ones((1, 2, 1))
        state = MatrixProductState([array])
        assert np.shares_memory(state.tensors[0], array)
        with pytest.raises(ValueError, match="read-only"):
            state.tensors[0][0, 0, 0] = 2
        array[0, 0, 0] = 1

    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", ">f4", ">c16"])
    def test_results_keep_the_dtype(self, dtype: str) -> None:
        zero, one = np.array([1, 0], dtype), np.array([0, 1], dtype)
        state = MatrixProductState.from_product([zero, one, zero, one])
        states = [
            state.canonicalize(2), state.truncate(1).state, state.normalized(), state.apply(X, 1),
            state.apply(CNOT, (3, 0)), MatrixProductState.superpose([1, 2], [state, state]),
            MatrixProductState.from_dense(state.to_dense(qubit_order="little")),
        ]  # fmt: skip
        assert {s.dtype for s in states} == {np.dtype(dtype)}
        assert state.to_dense(qubit_order="big").dtype == np.dtype(dtype)
        assert state.reduced_density_matrix([0, 2]).dtype == np.dtype(dtype)
        assert state.reduced_density_matrix(0, dtype="c16").dtype == np.complex128
        assert all(np.asarray(s.to_dense(qubit_order="big")).dtype == np.dtype(dtype) for s in states)

    @pytest.mark.parametrize(
        "shapes",
        [
            [],
            [(1, 2)],
            [(1, 2, 2)],
            [(2, 2, 1)],
            [(1, 2, 2), (3, 2, 1)],
            [(1, 0, 1)],
            [(1, 2, 0), (0, 2, 1)],
        ],
    )
    def test_tensors_that_are_no_chain_are_refused(self, shapes: list[tuple[int, ...]]) -> None:
        with pytest.raises(InvalidStateError):
            MatrixProductState([np.ones(shape) for shape in shapes])

    def test_mixed_and_foreign_dtypes_are_refused(self) -> None:
        with pytest.raises(InvalidStateError, match="float32"):
            MatrixProductState([np.ones((1, 2, 1)), np.ones((1, 2, 1), "f4")])
        with pytest.raises(InvalidStateError, match="int64"):
            MatrixProductState.from_product([[1, 0]])
        with pytest.raises(InvalidStateError, match="vector of site 1"):
            MatrixProductState.from_product([np.ones(2), np.ones((2, 2))])
        with pytest.raises(InvalidStateError, match="log_scale"):
            chain(2, 1, log_scale=math.inf)

    def test_claims_are_completed_or_refused(self) -> None:
        centers = {"left": 2, "right": 0}
        for form, center in centers.items():
            assert chain(3, 2, canonical_form=form).orthogonality_center == center
            assert chain(3, 2, canonical_form=form, orthogonality_center=center).canonical_form == form
        assert chain(3, 2, canonical_form="mixed", orthogonality_center=1).orthogonality_center == 1
        for form, wrong in [("left", 0), ("right", 2), ("mixed", None), ("mixed", 3), (None, 1), ("middle", 1)]:
            with pytest.raises(InvalidStateError, match="canonical_form"):
                chain(3, 2, canonical_form=form, orthogonality_center=wrong)

    def test_astype(self) -> None:
        state = chain(3, 2, dtype=np.float64, log_scale=1.0, labels=list("abc"))
        wide = state.astype("complex64")
        assert (wide.dtype, wide.log_scale, wide.labels) == (np.complex64, 1.0, state.labels)
        np.testing.assert_allclose(dense(wide), dense(state), rtol=1e-5)
        with pytest.raises(InvalidStateError, match="imaginary"):
            wide.astype("float32")
        with pytest.raises(InvalidStateError):
            state.astype("int8")


def test_equality_is_bit_for_bit() -> None:
    state = chain(3, 2, labels=list("abc"), canonical_form="left", log_scale=0.0)
    kept = {"labels": state.labels, "canonical_form": "left", "log_scale": 0.0}
    assert state == MatrixProductState([t.copy() for t in state.tensors], **kept)
    for change in ({"labels": None}, {"canonical_form": "right"}, {"log_scale": -0.0}, {"log_scale": 1.0}):
        assert state != MatrixProductState(state.tensors, **(kept | change))
    flipped = [t.copy() for t in state.tensors]
    flipped[1].view(np.uint64)[0, 0, 0] ^= 1
    assert state != MatrixProductState(flipped, **kept)
    assert state != MatrixProductState([t.astype(">c16") for t in state.tensors], **kept)
    assert state != chain(2, 2)
    assert state != "state"
    with pytest.raises(TypeError):
        hash(state)


class TestDense:
    @pytest.mark.parametrize("dims", [[2], [3], [2, 2], [2, 3, 2], [3, 2, 4, 2], [2] * 7])
    def test_round_trips_in_both_orders(self, dims: list[int]) -> None:
        state = chain(len(dims), 3, dims=dims, log_scale=0.3, labels=[str(k) for k in range(len(dims))])
        big = state.to_dense(qubit_order="big")
        little = state.to_dense(qubit_order="little")
        np.testing.assert_allclose(big.amplitudes, dense(state), atol=1e-15)
        assert (big.dims, big.labels) == (tuple(dims), state.labels)
        np.testing.assert_allclose(little.reordered("big").amplitudes, big.amplitudes, atol=1e-15)
        for source in (big, little):
            back = MatrixProductState.from_dense(source)
            assert back.canonical_form == "left"
            assert (back.dims, back.labels) == (state.dims, state.labels)
            np.testing.assert_allclose(dense(back), big.amplitudes, atol=1e-14)
            assert max(back.bond_dims, default=1) <= 3

    def test_amplitudes_of_digits_are_those_of_the_dense_state(self) -> None:
        state = chain(4, 3, dims=[2, 3, 2, 2], log_scale=-0.7)
        big = state.to_dense(qubit_order="big")
        for digits in np.ndindex(*state.dims):
            assert state.amplitude(digits) == pytest.approx(big.amplitude(digits))
        assert state.amplitude("0110") == pytest.approx(big.amplitude("0110"))
        with pytest.raises(InvalidStateError):
            state.amplitude("0310")
        assert MatrixProductState.from_product([np.array([1.0, 0])] * 3).amplitude("010") == 0

    def test_the_budget_is_checked_before_anything_is_allocated(self) -> None:
        state = ghz(12)
        assert state.to_dense(qubit_order="big", max_bytes=1 << 16).nbytes == 1 << 16
        with pytest.raises(BudgetError, match=f"{1 << 16} bytes"):
            state.to_dense(qubit_order="big", max_bytes=(1 << 16) - 1)
        huge = MatrixProductState.from_product([np.array([1.0, 0])] * 200)
        with pytest.raises(BudgetError):
            huge.to_dense(qubit_order="big")
        with pytest.raises(BudgetError):
            huge.amplitude_blocks(qubit_order="big")

    def test_dense_needs_an_order(self) -> None:
        with pytest.raises(InvalidStateError, match="qubit order"):
            ghz(3).to_dense(qubit_order="unstated")
        with pytest.raises(InvalidStateError, match="with_qubit_order"):
            MatrixProductState.from_dense(StateVector(np.ones(4), qubit_order="unstated"))

    def test_memory_is_the_result_and_little_more(self) -> None:
        state = chain(21, 2, dtype=np.complex64)
        tracemalloc.start()
        result = state.to_dense(qubit_order="little")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < result.nbytes + (10 << 20)
        assert result.norm() == pytest.approx(state.norm(), rel=1e-6)

    def test_extreme_tensors_and_scales_cancel(self) -> None:
        tiny = MatrixProductState.from_product([np.array([3e-30, 4e-30])] * 20)
        state = tiny.normalized()
        assert state.norm() == pytest.approx(1)
        assert state.to_dense(qubit_order="big").norm() == pytest.approx(1)
        assert state.amplitude("0" * 20) == pytest.approx(0.6**20)
        assert tiny.log_norm() == pytest.approx(20 * math.log(5e-30))
        with pytest.raises(InvalidStateError, match="double precision"):
            chain(3, 1, log_scale=800.0).norm()

    def test_from_dense_truncates_to_the_best_approximation(self) -> None:
        rng = np.random.default_rng(1)
        values = rng.normal(size=64)
        vector = StateVector(values / np.linalg.norm(values), qubit_order="big")
        kept = MatrixProductState.from_dense(vector, max_bond=4)
        assert kept.max_bond_dim == 4
        weight = (vector.schmidt_values(3)[4:] ** 2).sum()
        assert abs(kept.inner(MatrixProductState.from_dense(vector))) ** 2 == pytest.approx((1 - weight) ** 2)
        with pytest.raises(InvalidStateError, match="finite"):
            MatrixProductState.from_dense(StateVector(np.array([1, np.nan]), qubit_order="big"))


class TestCanonicalForm:
    @pytest.mark.parametrize("center", range(5))
    def test_isometries_and_the_same_state(self, center: int) -> None:
        state = chain(5, 4, log_scale=0.4)
        made = state.canonicalize(center)
        form = {0: "right", 4: "left"}.get(center, "mixed")
        assert (made.canonical_form, made.orthogonality_center, made.log_scale) == (form, center, 0.4)
        np.testing.assert_allclose(dense(made), dense(state), atol=1e-14)
        for k, tensor in enumerate(made.tensors):
            if k < center:
                np.testing.assert_allclose(
                    np.tensordot(tensor.conj(), tensor, ((0, 1), (0, 1))), np.eye(tensor.shape[2]), atol=1e-14
                )
            if k > center:
                np.testing.assert_allclose(
                    np.tensordot(tensor, tensor.conj(), ((1, 2), (1, 2))), np.eye(len(tensor)), atol=1e-14
                )
        assert np.linalg.norm(made.tensors[center]) * math.exp(0.4) == pytest.approx(state.norm())
        assert made.normalized().problems() == []

    def test_no_such_center(self) -> None:
        for center in (-1, 3):
            with pytest.raises(InvalidStateError):
                chain(3, 2).canonicalize(center)

    def test_problems_catch_false_claims_and_norms(self) -> None:
        state = chain(4, 2).normalized()
        assert state.problems() == []
        claimed = MatrixProductState(
            state.tensors, canonical_form="mixed", orthogonality_center=1, log_scale=state.log_scale
        )
        assert [p.split(" isometry")[0] for p in claimed.problems()] == [
            "tensor 0 is not the left", "tensor 2 is not the right", "tensor 3 is not the right",
        ]  # fmt: skip
        (norm,) = chain(4, 2, log_scale=5.0).problems()
        assert "norm" in norm
        assert chain(4, 2).normalized().canonicalize(2).astype("complex64").problems() == []
        broken = [t.copy() for t in state.tensors]
        broken[2][0, 0, 0] = np.nan
        assert MatrixProductState(broken).problems() == ["1 of the tensors' entries are not finite"]
        with pytest.raises(InvalidStateError, match="finite"):
            MatrixProductState(broken).norm()

    def test_zero_states(self) -> None:
        zero = MatrixProductState.from_product([np.zeros(2)] * 3)
        assert zero.norm() == 0
        assert zero.inner(zero) == 0
        assert zero.to_dense(qubit_order="big").norm() == 0
        assert zero.truncate(1).state.norm() == 0
        for needs in (zero.normalized, lambda: zero.sample(1), zero.entropies, lambda: zero.expectation(Z, 0)):
            with pytest.raises(InvalidStateError):
                needs()


class TestNumbers:
    @settings(max_examples=25)
    @given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 99))
    def test_inner_and_norm_are_the_dense_ones(self, dims: list[int], bond: int, seed: int) -> None:
        a = chain(len(dims), bond, seed, dims=dims, log_scale=0.2)
        b = chain(len(dims), bond + 1, seed + 1, dims=dims)
        assert a.inner(b) == pytest.approx(np.vdot(dense(a), dense(b)), abs=1e-12)
        assert a.norm() == pytest.approx(np.linalg.norm(dense(a)))
        assert a.normalized().norm() == pytest.approx(1)
        assert all(x is y or np.shares_memory(x, y) for x, y in zip(a.tensors, a.normalized().tensors, strict=True))

    def test_long_chains_neither_overflow_nor_vanish(self) -> None:
        long = MatrixProductState.from_product([np.array([3.0, 4.0])] * 2000)
        assert long.log_norm() == pytest.approx(2000 * math.log(5))
        assert long.normalized().norm() == pytest.approx(1)
        assert long.expectation(Z, 1000) == pytest.approx((9 - 16) / 25)
        assert long.sample(50, 1).mean() == pytest.approx(0.64, abs=0.01)
        assert long.entropies().max() == pytest.approx(0, abs=1e-12)

    def test_inner_needs_the_same_dims(self) -> None:
        with pytest.raises(InvalidStateError, match="dims"):
            chain(3, 2).inner(chain(4, 2))

    @pytest.mark.parametrize("sites", [0, 3, (0, 1), (3, 1), (4, 0), (2, 4, 0), (4, 3, 2, 1, 0)])
    def test_reduced_states_and_expectations_are_the_dense_ones(self, sites: int | tuple[int, ...]) -> None:
        state = chain(5, 3, 4, labels=list("abcde"), log_scale=0.1)
        vector = state.to_dense(qubit_order="little")
        reduced, expected = state.reduced_density_matrix(sites), vector.reduced_density_matrix(sites)
        assert (reduced.qubit_order, reduced.dims, reduced.labels) == ("big", expected.dims, expected.labels)
        np.testing.assert_allclose(reduced.matrix, expected.matrix, atol=1e-14)
        operator = np.random.default_rng(0).normal(size=reduced.matrix.shape)
        assert state.expectation(operator, sites) == pytest.approx(vector.expectation(operator, sites))

    def test_entropies_match_quimb(self) -> None:
        state = chain(8, 5, 2)
        arrays = [t.transpose(0, 2, 1) for t in state.tensors]
        other = qtn.MatrixProductState([arrays[0][0], *arrays[1:-1], arrays[-1][:, 0]], shape="lrp")
        other /= other.norm()
        entropies = state.entropies()
        assert entropies.shape == (7,)
        for cut in range(1, 8):
            assert entropies[cut - 1] == pytest.approx(other.entropy(cut))
            assert state.entropy(cut) == pytest.approx(other.entropy(cut))
            assert state.entropy(cut, base=math.e) == pytest.approx(other.entropy(cut) * math.log(2))
            values = state.schmidt_values(cut)
            np.testing.assert_allclose(values**2, np.asarray(other.schmidt_values(cut))[: len(values)], atol=1e-13)
        assert chain(1, 1).entropies().shape == (0,)
        np.testing.assert_allclose(ghz(6).entropies(), 1)


class TestSampling:
    def test_frequencies_are_those_of_the_dense_state(self) -> None:
        state = chain(4, 3, 6, dims=[2, 3, 2, 2], log_scale=2.0)
        outcomes = state.sample(60_000, 3)
        assert (outcomes.dtype, outcomes.shape) == (np.uint8, (60_000, 4))
        expected = np.abs(dense(state)) ** 2
        expected /= expected.sum()
        counts = np.bincount(np.ravel_multi_index(outcomes.T, state.dims), minlength=24)
        sigma = np.sqrt(expected * (1 - expected) * 60_000)
        assert (np.abs(counts - expected * 60_000) < 5 * sigma + 1).all()

    def test_ghz_outcomes_are_all_equal_and_the_seed_decides(self) -> None:
        outcomes = ghz(27, np.complex64).sample(1024, 9)
        assert (outcomes == outcomes[:, :1]).all()
        assert 400 < outcomes[:, 0].sum() < 624
        np.testing.assert_array_equal(outcomes, ghz(27, np.complex64).sample(1024, np.random.default_rng(9)))

    def test_edges(self) -> None:
        assert ghz(3).sample(0).shape == (0, 3)
        with pytest.raises(InvalidStateError):
            ghz(3).sample(-1)
        with pytest.raises(InvalidStateError, match="256"):
            MatrixProductState.from_product([np.ones(257)]).sample(1)
        assert MatrixProductState.from_product([np.eye(256)[255]]).sample(1)[0, 0] == 255


class TestTruncation:
    def test_weights_and_fidelity_are_what_was_lost(self) -> None:
        state = chain(8, 8, 3)
        cut = state.truncate(max_bond=3)
        assert cut.state.max_bond_dim == 3
        assert cut.state.canonical_form == "left"
        assert len(cut.discarded_weights) == 7
        lost = abs(state.inner(cut.state)) ** 2 / (state.norm() * cut.state.norm()) ** 2
        assert cut.fidelity_bound == pytest.approx(lost, rel=1e-12)
        assert cut.fidelity_bound == pytest.approx(math.prod(1 - w for w in cut.discarded_weights))
        assert cut.fidelity_bound < 0.99
        assert cut.state.norm() == pytest.approx(state.norm() * math.sqrt(lost))
        again = state.truncate(max_bond=3, renormalize=True)
        assert again.state.norm() == pytest.approx(state.norm())

    def test_cutoff_bounds_every_cut(self) -> None:
        state = chain(8, 8, 5)
        for cutoff in (1e-3, 1e-2, 0.1):
            result = state.truncate(cutoff=cutoff)
            assert 0 < max(result.discarded_weights) <= cutoff
            assert abs(state.normalized().inner(result.state.normalized())) ** 2 >= (1 - cutoff) ** 7
            tighter = state.truncate(max_bond=result.state.max_bond_dim - 1)
            assert max(tighter.discarded_weights) > max(result.discarded_weights)

    def test_nothing_to_discard_leaves_the_state(self) -> None:
        state = MatrixProductState.superpose([1, 1], [ghz(6), ghz(6)])
        result = state.truncate()
        assert result.state.bond_dims == (2,) * 5
        assert result.fidelity_bound == pytest.approx(1, abs=1e-15)
        np.testing.assert_allclose(dense(result.state), 2 * dense(ghz(6)), atol=1e-14)

    @pytest.mark.parametrize(("max_bond", "cutoff"), [(0, 0.0), (-1, 0.0), (None, -0.1), (None, 1.0), (2, math.nan)])
    def test_limits_that_leave_nothing_are_refused(self, max_bond: int | None, cutoff: float) -> None:
        with pytest.raises(InvalidStateError, match="max_bond"):
            ghz(3).truncate(max_bond, cutoff)


class TestGates:
    def test_a_random_circuit_with_distant_gates_matches_qiskit(self) -> None:
        n = 6
        state = MatrixProductState.from_product([np.array([1, 0], complex)] * n)
        circuit = QuantumCircuit(n)
        rng = np.random.default_rng(2)
        for seed in range(15):
            i, j = (int(k) for k in rng.choice(n, 2, replace=False))
            one, two = qi.random_unitary(2, seed=seed).data, qi.random_unitary(4, seed=seed).data
            state = state.apply(one, i).apply(two, (i, j))
            circuit.unitary(one, [i])
            circuit.unitary(two, [j, i])  # Qiskit: the first qubit is the least significant
        expected = qi.Statevector(circuit).data
        np.testing.assert_allclose(state.to_dense(qubit_order="little").amplitudes, expected, atol=1e-13)
        assert state.problems() == []

    def test_gates_keep_bonds_as_small_as_the_entanglement(self) -> None:
        for dtype in (np.complex64, np.complex128):
            state = ghz(27, dtype)
            assert state.bond_dims == (2,) * 26
            for k in reversed(range(26)):
                state = state.apply(CNOT, (k, k + 1))
            assert state.bond_dims == (1,) * 26
            bell = state.apply(CNOT, (0, 26))
            assert bell.bond_dims == (2,) * 26
            assert bell.apply(CNOT, (26, 0)).bond_dims == (1,) * 26

    def test_gates_on_qudits_of_different_size(self) -> None:
        rng = np.random.default_rng(0)
        state = chain(4, 3, dims=[2, 3, 4, 2], log_scale=0.2)
        full = dense(state).reshape(state.dims)
        gate = rng.normal(size=(8, 8))
        expected = np.einsum("CAca,abcd->AbCd", gate.reshape(4, 2, 4, 2), full)
        made = state.apply(gate, (2, 0))
        np.testing.assert_allclose(dense(made).reshape(state.dims), expected, atol=1e-13)
        assert made.dims == state.dims
        assert made.orthogonality_center == 2

    def test_truncating_gates(self) -> None:
        state = chain(6, 4, 1).apply(np.kron(H, H) @ CNOT, (0, 5), max_bond=2)
        assert state.max_bond_dim <= 4
        assert state.bond_dims[-1] <= 2

    def test_one_site_gates_need_not_be_unitary_and_drop_claims(self) -> None:
        state = chain(3, 2).canonicalize(1)
        projector = np.diag([1, 0])
        assert state.apply(projector, 0).canonical_form is None
        assert state.apply(projector, 1).orthogonality_center == 1
        np.testing.assert_allclose(dense(state.apply(projector, 2))[1::2], 0)

    def test_complex_gates_do_not_make_real_states_complex(self) -> None:
        real = MatrixProductState.from_product([np.array([1.0, 0])] * 2)
        with pytest.raises(InvalidStateError, match="astype"):
            real.apply(np.diag([1, 1j]), 0)
        assert real.apply(X.astype(complex), 0).dtype == np.float64
        assert real.astype("complex64").apply(np.diag([1, 1j]), 0).dtype == np.complex64

    def test_gates_that_do_not_fit_are_refused(self) -> None:
        state = ghz(3)
        for gate, sites in [(CNOT, 0), (X, (0, 1)), (CNOT, (0, 0)), (CNOT, (0, 3)), (np.eye(8), (0, 1, 2))]:
            with pytest.raises(InvalidStateError):
                state.apply(gate, sites)  # type: ignore[arg-type]


class TestSuperposition:
    def test_it_is_the_exact_sum(self) -> None:
        a, b, c = chain(4, 2, 1, log_scale=3.0), chain(4, 3, 2), chain(4, 1, 3, log_scale=-2.0)
        weights = [1, -0.5j, 2.5]
        total = MatrixProductState.superpose(weights, [a, b, c])
        assert total.bond_dims == (6, 6, 6)
        np.testing.assert_allclose(dense(total), dense(a) - 0.5j * dense(b) + 2.5 * dense(c), rtol=1e-13)
        single = [MatrixProductState.from_product([v]) for v in (np.array([1.0, 2]), np.array([3.0, 4]))]
        np.testing.assert_allclose(dense(MatrixProductState.superpose([1, 10], single)), [31, 42])

    def test_what_cannot_be_summed_is_refused(self) -> None:
        real = chain(3, 2, dtype=np.float64)
        for weights, states in [
            ([], []),
            ([1], [real, real]),
            ([1, 1], [real, chain(4, 2, dtype=np.float64)]),
            ([1, 1], [real, chain(3, 2, dtype=np.float32)]),
            ([1, 1], [real, chain(3, 2, dtype=np.float64, labels=list("abc"))]),
            ([1, 1j], [real, real]),
        ]:
            with pytest.raises(InvalidStateError):
                MatrixProductState.superpose(weights, states)


@pytest.mark.parametrize(
    ("n", "dtype", "small"), [(18, np.complex64, 1e-3), (18, np.complex128, 1e-9), (22, np.complex64, 1.0)]
)
def test_small_parts_of_large_states_are_kept(n: int, dtype: type, small: float) -> None:
    # A bound that grows with the size of the matrix would take them for rounding.
    values = np.zeros(2**n, dtype)
    values[[0, -1]] = 1, small
    state = MatrixProductState.from_dense(StateVector(values / np.linalg.norm(values), qubit_order="big"))
    assert state.max_bond_dim == 2
    assert abs(state.amplitude("1" * n)) == pytest.approx(abs(values[-1]) / np.linalg.norm(values), rel=1e-4)


def test_only_a_state_vector_is_taken_apart() -> None:
    with pytest.raises(InvalidStateError, match="no state vector"):
        MatrixProductState.from_dense(DensityMatrix(np.eye(4) / 4, qubit_order="big"))

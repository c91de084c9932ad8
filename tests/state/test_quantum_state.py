"""State vectors and density matrices: what is kept, in which order, and what is computed from it."""

from __future__ import annotations

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
import quimb as qu
from hypothesis import given
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit import quantum_info as qi

from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

X, Y, Z = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])


def amplitudes(size: int, seed: int = 0, dtype: type = np.complex128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size) + 1j * rng.normal(size=size)
    return (values / np.linalg.norm(values)).astype(dtype)


def mixed(size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
    rho = root @ root.conj().T
    return rho / rho.trace()


class TestWhatIsKept:
    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", ">f2", ">f4", ">f8", ">c8", ">c16"])
    def test_every_number_dtype_is_wrapped_without_a_copy(self, dtype: str) -> None:
        array = np.zeros(8, dtype)
        array[3] = 1
        state = StateVector(array, qubit_order="little")
        assert state.amplitudes is array
        assert state.dtype == np.dtype(dtype)
        assert (state.dims, state.n_sites, state.n_qubits, state.nbytes) == ((2, 2, 2), 3, 3, array.nbytes)
        assert state.norm() == 1
        assert state.problems() == []
        assert state.normalized().dtype == np.dtype(dtype)
        assert state.reordered("big").dtype == np.dtype(dtype)

    @pytest.mark.parametrize("stride", [2, -1, -3])
    def test_strided_arrays_give_the_same_results(self, stride: int) -> None:
        array = amplitudes(48)[::stride][:16]
        assert not array.flags.c_contiguous
        state, straight = (StateVector(a, qubit_order="big") for a in (array, np.ascontiguousarray(array)))
        assert state.amplitudes is array
        assert state == straight
        assert state.norm() == straight.norm()
        assert state.reordered("little") == straight.reordered("little")
        np.testing.assert_array_equal(state.sample(20, 1), straight.sample(20, 1))
        assert state.reduced_density_matrix([2, 0]) == straight.reduced_density_matrix([2, 0])

    @pytest.mark.parametrize("dtype", ["i4", "bool", "O", "U3", np.longdouble, np.clongdouble])
    def test_other_dtypes_are_refused_with_advice(self, dtype: str) -> None:
        with pytest.raises(InvalidStateError, match="astype"):
            StateVector(np.zeros(4, dtype), qubit_order="big")

    @pytest.mark.parametrize("shape", [(), (2, 2), (1,), (0,), (3,), (6,)])
    def test_shapes_that_are_no_qubits_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InvalidStateError):
            StateVector(np.zeros(shape), qubit_order="big")

    def test_qudits_need_dims_that_multiply_to_the_length(self) -> None:
        with pytest.raises(InvalidStateError, match=r"dims=\(3, 3\)"):
            StateVector(amplitudes(6), qubit_order="big")
        state = StateVector(amplitudes(6), qubit_order="big", dims=(2, 3))
        assert (state.dims, state.n_sites) == ((2, 3), 2)
        with pytest.raises(InvalidStateError, match="qubits"):
            _ = state.n_qubits
        for dims in [(2, 2), (), (-2, -3), (6, 0)]:
            with pytest.raises(InvalidStateError):
                StateVector(amplitudes(6), qubit_order="big", dims=dims)

    @pytest.mark.parametrize("labels", [["a"], ["a", "a"], ["a", "b", "c"], "ab", ["a", 1]])
    def test_labels_are_one_distinct_string_per_site(self, labels: list[str]) -> None:
        with pytest.raises(InvalidStateError, match="labels"):
            StateVector(amplitudes(4), qubit_order="big", labels=labels)

    def test_an_unknown_order_is_refused(self) -> None:
        with pytest.raises(InvalidStateError, match="qubit order"):
            StateVector(amplitudes(4), qubit_order="middle")  # type: ignore[arg-type]

    def test_a_density_matrix_is_square(self) -> None:
        with pytest.raises(InvalidStateError, match="square"):
            DensityMatrix(np.zeros((2, 4)), qubit_order="big")

    def test_it_is_an_array_to_numpy(self) -> None:
        state = StateVector(amplitudes(4, dtype=np.complex64), qubit_order="big")
        assert np.asarray(state) is state.amplitudes
        assert np.array(state) is not state.amplitudes
        assert np.asarray(state, dtype=np.complex128).dtype == np.complex128
        with pytest.raises(ValueError, match="copy"):
            np.asarray(state, dtype=np.complex128, copy=False)

    def test_repr_is_short_whatever_the_size(self) -> None:
        state = StateVector(amplitudes(1 << 12), qubit_order="little")
        assert repr(state) == "StateVector(12 qubits, little, complex128)"


class TestEquality:
    def test_every_field_counts(self) -> None:
        base = amplitudes(4)
        state = StateVector(base, qubit_order="big", labels=["a", "b"])
        assert state == StateVector(base.copy(), qubit_order="big", labels=["a", "b"])
        others = [
            StateVector(base, qubit_order="little", labels=["a", "b"]),
            StateVector(base, qubit_order="big"),
            StateVector(base, qubit_order="big", labels=["b", "a"]),
            StateVector(base.astype(">c16"), qubit_order="big", labels=["a", "b"]),
            StateVector(base.astype("c8"), qubit_order="big", labels=["a", "b"]),
            StateVector(base, qubit_order="big", dims=(4,), labels=["a"]),
            base,
        ]
        assert all(not isinstance(other, StateVector) or state != other for other in others)
        vector = StateVector(np.ones(4), qubit_order="big", dims=(4,))
        assert vector != DensityMatrix(np.ones((4, 4)), qubit_order="big", dims=(4,))

    def test_bits_count_not_values(self) -> None:
        quiet, payload = np.array([0x7FF8000000000000, 0x7FF8000000000001], "u8").view("f8")

        def of(value: float) -> StateVector:
            return StateVector(np.array([value, 1.0]), qubit_order="big")

        assert of(quiet) == of(quiet)
        assert of(quiet) != of(payload)
        assert of(0.0) != of(-0.0)

    def test_states_are_not_hashable(self) -> None:
        with pytest.raises(TypeError):
            hash(StateVector(np.ones(2), qubit_order="big"))


class TestQubitOrder:
    """X on qubit 0 of two: index 1 in Qiskit ("little"), index 2 in quimb ("big")."""

    def test_x_on_qubit_0_as_the_frameworks_have_it(self) -> None:
        circuit = QuantumCircuit(2)
        circuit.x(0)
        little = StateVector(qi.Statevector(circuit).data, qubit_order="little")
        flipped = qu.ikron(qu.pauli("X"), [2, 2], 0) @ qu.computational_state("00")
        big = StateVector(np.asarray(flipped).ravel(), qubit_order="big")
        assert little.amplitudes[1] == 1
        assert big.amplitudes[2] == 1
        np.testing.assert_array_equal(little.reordered("big").amplitudes, big.amplitudes)
        for state in (little, big):
            assert state.expectation(Z, 0) == -1
            assert state.expectation(Z, 1) == 1
            np.testing.assert_array_equal(state.sample(3, 0), [[1, 0]] * 3)
        assert little.amplitude("01") == big.amplitude("10") == 1

    @given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(0, 99))
    def test_reordering_reverses_digits_and_itself(self, dims: list[int], seed: int) -> None:
        values = amplitudes(int(np.prod(dims)), seed)
        big = StateVector(values, qubit_order="big", dims=dims)
        little = big.reordered("little")
        assert little.dims == big.dims
        np.testing.assert_array_equal(little.amplitudes, values.reshape(dims).transpose().ravel())
        assert little.reordered("big") == big
        for digits in np.ndindex(*dims):
            assert big.amplitude(digits) == little.amplitude(digits[::-1])
        rho = DensityMatrix(np.outer(values, values.conj()), qubit_order="big", dims=dims)
        np.testing.assert_array_equal(
            rho.reordered("little").matrix, np.outer(little.amplitudes, little.amplitudes.conj())
        )

    def test_reordering_needs_only_the_result(self) -> None:
        state = StateVector(np.zeros(1 << 21, np.complex64), qubit_order="big")
        tracemalloc.start()
        state.reordered("little")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < state.nbytes + (8 << 20)

    def test_matches_qiskit_reverse_qargs(self) -> None:
        values = amplitudes(32)
        reversed_ = qi.Statevector(values).reverse_qargs().data
        np.testing.assert_array_equal(StateVector(values, qubit_order="little").reordered("big").amplitudes, reversed_)

    def test_what_needs_the_order_says_how_to_state_it(self) -> None:
        state = StateVector(amplitudes(8), qubit_order="unstated")
        assert state.index([1, 0, 1]) == 5  # whichever qubit a digit belongs to, this is the number that they spell
        with pytest.raises(InvalidStateError, match="with_qubit_order"):
            StateVector(np.ones(6), qubit_order="unstated", dims=(2, 3)).index([1, 2])
        for needs in (
            lambda: state.reordered("big"),
            lambda: state.expectation(Z, 0),
            lambda: state.reduced_density_matrix(0),
            lambda: state.schmidt_values(1),
            lambda: state.sample(1),
        ):
            with pytest.raises(InvalidStateError, match=r'state.with_qubit_order\("big"\)'):
                needs()
        assert state.norm() == pytest.approx(1)
        assert state.probabilities().sum() == pytest.approx(1)
        stated = state.with_qubit_order("big")
        assert stated.amplitudes is state.amplitudes
        assert stated.qubit_order == "big"

    def test_a_stated_order_is_not_stated_otherwise(self) -> None:
        state = StateVector(amplitudes(4), qubit_order="big")
        assert state.with_qubit_order("big") == state
        for order in ("little", "unstated"):
            with pytest.raises(InvalidStateError, match="reordered"):
                state.with_qubit_order(order)
        with pytest.raises(InvalidStateError):
            state.reordered("unstated")

    @pytest.mark.parametrize("order", ["little", "big"])
    def test_digits_spell_the_index(self, order: str) -> None:
        state = StateVector(np.arange(8.0), qubit_order=order)  # type: ignore[arg-type]
        assert [state.index(f"{k:03b}") for k in range(8)] == list(range(8))
        assert state.amplitude([1, 1, 0]) == 6

    @pytest.mark.parametrize("digits", ["01", "0120", "012", "0a1", "", [0, 0, 2], [0, 0, -1], "0-1", "٠٠٠"])
    def test_digits_that_name_no_basis_state_are_refused(self, digits: str | list[int]) -> None:
        with pytest.raises(InvalidStateError):
            StateVector(np.arange(8.0), qubit_order="big").index(digits)


class TestNumbers:
    def test_norm_accumulates_in_double_precision(self) -> None:
        state = StateVector(np.full(1 << 20, 2.0**-10, np.float16), qubit_order="big")
        assert state.norm() == 1
        wide = StateVector(np.full(1 << 20, 1e-3 + 1e-3j, np.complex64), qubit_order="big")
        assert wide.norm() == pytest.approx(np.linalg.norm(wide.amplitudes.astype(complex)), rel=1e-14)

    def test_normalized_is_a_new_state(self) -> None:
        state = StateVector(3 * amplitudes(8), qubit_order="big", labels=list("abc"))
        unit = state.normalized()
        assert unit.norm() == pytest.approx(1, abs=1e-15)
        assert unit.labels == state.labels
        assert state.norm() == pytest.approx(3)
        for bad in (np.zeros(4), np.array([1, np.nan]), np.array([1, np.inf])):
            with pytest.raises(InvalidStateError):
                StateVector(bad, qubit_order="big").normalized()

    @pytest.mark.parametrize("order", ["little", "big"])
    @pytest.mark.parametrize("sites", [[0], [3], [1, 3], [3, 1], [2, 0, 1], [3, 2, 1, 0]])
    def test_reduced_states_and_expectations_match_qiskit(self, order: str, sites: list[int]) -> None:
        values = amplitudes(16, 3)
        little = values if order == "little" else qi.Statevector(values).reverse_qargs().data
        traced = [site for site in range(4) if site not in sites]
        # Qiskit keeps the remaining qubits in ascending order, little-endian.
        expected = qi.partial_trace(qi.Statevector(little), traced)
        rank = [sorted(sites).index(site) for site in sites]
        expected = DensityMatrix(expected.data, qubit_order="little").reduced_density_matrix(rank)
        pure = StateVector(values, qubit_order=order)  # type: ignore[arg-type]
        operator = mixed(2 ** len(sites), 5)
        for state in (pure, pure.to_density_matrix()):
            reduced = state.reduced_density_matrix(sites)
            assert reduced.qubit_order == "big"
            np.testing.assert_allclose(reduced.matrix, expected.matrix, atol=1e-15)
            assert state.expectation(operator, sites) == pytest.approx(np.trace(operator @ expected.matrix))

    def test_reduced_density_matrix_matches_quimb_for_any_site_order(self) -> None:
        dims = [2, 3, 2, 2]
        values = amplitudes(24, 8)
        state = StateVector(values, qubit_order="big", dims=dims, labels=list("abcd"))
        full = np.outer(values, values.conj())
        for sites in permutations(range(4), 2):
            reduced = state.reduced_density_matrix(sites)
            assert reduced.labels == tuple("abcd"[site] for site in sites)
            assert reduced.dims == tuple(dims[site] for site in sites)
            expected = qu.partial_trace(qu.qu(values, qtype="ket"), dims, sorted(sites))
            ascending = reduced if sites[0] < sites[1] else reduced.reduced_density_matrix([1, 0])
            np.testing.assert_allclose(ascending.matrix, expected, atol=1e-15)
            mixed_ = DensityMatrix(full, qubit_order="big", dims=dims).reduced_density_matrix(sites)
            np.testing.assert_allclose(mixed_.matrix, reduced.matrix, atol=1e-15)

    def test_a_reduced_state_works_through_many_blocks(self) -> None:
        rng = np.random.default_rng(1)
        state = StateVector(rng.normal(size=1 << 20).astype(np.float32), qubit_order="little")
        pairs = state.amplitudes.reshape(2, 1 << 18, 2).astype(float)
        expected = np.einsum("xay,zaw->yxwz", pairs, pairs).reshape(4, 4)
        reduced = state.reduced_density_matrix([0, 19])
        assert reduced.dtype == np.float32
        np.testing.assert_allclose(reduced.matrix, expected, rtol=1e-6)
        tracemalloc.start()
        state.reduced_density_matrix([0, 19])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20

    def test_expectation_is_that_of_the_normalised_state(self) -> None:
        # Qiskit's operator acts on [0, 2] with the first qubit least significant: kron(Z on 2, Y on 0).
        expected = qi.Statevector(amplitudes(8)).expectation_value(qi.Operator(np.kron(Z, Y)), [0, 2])
        for scale in (1, 5):
            state = StateVector(scale * amplitudes(8), qubit_order="little")
            assert state.expectation(np.kron(Y, Z), [0, 2]) == pytest.approx(expected)
            assert state.to_density_matrix().expectation(np.kron(Z, Y), [2, 0]) == pytest.approx(expected)
        with pytest.raises(InvalidStateError):
            StateVector(np.zeros(4), qubit_order="big").expectation(Z, 0)

    @pytest.mark.parametrize("sites", [[], [0, 0], [-1], [3], 3])
    def test_sites_outside_are_refused(self, sites: list[int]) -> None:
        with pytest.raises(InvalidStateError):
            StateVector(amplitudes(8), qubit_order="big").reduced_density_matrix(sites)

    @pytest.mark.parametrize("operator", [np.eye(4), np.ones(2), np.array([["a", "b"], ["c", "d"]])])
    def test_operators_that_do_not_fit_are_refused(self, operator: np.ndarray) -> None:
        with pytest.raises(InvalidStateError, match="2 x 2"):
            StateVector(amplitudes(8), qubit_order="big").expectation(operator, 0)

    def test_schmidt_values_and_entropy_match_quimb_in_either_order(self) -> None:
        big = StateVector(2 * amplitudes(32, 4), qubit_order="big")
        for state in (big, big.reordered("little")):
            for cut in range(1, 5):
                expected = qu.entropy_subsys(qu.qu(amplitudes(32, 4), qtype="ket"), [2] * 5, range(cut))
                values = state.schmidt_values(cut)
                assert (values**2).sum() == pytest.approx(1)
                assert list(values) == sorted(values, reverse=True)
                assert state.entropy(cut) == pytest.approx(expected)
                assert state.entropy(cut, base=np.e) == pytest.approx(expected * np.log(2))
        for cut in (0, 5, -1):
            with pytest.raises(InvalidStateError, match="cut"):
                big.schmidt_values(cut)
        for base in (1, 0, -2, np.inf, np.nan):
            with pytest.raises(InvalidStateError, match="base"):
                big.entropy(1, base=base)

    def test_product_and_bell_states_have_the_entropies_of_the_textbook(self) -> None:
        product = StateVector(np.array([1.0, 0, 0, 0]), qubit_order="big")
        bell = StateVector(np.array([1, 0, 0, 1]) / np.sqrt(2), qubit_order="big")
        assert product.entropy(1) == 0
        assert bell.entropy(1) == pytest.approx(1)

    def test_density_matrix_of_a_pure_state_within_the_budget(self) -> None:
        state = StateVector(amplitudes(8, dtype=np.complex64), qubit_order="little", labels=list("abc"))
        rho = state.to_density_matrix()
        assert (rho.dtype, rho.qubit_order, rho.labels) == (np.complex64, "little", ("a", "b", "c"))
        np.testing.assert_allclose(rho.matrix, qi.DensityMatrix(qi.Statevector(state.amplitudes)).data, atol=1e-7)
        assert state.to_density_matrix(max_bytes=512) == rho
        with pytest.raises(BudgetError, match="512"):
            state.to_density_matrix(max_bytes=511)


class TestSampling:
    @pytest.mark.parametrize("order", ["little", "big"])
    def test_columns_are_sites(self, order: str) -> None:
        values = np.zeros(24)
        values[
            np.ravel_multi_index((1, 2, 3) if order == "big" else (3, 2, 1), (2, 3, 4) if order == "big" else (4, 3, 2))
        ] = 1
        state = StateVector(values, qubit_order=order, dims=(2, 3, 4))  # type: ignore[arg-type]
        outcomes = state.sample(5, 0)
        assert outcomes.dtype == np.uint8
        np.testing.assert_array_equal(outcomes, [[1, 2, 3]] * 5)

    def test_frequencies_follow_the_probabilities_over_many_blocks(self) -> None:
        rng = np.random.default_rng(3)
        values = rng.normal(size=1 << 20)
        values[1 << 18 : 3 << 18] = 0  # two whole blocks of weight zero
        state = StateVector(values, qubit_order="big")
        outcomes = state.sample(200_000, 5)
        probabilities = state.probabilities() / state.norm() ** 2
        expected = probabilities.reshape(16, -1).sum(axis=1)
        counts = np.bincount(outcomes[:, :4] @ [8, 4, 2, 1], minlength=16)
        assert counts[4:12].sum() == 0
        assert np.abs(counts / 200_000 - expected).max() < 5 * np.sqrt(expected.max() / 200_000)
        assert np.abs(outcomes[:, 19].mean() - probabilities[1::2].sum()) < 0.006

    def test_the_seed_decides_and_impossible_outcomes_never_come(self) -> None:
        values = np.zeros(64)
        values[[5, 40]] = 1
        state = StateVector(values, qubit_order="big")
        np.testing.assert_array_equal(state.sample(100, 7), state.sample(100, np.random.default_rng(7)))
        indices = state.sample(5000, 7) @ [32, 16, 8, 4, 2, 1]
        assert set(indices) == {5, 40}
        np.testing.assert_array_equal(state.to_density_matrix().sample(100, 7), state.sample(100, 7))

    def test_edges(self) -> None:
        state = StateVector(amplitudes(4), qubit_order="big")
        assert state.sample(0).shape == (0, 2)
        with pytest.raises(InvalidStateError):
            state.sample(-1)
        for bad in (np.zeros(4), np.array([1, np.nan, 0, 0])):
            with pytest.raises(InvalidStateError):
                StateVector(bad, qubit_order="big").sample(1)
        with pytest.raises(InvalidStateError, match="256"):
            StateVector(np.ones(257), qubit_order="big", dims=(257,)).sample(1)


class TestDensityMatrix:
    def test_trace_eigenvalues_probabilities(self) -> None:
        matrix = mixed(8)
        rho = DensityMatrix(matrix, qubit_order="big")
        assert rho.trace() == pytest.approx(1)
        np.testing.assert_allclose(rho.eigenvalues(), np.linalg.eigvalsh(matrix), atol=1e-15)
        np.testing.assert_array_equal(rho.probabilities(), matrix.diagonal().real)
        assert rho.is_hermitian()
        assert not DensityMatrix(np.triu(np.ones((4, 4))), qubit_order="big").is_hermitian(0.5)
        with pytest.raises(InvalidStateError, match="Hermitian"):
            DensityMatrix(np.triu(np.ones((4, 4))), qubit_order="big").eigenvalues()

    def test_negative_weights_are_not_sampled(self) -> None:
        with pytest.raises(InvalidStateError, match="negative"):
            DensityMatrix(np.diag([1.5, -0.5]), qubit_order="big").sample(3)


class TestProblems:
    def test_states_as_they_should_be_have_none(self) -> None:
        for dtype in (np.complex64, np.complex128, np.float16):
            values = np.zeros(8, dtype)
            values[:2] = np.sqrt(0.5)
            state = StateVector(values, qubit_order="big")
            assert state.problems() == []
            assert state.to_density_matrix().problems() == []

    @pytest.mark.parametrize(("dtype", "off"), [(np.complex64, 1e-5), (np.complex128, 1e-9)])
    def test_the_tolerance_follows_the_dtype(self, dtype: type, off: float) -> None:
        values = amplitudes(4).astype(dtype)
        state = StateVector(values * dtype(1 + off), qubit_order="big")
        (problem,) = state.problems()
        assert "norm" in problem
        assert state.problems(atol=1e-3) == []
        assert StateVector(values * dtype(1 + off / 100), qubit_order="big").problems() == []

    def test_non_finite_entries_are_counted(self) -> None:
        values = np.array([1, np.nan, np.inf, 0])
        assert StateVector(values, qubit_order="big").problems() == ["2 of 4 amplitudes are not finite"]
        assert DensityMatrix(np.diag(values), qubit_order="big").problems() == ["2 of 16 entries are not finite"]

    def test_unphysical_matrices_say_why(self) -> None:
        (trace,) = DensityMatrix(np.eye(2), qubit_order="big").problems()
        assert "trace" in trace
        (skew,) = DensityMatrix(np.array([[0.5, 1], [0, 0.5]]), qubit_order="big").problems()
        assert "Hermitian" in skew
        (negative,) = DensityMatrix(np.diag([1.5, -0.5]), qubit_order="big").problems()
        assert "-0.5" in negative

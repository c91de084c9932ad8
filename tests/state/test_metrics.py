"""Metrics against Qiskit, QuTiP and quimb, against inequalities, and against wrong answers once given."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import quimb as qu
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import quantum_info as qi

from quantum_memory.errors import BudgetError, InvalidStateError
from quantum_memory.state import metrics
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

PAIR_METRICS = (
    metrics.fidelity,
    metrics.trace_distance,
    metrics.bures_distance,
    metrics.bures_angle,
    metrics.hilbert_schmidt_distance,
)


def vector(n: int, seed: int, order: str = "little") -> StateVector:
    return StateVector(qi.random_statevector(2**n, seed=seed).data, qubit_order=order)  # type: ignore[arg-type]


def matrix(n: int, seed: int, rank: int | None = None) -> DensityMatrix:
    return DensityMatrix(qi.random_density_matrix(2**n, rank=rank, seed=seed).data, qubit_order="little")


def plus(n: int) -> StateVector:
    return StateVector(np.full(2**n, 2 ** (-n / 2)), qubit_order="big")


def ghz(n: int) -> StateVector:
    values = np.zeros(2**n)
    values[[0, -1]] = math.sqrt(0.5)
    return StateVector(values, qubit_order="big")


def qiskit_of(state: StateVector | DensityMatrix) -> qi.DensityMatrix:
    return qi.DensityMatrix(qi.Statevector(state.amplitudes) if isinstance(state, StateVector) else state.matrix)


def qutip_of(state: StateVector | DensityMatrix) -> qutip.Qobj:
    return qutip.Qobj(qiskit_of(state).data)


def forms(state: StateVector) -> list[StateVector | DensityMatrix | MatrixProductState]:
    """The same state in every form, scale and order."""
    tripled = StateVector(3j * state.amplitudes, qubit_order=state.qubit_order)
    return [
        state,
        state.reordered("big"),
        tripled,
        tripled.to_density_matrix(),
        MatrixProductState.from_dense(tripled),
    ]


class TestAgainstLibraries:
    @pytest.mark.parametrize("n", [2, 4, 5])
    @pytest.mark.parametrize("kinds", ["pure pure", "pure mixed", "mixed mixed", "low-rank mixed", "mixed low-rank"])
    def test_pairs(self, n: int, kinds: str) -> None:
        make = {"pure": vector, "mixed": matrix, "low-rank": lambda n, seed: matrix(n, seed, rank=2)}
        first, second = kinds.split()
        a, b = make[first](n, 10 + n), make[second](n, 20 + n)
        reference = qi.state_fidelity(qiskit_of(a), qiskit_of(b), validate=False)
        x, y = qutip_of(a), qutip_of(b)
        for left, right in ((a, b), (b, a)):
            assert metrics.fidelity(left, right) == pytest.approx(reference, abs=1e-7)
            assert metrics.fidelity(left, right, squared=False) == pytest.approx(math.sqrt(reference), abs=1e-7)
            # quimb takes roots of singular matrices, QuTiP of squares, which costs them digits.
            in_quimb = qu.fidelity(x.full(), y.full(), squared=True)
            assert metrics.fidelity(left, right) == pytest.approx(in_quimb, abs=1e-4)
            assert metrics.trace_distance(left, right) == pytest.approx(qutip.tracedist(x, y), abs=1e-6)
            assert metrics.trace_distance(left, right) == pytest.approx(qu.trace_distance(x.full(), y.full()))
            assert metrics.bures_distance(left, right) == pytest.approx(qutip.bures_dist(x, y), abs=1e-6)
            assert metrics.bures_angle(left, right) == pytest.approx(qutip.bures_angle(x, y), abs=1e-6)
            assert metrics.hilbert_schmidt_distance(left, right) ** 2 == pytest.approx(qutip.hilbert_dist(x, y).real)

    @pytest.mark.parametrize("n", [2, 3, 6])
    def test_pure_states_in_every_form_give_the_same(self, n: int) -> None:
        a, b = vector(n, 1), vector(n, 2)
        for metric in PAIR_METRICS:
            expected = metric(a, b)
            for x in forms(a):
                for y in forms(b):
                    assert metric(x, y) == pytest.approx(expected, abs=1e-7)
        for x in (a, a.reordered("big"), MatrixProductState.from_dense(a)):
            for y in (b, b.reordered("big"), MatrixProductState.from_dense(b)):
                assert metrics.overlap(x, y) == pytest.approx(np.vdot(a.amplitudes, b.amplitudes))

    @pytest.mark.parametrize("sites", [None, 0, 3, [0, 1], [1, 2, 3], [3, 1], [0, 2, 4], [0, 1, 2, 3, 4]])
    def test_purity_and_entropy_of_parts(self, sites: list[int] | None) -> None:
        pure, mixed = vector(5, 3), matrix(5, 4)
        kept = list(range(5)) if sites is None else [sites] if isinstance(sites, int) else sites
        traced = [site for site in range(5) if site not in kept]
        for state in [*forms(pure), mixed]:
            source = qiskit_of(mixed if state is mixed else pure)
            reduced = qi.partial_trace(source, traced)
            assert metrics.purity(state, sites) == pytest.approx(reduced.purity().real)
            assert metrics.von_neumann_entropy(state, sites=sites) == pytest.approx(qi.entropy(reduced), abs=1e-9)
            nats = metrics.von_neumann_entropy(state, sites=sites, base=math.e)
            assert nats == pytest.approx(qutip.entropy_vn(qutip.Qobj(reduced.data)), abs=1e-9)

    def test_schmidt_spectrum(self) -> None:
        state = vector(5, 6, "big")
        expected = np.linalg.eigvalsh(qu.partial_trace(qu.qu(state.amplitudes, qtype="ket"), [2] * 5, [0, 1]))[::-1]
        for form in (state, MatrixProductState.from_dense(state)):
            np.testing.assert_allclose(metrics.schmidt_spectrum(form, 2), expected, atol=1e-14)

    def test_qubit_order_of_qiskit_and_quimb(self) -> None:
        flipped = qi.Statevector.from_label("00").evolve(qi.Pauli("X"), [0])  # X on qubit 0
        little = StateVector(flipped.data, qubit_order="little")
        ket = qu.ikron(qu.pauli("X"), [2, 2], 0) @ qu.computational_state("00")
        big = StateVector(np.asarray(ket).ravel(), qubit_order="big")
        product = MatrixProductState.from_product([np.array([0, 1.0]), np.array([1.0, 0])])
        for a in (little, big, product):
            for b in (little, big, product, big.to_density_matrix()):
                assert metrics.fidelity(a, b) == pytest.approx(1)
                assert metrics.trace_distance(a, b) == pytest.approx(0, abs=1e-12)
        wrong = StateVector(little.amplitudes, qubit_order="big")
        assert metrics.fidelity(wrong, big) == 0


class TestInequalities:
    @settings(max_examples=30)
    @given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))
    def test_fuchs_van_de_graaf(self, n: int, rank_a: int, rank_b: int, seed: int) -> None:
        a, b = matrix(n, seed, rank=min(rank_a, 2**n)), matrix(n, seed + 1, rank=min(rank_b, 2**n))
        f, t = metrics.fidelity(a, b), metrics.trace_distance(a, b)
        assert 1 - math.sqrt(f) <= t + 1e-9
        assert t <= math.sqrt(1 - f) + 1e-9
        assert metrics.bures_distance(a, b) == pytest.approx(math.sqrt(2 * (1 - math.sqrt(f))), abs=1e-7)
        assert metrics.fidelity(a, a) == pytest.approx(1, abs=1e-7)

    @settings(max_examples=30)
    @given(st.integers(1, 6), st.integers(0, 999))
    def test_pure_states_meet_the_upper_bound(self, n: int, seed: int) -> None:
        a, b = vector(n, seed), vector(n, seed + 1)
        f = metrics.fidelity(a, b)
        assert metrics.trace_distance(a, b) == pytest.approx(math.sqrt(1 - f))
        assert metrics.hilbert_schmidt_distance(a, b) == pytest.approx(math.sqrt(2 * (1 - f)))
        assert metrics.bures_angle(a, b) == pytest.approx(math.acos(math.sqrt(f)))


class TestDigits:
    @pytest.mark.parametrize("angle", [1e-3, 1e-7, 1e-10, 1e-13])
    def test_small_distances_of_pure_states_keep_their_digits(self, angle: float) -> None:
        rotated = np.array([math.cos(angle), math.sin(angle)])
        a = MatrixProductState.from_product([np.array([1.0, 0])] * 8)
        b = MatrixProductState.from_product([rotated] + [np.array([1.0, 0])] * 7)
        dense = [state.to_dense(qubit_order="big") for state in (a, b)]
        for x in (a, dense[0], dense[0].reordered("little")):
            for y in (b, dense[1]):
                assert metrics.trace_distance(x, y) == pytest.approx(angle, rel=1e-3, abs=2e-16)
                assert metrics.bures_angle(x, y) == pytest.approx(angle, rel=1e-3, abs=2e-16)
                assert metrics.bures_distance(x, y) == pytest.approx(angle, rel=1e-3, abs=2e-16)

    def test_single_precision_is_accumulated_in_double(self) -> None:
        rng = np.random.default_rng(0)
        values = rng.normal(size=(2, 1 << 19)).astype(np.complex64)
        a, b = (StateVector(v, qubit_order="big") for v in values)
        x, y = values.astype(complex)
        assert metrics.overlap(a, b) == pytest.approx(np.vdot(x, y) / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
        assert metrics.fidelity(a, a) == pytest.approx(1, abs=1e-14)

    def test_big_states_are_compared_in_bounded_memory(self) -> None:
        a = StateVector(np.full(1 << 21, 1, np.complex64), qubit_order="big")
        b = StateVector(np.full(1 << 21, 1j, np.complex64), qubit_order="little")
        product = MatrixProductState.from_product([np.array([1, 1], np.complex64)] * 21)
        tracemalloc.start()
        assert metrics.overlap(a, b) == pytest.approx(1j)
        assert metrics.fidelity(b, product) == pytest.approx(1)
        assert metrics.trace_distance(a, product) == pytest.approx(0, abs=1e-12)
        assert metrics.l1_coherence(b) == pytest.approx(2**21 - 1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 24 << 20

    def test_matrix_product_states_far_too_long_to_be_dense(self) -> None:
        zeros = MatrixProductState.from_product([np.array([2.0, 0])] * 100)
        tilted = MatrixProductState.from_product([np.array([3.0, 0.03])] * 100)
        expected = 1 / (1 + 1e-4) ** 100
        assert metrics.fidelity(zeros, tilted) == pytest.approx(expected)
        assert metrics.trace_distance(zeros, tilted) == pytest.approx(math.sqrt(1 - expected))
        assert metrics.meyer_wallach(tilted) == pytest.approx(0, abs=1e-12)
        assert metrics.von_neumann_entropy(tilted, sites=range(50)) == pytest.approx(0, abs=1e-12)
        with pytest.raises(BudgetError):
            metrics.l1_coherence(tilted)


class TestWrongAnswersOnceGiven:
    def test_a_global_phase_is_no_distance(self) -> None:
        a = vector(12, 5)
        b = StateVector(a.amplitudes * np.exp(1.1j), qubit_order=a.qubit_order)
        for x, y in ((a, b), (MatrixProductState.from_dense(a), MatrixProductState.from_dense(b))):
            assert metrics.trace_distance(x, y) < 1e-13
            assert metrics.fidelity(x, y) == pytest.approx(1, abs=1e-13)

    def test_trace_distance_is_at_most_one(self) -> None:
        distance = metrics.trace_distance(vector(12, 1), vector(12, 2))
        assert 0.999 < distance <= 1
        zero, one = (StateVector(np.eye(2)[k], qubit_order="big") for k in (0, 1))
        assert metrics.trace_distance(zero, one) == 1
        assert metrics.bures_distance(zero, one) == pytest.approx(math.sqrt(2))
        assert metrics.bures_angle(zero, one) == pytest.approx(math.pi / 2)

    def test_plus_states(self) -> None:
        for state in (plus(8), MatrixProductState.from_dense(plus(8)), plus(8).to_density_matrix()):
            assert metrics.purity(state) == pytest.approx(1)
            assert metrics.purity(state, 3) == pytest.approx(1)
            assert metrics.l1_coherence(state) == pytest.approx(255)
        assert metrics.meyer_wallach(plus(8)) == pytest.approx(0, abs=1e-14)
        zero = StateVector(np.eye(16)[0], qubit_order="big")
        assert metrics.l1_coherence(zero) == 0

    def test_ghz_states(self) -> None:
        for state in (ghz(8), MatrixProductState.from_dense(ghz(8))):
            assert metrics.meyer_wallach(state) == pytest.approx(1)
            assert metrics.purity(state, [2, 5]) == pytest.approx(0.5)
            assert metrics.von_neumann_entropy(state, sites=[2, 5]) == pytest.approx(1)

    def test_meyer_wallach_by_its_first_definition(self) -> None:
        # Q = 4/n sum_k D(u, v), D = |u|^2 |v|^2 - |<u|v>|^2 with u, v the halves where qubit k is 0 and 1.
        state = vector(5, 9, "big")
        total = 0.0
        for k in range(5):
            u, v = np.moveaxis(state.amplitudes.reshape([2] * 5), k, 0).reshape(2, -1)
            total += np.vdot(u, u).real * np.vdot(v, v).real - abs(np.vdot(u, v)) ** 2
        assert metrics.meyer_wallach(state) == pytest.approx(4 * total / 5)

    def test_classical_fidelity_is_blind_to_phases_and_state_fidelity_is_not(self) -> None:
        values = np.zeros(16)
        values[[0, -1]] = 1, -1
        minus = StateVector(values, qubit_order="big")
        assert metrics.classical_fidelity(minus.probabilities(), ghz(4).probabilities()) == pytest.approx(1)
        assert metrics.fidelity(minus, ghz(4)) == pytest.approx(0, abs=1e-15)


class TestClassicalFidelity:
    def test_it_is_the_fidelity_of_diagonal_matrices_and_of_qiskit(self) -> None:
        rng = np.random.default_rng(3)
        p, q = rng.dirichlet(np.ones(8), size=2)
        rho, sigma = (DensityMatrix(np.diag(x), qubit_order="big") for x in (p, q))
        expected = qi.hellinger_fidelity(dict(enumerate(p)), dict(enumerate(q)))
        assert metrics.classical_fidelity(p, q) == pytest.approx(expected)
        assert metrics.classical_fidelity(1000 * p, q) == pytest.approx(metrics.fidelity(rho, sigma))
        assert metrics.classical_fidelity([1, 3], [10, 30]) == pytest.approx(1)
        assert metrics.classical_fidelity([1, 0], [0, 1]) == 0

    @pytest.mark.parametrize(
        ("p", "q"),
        [([1, 0], [1, 0, 0]), ([1, -1], [1, 0]), ([0, 0], [1, 0]), ([1, np.nan], [1, 0]), ([1, np.inf], [1, 0])],
    )
    def test_what_is_no_distribution_is_refused(self, p: list[float], q: list[float]) -> None:
        with pytest.raises(InvalidStateError):
            metrics.classical_fidelity(p, q)


class TestRefusals:
    def test_states_that_have_no_metrics(self) -> None:
        good = ghz(2)
        zero = StateVector(np.zeros(4), qubit_order="big")
        nan = StateVector(np.array([1, np.nan, 0, 0]), qubit_order="big")
        infinite = StateVector(np.array([1, np.inf, 0, 0]), qubit_order="big")
        flat = MatrixProductState.from_product([np.zeros(2), np.ones(2)])
        traceless = DensityMatrix(np.zeros((4, 4)), qubit_order="big")
        skew = DensityMatrix(np.triu(np.ones((4, 4))), qubit_order="big")
        for bad in (zero, nan, infinite, flat, traceless, skew):
            for metric in PAIR_METRICS:
                for pair in ((good, bad), (bad, good), (bad, good.to_density_matrix())):
                    with pytest.raises(InvalidStateError):
                        metric(*pair)
            with pytest.raises(InvalidStateError):
                metrics.purity(bad)
            with pytest.raises(InvalidStateError):
                metrics.l1_coherence(bad)
        negative = DensityMatrix(np.diag([1.5, -0.5, 0, 0]), qubit_order="big")
        with pytest.raises(InvalidStateError, match="eigenvalue"):
            metrics.fidelity(negative, good.to_density_matrix())

    def test_unstated_orders_compare_only_with_each_other(self) -> None:
        a = StateVector(ghz(3).amplitudes, qubit_order="unstated")
        assert metrics.fidelity(a, a) == pytest.approx(1)
        assert metrics.trace_distance(a, a.to_density_matrix()) == pytest.approx(0, abs=1e-12)
        assert metrics.l1_coherence(a) == pytest.approx(1)
        for other in (ghz(3), ghz(3).to_density_matrix(), MatrixProductState.from_dense(ghz(3))):
            for pair in ((a, other), (other, a)):
                with pytest.raises(InvalidStateError, match="with_qubit_order"):
                    metrics.fidelity(*pair)

    def test_different_sites_do_not_compare(self) -> None:
        with pytest.raises(InvalidStateError, match="dims"):
            metrics.fidelity(ghz(3), ghz(2))
        with pytest.raises(InvalidStateError, match="dims"):
            metrics.overlap(ghz(2), StateVector(np.ones(4), qubit_order="big", dims=(4,)))
        named = [StateVector(ghz(2).amplitudes, qubit_order="big", labels=names) for names in (["a", "b"], ["b", "a"])]
        with pytest.raises(InvalidStateError, match="labelled"):
            metrics.fidelity(*named)
        assert metrics.fidelity(named[0], ghz(2)) == pytest.approx(1)

    def test_matrices_stay_within_the_budget(self) -> None:
        rho, pure = ghz(4).to_density_matrix(), ghz(4)
        assert metrics.trace_distance(rho, pure, max_bytes=2048) == pytest.approx(0, abs=1e-12)
        for metric in PAIR_METRICS:
            with pytest.raises(BudgetError):
                metric(rho, pure, max_bytes=2047)
        with pytest.raises(BudgetError):
            metrics.purity(ghz(8), [0, 2, 4, 6], max_bytes=2047)

    def test_meyer_wallach_is_for_pure_qubits(self) -> None:
        for state in (ghz(2).to_density_matrix(), StateVector(np.ones(3), qubit_order="big", dims=(3,))):
            with pytest.raises(InvalidStateError, match="Meyer-Wallach"):
                metrics.meyer_wallach(state)  # type: ignore[arg-type]

    def test_density_matrices_have_no_overlap(self) -> None:
        with pytest.raises(InvalidStateError, match="pure"):
            metrics.overlap(ghz(2), ghz(2).to_density_matrix())  # type: ignore[arg-type]

"""The PAD-Ry code: exact round trips, errors as theory has them, superpositions, similarity, its description."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

from quantum_memory.encoding.entangler import Entangler
from quantum_memory.encoding.measurement import measure
from quantum_memory.encoding.noise import KrausChannel, NoiseModel, ReadoutError
from quantum_memory.encoding.pad_encoding import PADEncoding
from quantum_memory.errors import InvalidStateError, UnsupportedVersionError
from quantum_memory.state.emotional_state import ANCHORS, PAD
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import StateVector

CORNERS = list(itertools.product([-1.0, 1.0], repeat=3))
AMBIVALENT = [(1, ANCHORS[name]) for name in ("joy", "sadness", "fear", "anger")]
coordinates = st.floats(-1, 1) | st.sampled_from(
    [-1.0, 1.0, 0.0, -1 + 2**-53, 1 - 2**-53, 1 - 1e-9, -1 + 1e-12, 1e-300]
)
points = st.tuples(coordinates, coordinates, coordinates)


def ring(n):
    phases = tuple(("CP", (qubit, (qubit + 1) % n), 0.1 + qubit) for qubit in range(n))
    return Entangler(n, (*Entangler.cnot_chain(n).gates, *phases, ("X", (0,)), ("Rz", (1,), 0.3), ("CZ", (n - 1, 0))))


def entanglers(n):
    return [Entangler.none(n), Entangler.cnot_chain(n), ring(n)]


def assert_reads(reading, pad, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(reading.pad), pad, rtol=0, atol=tolerance)
    assert reading.standard_error == (0.0, 0.0, 0.0)
    assert reading.shots is None


@pytest.mark.parametrize("entangler", entanglers(27), ids=["none", "chain", "ring"])
@settings(max_examples=15)
@given(point=points)
def test_round_trip_at_27_qubits(entangler, point):
    code = PADEncoding(27, entangler=entangler)
    assert_reads(code.decode(code.encode(point)), point)


@pytest.mark.parametrize("entangler", entanglers(9), ids=["none", "chain", "ring"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("point", [*CORNERS, (0.3, -0.7, 0.999999999), (-1 + 1e-12, 1 - 1e-12, 0.0)])
def test_round_trip_through_a_dense_state(entangler, order, point):
    code = PADEncoding(9, (4, 3, 2), entangler)
    dense = code.encode(point).to_dense(qubit_order=order)
    assert_reads(code.decode(dense), point)
    assert_reads(code.decode(dense.to_density_matrix()), point, 1e-7)  # amplitudes below 1e-8 vanish when squared


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_single_precision_is_kept_and_read_to_its_own_precision(dtype):
    code = PADEncoding(27, entangler=Entangler.cnot_chain(27))
    state = code.encode((1.0, -0.9999, 0.25), dtype=dtype)
    assert state.dtype == dtype
    assert_reads(code.decode(state), (1.0, -0.9999, 0.25), 2e-6)


def test_a_change_of_gauge_does_not_cost_digits():
    code = PADEncoding(27, entangler=Entangler.cnot_chain(27))
    point = (1 - 1e-10, -1 + 3e-12, 1.0)
    rng = np.random.default_rng(0)
    tensors = list(code.encode(point).tensors)
    for bond in range(26):
        rotation, _ = np.linalg.qr(rng.normal(size=(2, 2)))
        tensors[bond] = tensors[bond] @ rotation
        tensors[bond + 1] = np.tensordot(rotation.T, tensors[bond + 1], 1)
    assert_reads(code.decode(MatrixProductState(tensors)), point)


def test_it_is_the_circuit_of_the_definition():
    code = PADEncoding(7, (3, 2, 2), Entangler.cnot_chain(7))
    point = (0.3, -0.8, 0.55)
    circuit = QuantumCircuit(7)
    for register, x in zip(code.register_slices, point, strict=True):
        for qubit in range(7)[register]:
            circuit.ry(np.pi * (1 - x) / 2, qubit)
    for qubit in range(6):
        circuit.cx(qubit, qubit + 1)
    ours = code.encode(point).to_dense(qubit_order="little").amplitudes
    np.testing.assert_allclose(ours, Statevector(circuit).data, atol=1e-15)


def test_registers_are_as_even_as_possible_unless_asked():
    assert PADEncoding().registers == (9, 9, 9)
    assert [PADEncoding(n).registers for n in (3, 4, 5, 28)] == [(1, 1, 1), (2, 1, 1), (2, 2, 1), (10, 9, 9)]
    old = PADEncoding(27, (10, 9, 8))
    assert old.register_slices == (slice(0, 10), slice(10, 19), slice(19, 27))
    assert_reads(old.decode(old.encode((0.1, 0.2, -0.3))), (0.1, 0.2, -0.3))
    assert PADEncoding(27).encode((0, 0, 0)).max_bond_dim == 1
    assert PADEncoding(27, entangler=Entangler.cnot_chain(27)).encode((0.1, 0.2, 0.3)).bond_dims == (2,) * 26


@pytest.mark.parametrize("n", [3, 9, 27])
def test_sampling_error_is_what_theory_says(n):
    rng = np.random.default_rng(n)
    code, trials, shots = PADEncoding(n), 600, 1024
    errors, claimed = [], []
    for point in rng.uniform(-1, 1, (trials, 3)):
        reading = code.decode_bits(code.encode(point).sample(shots, rng))
        errors.append(np.asarray(reading.pad) - point)
        claimed.append(reading.standard_error)
    theory = 2 / np.pi / np.sqrt(n / 3 * shots)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(theory, rel=0.05)
    assert np.mean(claimed) == pytest.approx(theory, rel=0.03)
    assert np.min(claimed) >= theory * (1 - 1e-12)


def test_at_the_ends_the_standard_error_is_that_of_independent_qubits():
    code = PADEncoding(27)
    reading = code.decode_bits(code.encode((1, -1, 1)).sample(1024, 0))
    assert tuple(reading.pad) == (1, -1, 1)
    assert reading.standard_error == pytest.approx([2 / np.pi / np.sqrt(9 * 1024)] * 3)
    assert code.decode_bits(np.zeros((1, 27), dtype=np.uint8)).standard_error[0] == pytest.approx(2 / np.pi / 3)


def test_correlated_outcomes_have_a_larger_error_than_independent_ones():
    code = PADEncoding(27)
    cat = code.superpose([(1, (0.9, 0, 0)), (1, (-0.9, 0, 0))])
    reading = code.decode_bits(cat.sample(1024, 0))
    assert reading.standard_error[0] > 2.5 * reading.standard_error[1]
    assert reading.confidence == 1 - 1.96 * max(reading.standard_error)
    assert code.decode(cat).confidence == 1.0


@pytest.mark.parametrize(
    ("e0", "e1", "chain", "raw", "mitigated"),
    [
        (0.005, 0.005, False, 0.0156, 0.0071),
        (0.02, 0.05, False, 0.0774, 0.0111),
        (0.03, 0.03, True, 0.1070, 0.0156),
        (0.02, 0.05, True, 0.1130, 0.0170),
    ],
)
def test_readout_mitigation_removes_the_bias(e0, e1, chain, raw, mitigated):
    code = PADEncoding(27, entangler=Entangler.cnot_chain(27) if chain else None)
    error, rng = ReadoutError(e0, e1), np.random.default_rng(11)
    points = rng.uniform(-0.92, 0.92, (120, 3))
    before, after, claimed = [], [], []
    for point in points:
        bits = error.apply_to_bits(code.encode(point).sample(1024, rng), rng)
        before.append(np.asarray(code.decode_bits(bits).pad) - point)
        corrected = code.decode_bits(bits, readout=error)
        assert corrected.mitigated
        after.append(np.asarray(corrected.pad) - point)
        claimed.append(corrected.standard_error)
    rmse = np.sqrt(np.mean(np.square(after)))
    assert np.sqrt(np.mean(np.square(before))) == pytest.approx(raw, rel=0.15)
    assert rmse == pytest.approx(mitigated, rel=0.15)
    assert abs(np.mean(after)) < 0.0015
    assert np.sqrt(np.mean(np.square(claimed))) == pytest.approx(rmse, rel=0.2)


def test_noise_on_the_qubits_is_corrected_like_a_readout_error():
    code = PADEncoding(27, entangler=Entangler.cnot_chain(27))
    noise = NoiseModel(
        (KrausChannel.depolarizing(0.05), KrausChannel.amplitude_damping(0.05)), ReadoutError(0.01, 0.03)
    )
    record = measure(code.encode((0.5, -0.4, 0.2)), 20_000, seed=3, noise=noise)
    assert np.abs(np.asarray(code.decode_bits(record.bits).pad) - (0.5, -0.4, 0.2)).max() > 0.05
    reading = code.decode_bits(record.bits, readout=noise.outcome_error(27))
    np.testing.assert_allclose(np.asarray(reading.pad), (0.5, -0.4, 0.2), atol=0.015)


@pytest.mark.parametrize("entangler", entanglers(27), ids=["none", "chain", "ring"])
def test_superposition_of_four_emotions(entangler):
    code = PADEncoding(27, entangler=entangler)
    state = code.superpose(AMBIVALENT)
    assert state.norm() == pytest.approx(1, abs=1e-12)
    reading = code.decode(state)
    np.testing.assert_allclose(np.asarray(reading.pad), [-0.287, 0.331, -0.055], atol=5e-4)
    overlap = code.encode(ANCHORS["fear"]).inner(code.encode(ANCHORS["anger"]))
    assert abs(overlap) == pytest.approx(0.247, abs=5e-4)
    if entangler == Entangler.cnot_chain(27):
        assert (state.max_bond_dim, state.nbytes < 25_000) == (8, True)
        assert state.entropies().max() == pytest.approx(1.58, abs=0.005)


def test_superposition_in_a_dense_state_reads_the_same():
    code = PADEncoding(12, entangler=ring(12))
    state = code.superpose([(1, ANCHORS["joy"]), (-0.5 + 1j, ANCHORS["fear"]), (0.3j, (1, -1, 0))])
    assert state.dtype == np.complex128
    for order in ("little", "big"):
        dense = state.to_dense(qubit_order=order)
        for ours, theirs in zip(code.hamming_histograms(state), code.hamming_histograms(dense), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-14)
    assert_reads(code.decode(state), np.asarray(code.decode(dense).pad))


def test_ambivalence_is_two_modes_in_the_histogram_and_none_in_a_single_emotion():
    code = PADEncoding(27, entangler=Entangler.cnot_chain(27))

    def modes(histogram):
        padded = np.concatenate([[0], histogram, [0]])
        return int(((padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:])).sum())

    torn, calm = code.superpose([(1, (0.9, 0, 0)), (1, (-0.9, 0, 0))]), code.encode((0, 0, 0))
    assert [modes(h) for h in code.hamming_histograms(torn)] == [2, 1, 1]
    assert [modes(h) for h in code.hamming_histograms(calm)] == [1, 1, 1]
    binomial = [math.comb(9, k) / 512 for k in range(10)]
    np.testing.assert_allclose(code.hamming_histograms(calm)[0], binomial, atol=1e-15)
    sampled = code.hamming_histograms(torn.sample(20_000, 0))
    for exact, seen in zip(code.hamming_histograms(torn), sampled, strict=True):
        np.testing.assert_allclose(seen, exact, atol=0.015)


@given(points, points)
def test_similarity_is_the_fidelity_of_the_codes(x, y):
    code = PADEncoding(5, (1, 3, 1))
    overlap = abs(code.encode(x).inner(code.encode(y))) ** 2
    assert code.similarity(x, y) == pytest.approx(overlap, abs=1e-12)


def test_similarity_has_the_widths_of_the_reference():
    assert PADEncoding(27).similarity((0, 0, 0), (0.35, 0, 0)) == pytest.approx(0.5, abs=0.01)
    assert [PADEncoding(n).similarity((0, 0, 0), (0.5, 0, 0)) for n in (3, 9, 27)] == pytest.approx(
        [0.854, 0.622, 0.240], abs=1e-3
    )
    assert PADEncoding(3).similarity((1, 0, 0), (-1, 0, 0)) == pytest.approx(0, abs=1e-30)


def test_opposite_emotions_do_not_look_alike():
    code = PADEncoding(27)
    assert code.decode(code.encode((0.5, 0.5, 0.5))).pad.distance(PAD(-0.5, -0.5, -0.5)) > 1.7


@pytest.mark.parametrize("entangler", entanglers(5), ids=["none", "chain", "ring"])
def test_the_description_is_json_and_complete(entangler):
    code = PADEncoding(5, (1, 2, 2), entangler)
    assert PADEncoding.from_json(json.loads(json.dumps(code.to_json()))) == code
    with pytest.raises(UnsupportedVersionError, match="version 2"):
        PADEncoding.from_json(code.to_json() | {"version": 2})
    with pytest.raises(InvalidStateError, match="does not describe an encoding"):
        PADEncoding.from_json({k: v for k, v in code.to_json().items() if k != "registers"})
    with pytest.raises(InvalidStateError, match="does not describe an encoding"):
        PADEncoding.from_json(code.to_json() | {"registers": ["1", "2", "2"]})


def test_what_does_not_fit_is_refused():
    code = PADEncoding(6)
    with pytest.raises(InvalidStateError, match="registers"):
        PADEncoding(2)
    with pytest.raises(InvalidStateError, match="registers"):
        PADEncoding(27, (9, 9, 8))
    with pytest.raises(InvalidStateError, match="entangler of 5"):
        PADEncoding(6, entangler=Entangler.cnot_chain(5))
    with pytest.raises(InvalidStateError, match=r"arousal -1\.5 is outside"):
        code.encode((0, -1.5, 0))
    with pytest.raises(InvalidStateError, match="complex and does not fit float64"):
        PADEncoding(6, entangler=ring(6)).encode((0, 0, 0), dtype="float64")
    with pytest.raises(InvalidStateError, match="cancel"):
        code.superpose([(1, (0, 0, 0)), (-1, (0, 0, 0))])
    with pytest.raises(InvalidStateError, match="cancel"):
        code.superpose([])
    with pytest.raises(InvalidStateError, match="no code of 6"):
        code.decode(PADEncoding(5).encode((0, 0, 0)))
    with pytest.raises(InvalidStateError, match="shape"):
        code.decode_bits(np.zeros((3, 5), dtype=int))
    with pytest.raises(InvalidStateError, match="one shot"):
        code.decode_bits(np.zeros((1, 6), dtype=int), readout=ReadoutError(0.1, 0.1))
    with pytest.raises(InvalidStateError, match="zero or not finite"):
        code.decode(StateVector(np.zeros(64), qubit_order="big"))
    with pytest.raises(InvalidStateError, match="zero or not finite"):
        code.decode(StateVector(np.full(64, np.nan), qubit_order="big"))
    with pytest.raises(InvalidStateError, match="not stated"):
        code.decode(StateVector(np.ones(64), qubit_order="unstated"))


def test_the_norm_of_a_state_does_not_matter():
    code = PADEncoding(6, entangler=Entangler.cnot_chain(6))
    state = code.encode((0.2, -0.5, 0.9))
    assert_reads(
        code.decode(StateVector(7 * state.to_dense(qubit_order="big").amplitudes, qubit_order="big")), (0.2, -0.5, 0.9)
    )
    assert_reads(code.decode(MatrixProductState(state.tensors, log_scale=900.0)), (0.2, -0.5, 0.9))

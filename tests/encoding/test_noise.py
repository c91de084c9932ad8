"""Channels and readout errors: closed forms, agreement with Qiskit, trajectories and outcomes that average right."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qiskit.quantum_info import DensityMatrix as QiskitDensityMatrix
from qiskit.quantum_info import Kraus

from quantum_memory.encoding.noise import KrausChannel, NoiseModel, ReadoutError
from quantum_memory.errors import InvalidStateError
from quantum_memory.state.matrix_product_state import MatrixProductState
from quantum_memory.state.quantum_state import DensityMatrix, StateVector

CHANNELS = {
    "depolarizing": KrausChannel.depolarizing,
    "dephasing": KrausChannel.dephasing,
    "amplitude_damping": KrausChannel.amplitude_damping,
}
Y_ROTATION = KrausChannel([[[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]], "rotation")
S_GATE = KrausChannel([np.diag([1, 1j])], "S")


def random_state(n, seed=0, order="little", dtype=np.complex128):
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=2**n) + (1j * rng.normal(size=2**n) if np.dtype(dtype).kind == "c" else 0)
    return StateVector((amplitudes / np.linalg.norm(amplitudes)).astype(dtype), qubit_order=order)


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.07, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "coherence", "z_after"),
    [
        ("depolarizing", lambda p: 1 - p, lambda z, p: (1 - p) * z),
        ("dephasing", lambda p: 1 - p, lambda z, p: z),
        ("amplitude_damping", lambda p: np.sqrt(1 - p), lambda z, p: (1 - p) * z + p),
    ],
)
def test_closed_forms(name, coherence, z_after, rate):
    rho = random_state(1, seed=4).to_density_matrix()
    after = CHANNELS[name](rate).apply(rho, 0)
    z, z_noisy = (m.expectation(np.diag([1, -1]), 0).real for m in (rho, after))
    assert z_noisy == pytest.approx(z_after(z, rate), abs=4e-16)
    assert after.matrix[0, 1] == pytest.approx(coherence(rate) * rho.matrix[0, 1], abs=4e-16)
    assert after.trace() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("name", [*CHANNELS, "S"])
@pytest.mark.parametrize("site", [0, 1, 3])
def test_a_channel_on_one_of_four_qubits_is_that_of_qiskit(name, order, site):
    channel = S_GATE if name == "S" else CHANNELS[name](0.3)
    rho = random_state(4, seed=site, order=order).to_density_matrix()
    theirs = QiskitDensityMatrix(rho.reordered("little").matrix).evolve(Kraus(list(channel.operators)), [site]).data
    np.testing.assert_allclose(channel.apply(rho, site).reordered("little").matrix, theirs, atol=1e-15)


def test_dtype_and_labels_are_kept():
    state = random_state(3, dtype=np.float32)
    rho = DensityMatrix(np.outer(state, state), qubit_order="big", labels=["a", "b", "c"])
    after = KrausChannel.depolarizing(0.2).apply(rho, 1)
    assert (after.dtype, after.labels, after.qubit_order) == (np.float32, ("a", "b", "c"), "big")
    rng = np.random.default_rng(0)
    assert KrausChannel.depolarizing(1.0).trajectory(state, 0, rng).dtype == np.float32
    with pytest.raises(InvalidStateError, match="makes a real state complex"):
        S_GATE.apply(rho, 0)


@pytest.mark.parametrize("kind", ["dense", "mps"])
@pytest.mark.parametrize("name", list(CHANNELS))
def test_trajectories_average_to_the_density_matrix(name, kind):
    model = NoiseModel((CHANNELS[name](0.4),))
    state = random_state(2, seed=7, order="big")
    expected = model.apply(state.to_density_matrix()).matrix
    rng = np.random.default_rng(5)
    runs = 1500
    total = np.zeros((4, 4), dtype=complex)
    for _ in range(runs):
        branch = state if kind == "dense" else MatrixProductState.from_dense(state)
        for site in range(2):
            branch = model.channels[0].trajectory(branch, site, rng)
        dense = branch if kind == "dense" else branch.to_dense(qubit_order="big")
        total += np.outer(dense.amplitudes, dense.amplitudes.conj())
    assert np.linalg.norm(total / runs - expected) < 0.04  # two standard deviations: sqrt(1/1500) is .026
    assert np.linalg.norm(state.to_density_matrix().matrix - expected) > 0.1


def test_a_trajectory_takes_each_branch_with_its_probability():
    one = StateVector(np.array([0.0, 1.0]), qubit_order="big")
    rng = np.random.default_rng(1)
    decayed = [KrausChannel.amplitude_damping(0.3).trajectory(one, 0, rng).amplitudes[0] == 1 for _ in range(2000)]
    assert np.mean(decayed) == pytest.approx(0.3, abs=0.03)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_outcomes_pass_through_the_matrix_that_the_density_matrix_says(p, g, e0, e1):
    model = NoiseModel((KrausChannel.depolarizing(p), KrausChannel.amplitude_damping(g)), ReadoutError(e0, e1))
    error = model.outcome_error(1)
    for bit in (0, 1):
        rho = DensityMatrix(np.diag([1.0 - bit, float(bit)]), qubit_order="big")
        one = model.apply(rho).probabilities()[1]
        expected = one * (1 - e1) + (1 - one) * e0
        assert (1 - error.e1[0] if bit else error.e0[0]) == pytest.approx(expected, abs=1e-14)


def test_noisy_bits_of_an_entangled_state_are_distributed_as_those_of_the_noisy_state():
    state = random_state(3, seed=3, order="big")
    model = NoiseModel(
        (KrausChannel.dephasing(0.5), KrausChannel.amplitude_damping(0.2)), ReadoutError((0.1, 0.0, 0.3), 0.05)
    )
    flips = [np.array([[1 - e0, 0.05], [e0, 0.95]]) for e0 in (0.1, 0.0, 0.3)]
    expected = np.einsum(
        "ai,bj,ck,ijk->abc", *flips, model.apply(state.to_density_matrix()).probabilities().reshape(2, 2, 2)
    )
    rng = np.random.default_rng(9)
    bits = model.apply_to_bits(state.sample(40_000, rng), rng)
    frequencies = np.bincount(bits @ [4, 2, 1], minlength=8) / len(bits)
    np.testing.assert_allclose(frequencies, expected.reshape(-1), atol=0.01)


def test_readout_flips_are_those_of_each_qubit():
    error = ReadoutError((0.0, 1.0, 0.25), (1.0, 0.0, 0.0))
    bits = np.repeat([[0, 0, 0], [1, 1, 1]], 4000, axis=0).astype(np.uint8)
    read = error.apply_to_bits(bits, np.random.default_rng(0))
    assert set(map(tuple, read[:4000, :2].tolist())) == {(0, 1)}
    assert set(map(tuple, read[4000:].tolist())) == {(0, 1, 1)}
    assert read[:4000, 2].mean() == pytest.approx(0.25, abs=0.02)


def test_json_keeps_every_bit():
    model = NoiseModel((KrausChannel.amplitude_damping(1 / 3), S_GATE), ReadoutError((0.1, 1 / 7), 0.02))
    again = NoiseModel.from_json(json.loads(json.dumps(model.to_json())))
    assert again == model
    assert NoiseModel.from_json(NoiseModel().to_json()) == NoiseModel() != model


def test_what_is_no_channel_is_refused():
    with pytest.raises(InvalidStateError, match="do not preserve the trace"):
        KrausChannel([0.9 * np.eye(2)])
    with pytest.raises(InvalidStateError, match=r"shape \(k, 2, 2\)"):
        KrausChannel(np.eye(2))
    with pytest.raises(InvalidStateError, match="do not preserve the trace"):
        KrausChannel([[[np.nan, 0], [0, 1]]])
    with pytest.raises(InvalidStateError, match="not a probability"):
        KrausChannel.depolarizing(1.1)
    with pytest.raises(InvalidStateError, match="not a probability"):
        ReadoutError(float("nan"), 0.1)
    with pytest.raises(InvalidStateError, match="readout error is not that of 3 qubits"):
        ReadoutError((0.1, 0.2), 0.1).apply_to_bits(np.zeros((5, 3)), np.random.default_rng(0))
    with pytest.raises(InvalidStateError, match="describe"):
        NoiseModel.from_json({"channels": []})


def test_a_rotation_is_no_map_of_outcomes():
    with pytest.raises(InvalidStateError, match="coherences into populations"):
        Y_ROTATION.transition_matrix()
    np.testing.assert_allclose(
        KrausChannel.amplitude_damping(0.2).transition_matrix(), [[1, 0.2], [0, 0.8]], atol=1e-15
    )


def test_the_qubit_must_exist_and_its_place_be_known():
    with pytest.raises(InvalidStateError):
        KrausChannel.dephasing(0.1).apply(random_state(2).to_density_matrix(), 2)
    with pytest.raises(InvalidStateError, match="not stated"):
        KrausChannel.dephasing(0.1).apply(random_state(2, order="unstated").to_density_matrix(), 0)

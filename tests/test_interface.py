"""The interface: what goes in comes out, what is saved is all of it, and a failed load changes nothing."""

import copy
import json
import math

import numpy as np
import pytest
import torch

import quantum_memory as qm
from quantum_memory import QuantumClassicalInterface
from quantum_memory.encoding.entangler import Entangler
from quantum_memory.encoding.noise import KrausChannel, NoiseModel, ReadoutError
from quantum_memory.errors import BudgetError, IntegrityError, InvalidStateError, UnsupportedVersionError
from quantum_memory.state.pad import ANCHORS, PADScale


@pytest.fixture
def lived(tmp_path):
    """An interface that has encoded, measured and travelled."""
    noise = NoiseModel((KrausChannel.depolarizing(0.01),), ReadoutError(0.02, 0.05))
    interface = QuantumClassicalInterface(12, registers=(5, 4, 3), entangler="cnot_chain", noise=noise)
    interface.encode([0.76, 0.48, 0.35])
    interface.encode([0.7, 0.4, 0.3])
    interface.decode(shots=300, seed=1)
    interface.decode(shots=301, seed=2)
    interface.trajectory([-0.5, 0.1, 0.2], 5)
    interface.metadata["subject"] = "7"
    return interface


def everything(interface):
    return interface.to_memory(), interface.get_interface_status(), list(interface.cache), interface.created_at


def test_the_mission_s_usage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    interface = QuantumClassicalInterface(n_qubits=27)
    interface.encode([0.76, 0.48, 0.35])
    reading = interface.decode()
    assert np.abs(np.array(tuple(reading.pad)) - [0.76, 0.48, 0.35]).max() <= 1e-12
    assert reading.standard_error == (0.0, 0.0, 0.0)
    sampled = interface.decode(shots=1024, seed=7)
    assert sampled == interface.decode(shots=1024, seed=7)
    assert all(0.006 < error < 0.008 for error in sampled.standard_error)
    interface.save_state("quantum_state.json")
    interface.save_state_compressed("quantum_state.json")
    assert (tmp_path / "quantum_state.json.zlib").exists()
    for name in ("quantum_state.json", "quantum_state.json.zlib"):
        other = QuantumClassicalInterface(n_qubits=27)
        other.load_state(name)
        assert everything(other) == everything(interface)


@pytest.mark.parametrize("suffix", [".json", ".json.zlib", ".qms"])
def test_everything_is_saved_and_comes_back(lived, tmp_path, suffix):
    path = tmp_path / f"state{suffix}"
    lived.save_state(path)
    fresh = QuantumClassicalInterface(12)
    fresh.load_state(path)
    assert everything(fresh) == everything(lived)
    assert fresh.encoding == lived.encoding
    assert fresh.noise == lived.noise
    assert everything(QuantumClassicalInterface.from_file(path)) == everything(lived)
    assert qm.load(path) == lived.to_memory()


def test_the_json_says_what_the_mission_asks_for(lived, tmp_path):
    path = tmp_path / "state.json"
    lived.save_state(path)
    content = json.loads(path.read_text())
    assert content["version"] == "2.0"
    assert content["metadata"] == {"version": "2.0", "n_qubits": 12, "subject": "7"}
    record = content["record"]
    assert record["saved_at"].endswith("Z")
    assert record["saved_at"] >= record["created_at"]
    assert len(record["quantum_state_checksum"]) == len(content["sha256"]) == 64
    figures = record["compression_metrics"]
    assert figures["original_size_bytes"] == 16 * 2**12
    assert figures["compressed_size_bytes"] == lived.state.nbytes
    assert figures["compression_ratio"] == 1 - lived.state.nbytes / (16 * 2**12)
    fidelities = record["fidelity_metrics"]
    assert fidelities["state_fidelity"] == pytest.approx(1, abs=1e-12)
    assert len(fidelities["measurement_fidelities"]) == 2
    assert fidelities["min_fidelity"] <= fidelities["average_fidelity"] <= fidelities["max_fidelity"] <= 1
    assert len(content["emotional_context"]["recent_emotions"]) == 2
    assert len(content["classical_data"]["measurement_cache"]["records"]) == 2


def test_saving_twice_is_the_same_content(lived, tmp_path):
    first, second = (lived.save_state(tmp_path / name) for name in ("a.json", "b.qms"))
    assert first.content_id == second.content_id


@pytest.mark.parametrize("pad", [[1.01, 0, 0], [0, -1.5, 0], [0, 0, math.nan], [0, 0], [0, 0, math.inf]])
def test_values_out_of_range_are_refused_and_change_nothing(lived, pad):
    before = everything(lived)
    with pytest.raises(InvalidStateError):
        lived.encode(pad)
    with pytest.raises(InvalidStateError):
        lived.superpose([(1, [0, 0, 0]), (1, pad)])
    assert everything(lived) == before


def test_another_scale_is_converted_when_it_is_named():
    interface = QuantumClassicalInterface(9)
    interface.encode([3.44, 3.0, 3.22], scale=PADScale.LIKERT5)
    assert tuple(interface.decode().pad) == pytest.approx((0.22, 0.0, 0.11), abs=1e-14)


def test_a_superposition_shows_both_modes_and_its_terms_are_saved(tmp_path):
    interface = QuantumClassicalInterface(27)
    interface.superpose([(1, ANCHORS["joy"]), (1j, ANCHORS["sadness"])])
    pleasure = np.array(interface.decode().histograms[0])
    assert pleasure[:3].sum() > 0.4
    assert pleasure[3:6].sum() < 0.1
    assert pleasure[6:].sum() > 0.4
    interface.save_state(tmp_path / "both.json")
    other = QuantumClassicalInterface.from_file(tmp_path / "both.json")
    assert other.get_interface_status()["fidelity_metrics"]["state_fidelity"] == pytest.approx(1, abs=1e-12)
    assert everything(other) == everything(interface)


def test_the_superposition_of_one_is_the_code_itself():
    one, two = QuantumClassicalInterface(9), QuantumClassicalInterface(9)
    one.encode([0.1, 0.2, 0.3])
    two.superpose([(2.0, [0.1, 0.2, 0.3])])
    assert one.distances(two)["trace_distance"] < 1e-12


def test_mitigation_removes_the_bias_of_the_readout():
    noise = NoiseModel(readout=ReadoutError(0.02, 0.05))
    interface = QuantumClassicalInterface(27, noise=noise)
    interface.encode([0.5, -0.4, 0.2])
    truth = np.array([0.5, -0.4, 0.2])
    raw = np.mean([tuple(interface.decode(1024, seed, mitigate=False).pad) for seed in range(20)], axis=0) - truth
    mended = np.mean([tuple(interface.decode(1024, seed).pad) for seed in range(20)], axis=0) - truth
    assert np.abs(raw).max() > 0.02
    assert np.abs(mended).max() < 0.01


def test_noise_on_the_state_itself_lowers_its_fidelity_as_is_said():
    interface = QuantumClassicalInterface(9, noise=NoiseModel((KrausChannel.depolarizing(0.9),)))
    interface.encode([0.1, 0.2, 0.3])
    interface.apply_noise(seed=3)
    fidelity = interface.get_interface_status()["fidelity_metrics"]["state_fidelity"]
    ideal = interface.encoding.encode([0.1, 0.2, 0.3])
    assert fidelity == pytest.approx(qm.metrics.fidelity(interface.state, ideal), abs=1e-12)
    assert fidelity < 0.999
    assert interface.state.norm() == pytest.approx(1, abs=1e-12)


def test_dense_is_made_on_request_and_within_a_budget():
    interface = QuantumClassicalInterface(27)
    with pytest.raises(BudgetError, match=str(8 << 27)):
        interface.dense(max_bytes=(8 << 27) - 1)
    small = QuantumClassicalInterface(9, entangler="cnot_chain")
    small.encode([0.3, -0.2, 0.1])
    dense = small.dense(qubit_order="little")
    assert dense.dtype == np.complex64
    assert tuple(small.encoding.decode(dense).pad) == pytest.approx((0.3, -0.2, 0.1), abs=1e-5)


def test_distances_agree_with_the_closed_form():
    interface = QuantumClassicalInterface(27)
    interface.encode(ANCHORS["fear"])
    found = interface.distances(ANCHORS["anger"])
    assert found["fidelity"] == pytest.approx(
        interface.encoding.similarity(ANCHORS["fear"], ANCHORS["anger"]), rel=1e-10
    )
    assert found["trace_distance"] == pytest.approx(math.sqrt(1 - found["fidelity"]), rel=1e-10)
    assert found["pad_distance"] == pytest.approx(ANCHORS["fear"].distance(ANCHORS["anger"]), rel=1e-12)
    assert interface.distances(ANCHORS["fear"])["trace_distance"] < 1e-12


@pytest.mark.parametrize("kind", ["pad-geodesic", "fubini-study"])
def test_trajectories_begin_here_and_end_there(kind):
    interface = QuantumClassicalInterface(9)
    interface.encode([0.8, -0.4, 0.7])
    path = interface.trajectory([-0.5, 0.8, -0.3], 5, kind=kind)
    assert path.pad[0] == pytest.approx([0.8, -0.4, 0.7], abs=1e-12)
    assert path.pad[-1] == pytest.approx([-0.5, 0.8, -0.3], abs=1e-12)
    assert interface.emotion.trajectory is path


def test_the_cache_keeps_the_newest():
    interface = QuantumClassicalInterface(6, cache_size=3)
    for shots in range(1, 6):
        interface.decode(shots=shots, seed=0)
    assert [record.shots for record in interface.cache] == [3, 4, 5]
    assert len(interface.get_interface_status()["fidelity_metrics"]["measurement_fidelities"]) == 3


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def test_the_network_is_part_of_what_is_saved(tmp_path):
    interface = QuantumClassicalInterface(6, network=network())
    interface.encode([0.1, 0.2, 0.3])
    answer = interface.process()
    interface.save_state(tmp_path / "with.json")
    torch.manual_seed(99)
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    loaded = QuantumClassicalInterface.from_file(tmp_path / "with.json", network=other)
    assert loaded.network is other
    assert torch.equal(loaded.process(), answer)
    tree = QuantumClassicalInterface.from_file(tmp_path / "with.json").network
    assert list(tree) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert everything(loaded)[0] == everything(interface)[0]


def test_weights_that_do_not_fit_leave_network_and_interface_as_they_were(tmp_path):
    QuantumClassicalInterface(6, network=network()).save_state(tmp_path / "with.json")
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 5))
    interface = QuantumClassicalInterface(6, network=other)
    interface.encode([0.1, 0.2, 0.3])
    before, weights = everything(interface), copy.deepcopy(other.state_dict())
    with pytest.raises(InvalidStateError, match="do not fit"):
        interface.load_state(tmp_path / "with.json")
    assert everything(interface) == before
    assert all(torch.equal(weights[name], value) for name, value in other.state_dict().items())


def test_a_plain_function_is_a_network_too():
    interface = QuantumClassicalInterface(6, network={"bias": np.ones(3)})
    with pytest.raises(InvalidStateError, match="called"):
        interface.process()
    interface.network = np.sum
    interface.encode([0.1, 0.2, 0.3])
    assert interface.process() == pytest.approx(0.6)


@pytest.mark.parametrize("suffix", [".json", ".json.zlib", ".qms"])
def test_a_failed_load_changes_nothing(lived, tmp_path, suffix):
    path = tmp_path / f"state{suffix}"
    QuantumClassicalInterface(12).save_state(path)
    whole = path.read_bytes()
    before = everything(lived)
    for position in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises((IntegrityError, UnsupportedVersionError)):
            lived.load_state(path)
        assert everything(lived) == before


def test_a_memory_that_is_no_interface_is_refused(lived, tmp_path):
    before = everything(lived)
    qm.save(np.ones(4) / 2, tmp_path / "other.json")
    with pytest.raises(IntegrityError, match="not the state of an interface"):
        lived.load_state(tmp_path / "other.json")
    tampered = lived.to_memory()
    tampered.classical["interface_config"]["encoding"]["registers"] = [4, 4, 3]
    qm.save(tampered, tmp_path / "tampered.qms")
    with pytest.raises(IntegrityError):
        lived.load_state(tmp_path / "tampered.qms")
    tampered.metadata["version"] = "3.0"
    qm.save(tampered, tmp_path / "newer.qms")
    with pytest.raises((UnsupportedVersionError, IntegrityError)):
        lived.load_state(tmp_path / "newer.qms")
    QuantumClassicalInterface(6).save_state(tmp_path / "six.json")
    with pytest.raises(InvalidStateError, match="from_file"):
        lived.load_state(tmp_path / "six.json")
    assert everything(lived) == before


def test_unknown_entanglers_and_trajectories_are_refused(lived):
    with pytest.raises(InvalidStateError, match="cnot_chain"):
        QuantumClassicalInterface(6, entangler="ring")
    with pytest.raises(InvalidStateError, match="fubini-study"):
        lived.trajectory([0, 0, 0], 3, kind="straight")
    with pytest.raises(InvalidStateError, match="noise model"):
        QuantumClassicalInterface(6).apply_noise()
    assert QuantumClassicalInterface(6, entangler=Entangler.cnot_chain(6)).encoding.entangler.gates


@pytest.mark.parametrize("key", ["version", "n_qubits"])
def test_keys_of_our_own_in_the_metadata_are_refused_when_they_are_saved(lived, tmp_path, key):
    lived.metadata[key] = "mine"
    with pytest.raises(InvalidStateError, match=key):
        lived.save_state(tmp_path / "state.json")
    assert not list(tmp_path.iterdir())


def test_the_context_stays_on_its_own_scale():
    interface = QuantumClassicalInterface(9)
    interface.emotion = qm.EmotionalContext(scale=PADScale.UNIT)
    interface.encode([-0.7, 0.2, 0.3])
    assert interface.emotion.recent_emotions[-1].pad == pytest.approx((0.15, 0.6, 0.65))
    assert tuple(interface.emotion.pad) == (-0.7, 0.2, 0.3)
    path = interface.trajectory([0.7, 0.2, 0.3], 3)
    assert path.pad[:, 0] == pytest.approx([-0.7, 0, 0.7])
    assert interface.emotion.trajectory.pad[:, 0] == pytest.approx([0.15, 0.5, 0.85])


def test_a_network_stays_when_the_file_brings_none(tmp_path):
    QuantumClassicalInterface(6).save_state(tmp_path / "without.json")
    interface = QuantumClassicalInterface(6)
    interface.network = np.sum
    interface.load_state(tmp_path / "without.json")
    assert interface.network is np.sum


def test_an_interrupt_stays_an_interrupt(tmp_path):
    class Slow(torch.nn.Linear):
        calls = 0

        def load_state_dict(self, *arguments, **options):
            Slow.calls += 1
            if Slow.calls == 1:
                raise KeyboardInterrupt
            return super().load_state_dict(*arguments, **options)

    QuantumClassicalInterface(6, network=torch.nn.Linear(3, 2)).save_state(tmp_path / "with.json")
    interface = QuantumClassicalInterface(6, network=Slow(3, 2))
    with pytest.raises(KeyboardInterrupt):
        interface.load_state(tmp_path / "with.json")


def test_mitigation_takes_the_channels_out_as_well():
    noise = NoiseModel((KrausChannel.depolarizing(0.05), KrausChannel.amplitude_damping(0.1)), ReadoutError(0.02, 0.05))
    interface = QuantumClassicalInterface(27, noise=noise)
    interface.encode([0.3, -0.2, 0.6])
    readings = [interface.decode(4096, seed) for seed in range(10)]
    mean = np.mean([tuple(reading.pad) for reading in readings], axis=0)
    assert np.abs(mean - [0.3, -0.2, 0.6]).max() < 3 * readings[0].standard_error[0] / math.sqrt(10) + 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda i: QuantumClassicalInterface(27.0),
        lambda i: QuantumClassicalInterface("27"),
        lambda i: QuantumClassicalInterface(6, noise=KrausChannel.depolarizing(0.1)),
        lambda i: i.superpose([[0.1, 0.2, 0.3]]),
        lambda i: i.superpose([([0.1, 0.2, 0.3], 1)]),
        lambda i: i.encode([0, 0, 0], scale="likert"),
        lambda i: i.decode(shots=1.5),
        lambda i: i.decode(shots=-1),
        lambda i: i.decode(shots=5, seed=-1),
    ],
)
def test_wrong_arguments_are_our_errors(wrong):
    with pytest.raises(InvalidStateError):
        wrong(QuantumClassicalInterface(6))


def test_the_history_of_saves_says_what_they_cost(tmp_path):
    interface = QuantumClassicalInterface(n_qubits=12)
    assert interface.save_history == []
    interface.encode([0.1, 0.2, 0.3])
    files = [tmp_path / name for name in ("a.json", "b.qms", "c.h5")]
    for file in files:
        interface.save_state(file)
    history = interface.save_history
    assert [one["path"] for one in history] == [str(file) for file in files]
    for one, file in zip(history, files, strict=True):
        assert one["file_bytes"] == file.stat().st_size
        assert one["dense_bytes"] == 16 << 12
        assert one["ratio"] == (16 << 12) / file.stat().st_size
        assert one["bits_per_real"] == file.stat().st_size * 8 / (2 << 12)
    status = interface.get_interface_status()
    assert status["compression_metrics"]["compressed_size_bytes"] == interface.state.nbytes


def test_a_memory_is_given_back(lived):
    memory, now = lived.to_memory(), everything(lived)
    lived.encode([0.5, 0.5, 0.5])
    lived.metadata["new"] = True
    lived.restore_memory(memory)
    assert everything(lived) == now
    with pytest.raises(InvalidStateError, match="12 qubits"):
        QuantumClassicalInterface(3).restore_memory(memory)

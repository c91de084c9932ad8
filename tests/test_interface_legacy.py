"""An interface goes on with what the first implementation saved; the old file is only read."""

import hashlib
import json
import math
import shutil
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import quantum_memory as qm
from quantum_memory import QuantumClassicalInterface
from quantum_memory.errors import IntegrityError, InvalidStateError

LEGACY = Path(__file__).parent / "data" / "legacy"
STATES = sorted([*LEGACY.glob("json_v[12]/*.json"), *LEGACY.glob("json_zlib/*.json.zlib")])


def document(path):
    data = path.read_bytes()
    if path.suffix == ".zlib":
        data = zlib.decompress(data[4 + int.from_bytes(data[:4], "little") :])
    return json.loads(data)


def written(tmp_path, **parts):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"interface_config": {"n_qubits": 3}, "measurement_cache": [], **parts}))
    return path


def measured(counts, **state):
    return {"state": {"pad_values": [0.5, 0.5, 0.5], **state}, "measurements": counts}


@pytest.fixture(params=STATES, ids=lambda path: path.name)
def old(request, tmp_path):
    """Return the path of a copy of an old file, with its archive beside it."""
    shutil.copytree(request.param.parent, tmp_path / "states")
    return tmp_path / "states" / request.param.name


def test_an_old_file_is_loaded_and_stays_as_it_is(old):
    saved = document(old)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in old.parent.iterdir()}
    interface = QuantumClassicalInterface(saved["interface_config"]["n_qubits"])
    interface.load_state(old)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in old.parent.iterdir()} == files
    cache = saved["measurement_cache"]
    assert [record.counts() for record in interface.cache] == [dict(Counter(item["measurements"])) for item in cache]
    assert [record.timestamp for record in interface.cache] == [item["state"]["timestamp"] for item in cache]
    emotions = [one.pad for one in interface.emotion.recent_emotions]
    assert emotions == [
        (p, 2 * a - 1, 2 * d - 1) for p, a, d in (x["state"]["pad_values"] for x in cache[-len(emotions) :])
    ]
    assert interface.created_at is None
    status = interface.get_interface_status()
    given = [item["state"]["measurement_fidelity"] for item in cache]
    assert status["fidelity_metrics"]["measurement_fidelities"] == given[-10:]
    json.dumps(status)


def test_nothing_of_an_old_file_is_lost(old):
    saved = document(old)
    interface = QuantumClassicalInterface.from_file(old)
    migrated = qm.VersionManager().migrate(saved)
    weights = migrated.pop("classical_network_state", {})
    metadata, kept = dict(interface.metadata), dict(interface.metadata["first_implementation"])
    if "migration_info" in migrated["metadata"] and "migration_info" not in saved.get("metadata", {}):
        for info in (metadata["migration_info"], migrated["metadata"]["migration_info"]):
            assert (info["migrated_from"], info["migrated_to"]) == ("1.0", "2.0")
            del info["migration_date"]
    del metadata["first_implementation"], migrated["metadata"]["version"]
    kept.pop("_quantum.npz", None)
    assert metadata == migrated.pop("metadata")
    assert kept == migrated
    assert {name: one.tolist() for name, one in (interface.network or {}).items()} == weights


def test_the_archive_beside_it_is_the_state(tmp_path):
    for path in LEGACY.glob("json_v2/v2_n3_mps*"):
        shutil.copy(path, tmp_path)
    interface = QuantumClassicalInterface.from_file(tmp_path / "v2_n3_mps.json")
    dense = np.load(LEGACY / "expected" / "v2_n3_mps_mps.npy")
    assert np.allclose(interface.dense().amplitudes, dense, atol=1e-6)
    assert interface.state.dtype == np.complex64
    status = interface.get_interface_status()
    assert (status["terms"], status["fidelity_metrics"]["state_fidelity"]) == (0, None)  # nobody knows what was encoded


def test_without_an_archive_the_last_measured_point_is_held(tmp_path):
    path = written(
        tmp_path, measurement_cache=[measured({"111": 2}), measured({"101": 1}, pad_values=[-0.5, 0.25, 1.0])]
    )
    interface = QuantumClassicalInterface.from_file(path)
    assert np.allclose(interface.decode().pad, [-0.5, -0.5, 1.0], atol=1e-14)


def test_of_27_qubits_the_registers_are_the_old_ones(tmp_path):
    interface = QuantumClassicalInterface(27)
    interface.load_state(written(tmp_path, interface_config={"n_qubits": 27}))
    assert interface.encoding.registers == (10, 9, 8)
    assert interface.decode().pad.distance(qm.PAD(0, 0, 0)) < 1e-14


def test_weights_go_to_a_network_of_the_same_shape():
    path = LEGACY / "json_v2" / "v2_n3_mps.json"
    layers = [torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(64, 32), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(32, 3))
    interface = QuantumClassicalInterface(3, network=network)
    interface.load_state(path)
    for name, weights in document(path)["classical_network_state"].items():
        assert network.state_dict()[name].tolist() == weights
    other = torch.nn.Sequential(torch.nn.Linear(8, 3))
    with pytest.raises(InvalidStateError, match="do not fit"):
        QuantumClassicalInterface(3, network=other).load_state(path)


def test_what_was_loaded_is_saved_in_the_current_version(old, tmp_path):
    interface = QuantumClassicalInterface.from_file(old)
    interface.save_state(tmp_path / "new.qms")
    again = QuantumClassicalInterface(interface.n_qubits)
    again.load_state(tmp_path / "new.qms")
    assert again.to_memory().content_id == interface.to_memory().content_id
    assert again.created_at is None
    again.encode([0.25, -0.5, 0.75])
    assert math.dist(again.decode().pad, [0.25, -0.5, 0.75]) < 1e-12


def test_a_migrated_file_is_loaded_as_the_old_one(old):
    before = QuantumClassicalInterface.from_file(old)
    qm.MigrationUtilities().batch_migrate_directory(old.parent, continue_on_error=True)
    assert qm.info(old)["version"] == "2.0"
    after = QuantumClassicalInterface.from_file(old)
    for one in (before, after):
        one.metadata.get("migration_info", {}).pop("migration_date", None)
    assert after.to_memory().content_id == before.to_memory().content_id


def test_the_digest_of_the_source_is_noted(tmp_path):
    old = document(LEGACY / "json_v1" / "v1_n5_no_network.json")
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    info = QuantumClassicalInterface.from_file(path).metadata["migration_info"]
    text = json.dumps(old, sort_keys=True, separators=(",", ":"))
    assert info["source_sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "parts",
    [
        {"interface_config": {"n_qubits": 2}},
        {"interface_config": {"n_qubits": "3"}},
        {"interface_config": {"n_qubits": 10**9}},
        {"interface_config": []},
        {"measurement_cache": [measured({"11": 2})]},
        {"measurement_cache": [measured({"112": 2})]},
        {"measurement_cache": [measured({"111": 10**12})]},
        {"measurement_cache": [measured({"111": -1})]},
        {"measurement_cache": [measured({})]},
        {"measurement_cache": [{"measurements": {"111": 1}}]},
        {"measurement_cache": [measured({"111": 1}, measurement_fidelity=2.0)]},
        {"measurement_cache": [measured({"111": 1}, measurement_fidelity=[])]},
        {"measurement_cache": "none"},
    ],
    ids=repr,
)
def test_what_is_no_state_of_an_interface_is_refused_and_changes_nothing(tmp_path, parts):
    interface = QuantumClassicalInterface(3)
    interface.encode([0.5, 0.5, 0.5])
    before = interface.to_memory().content_id
    with pytest.raises(IntegrityError, match=r"old\.json"):
        interface.load_state(written(tmp_path, **parts))
    assert interface.to_memory().content_id == before


def test_a_state_of_a_store_is_no_state_of_an_interface():
    with pytest.raises(IntegrityError, match="no state of an interface"):
        QuantumClassicalInterface.from_file(LEGACY / "hdf5" / "h_n3_gzip.h5")

"""Whatever the first implementation wrote comes back as the list of its files says, bit for bit."""

import hashlib
import json
import shutil

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability.files import ReadableBytes, ReadableFile
from quantum_memory.errors import InvalidStateError, MissingError
from quantum_memory.formats import legacy

from .fixtures import DATA, FIXTURES, KINDS, WHOLE, read


def paths(entries):
    return [entry["path"] for entry in entries]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def expected(entry):
    return next(iter(entry["expect"].values())) if entry["kind"] == "hdf5" else entry["expect"]


@pytest.fixture(params=WHOLE, ids=paths(WHOLE))
def whole(request):
    entry = request.param
    return entry, read(DATA / entry["path"], allow_pickle=True)


def test_the_kind_is_recognised_and_recorded(whole):
    entry, found = whole
    assert found.kind == KINDS[entry["kind"]]
    noted = dict(found.memory.record["legacy"])
    assert ("text_sha256" in noted) == ("json" in found.kind)
    noted.pop("text_sha256", None)
    assert noted == {"kind": found.kind, "version": found.version}
    if entry["kind"].startswith("json"):
        assert found.version == entry["version"]


def test_the_state_is_bit_for_bit_what_was_saved(whole):
    entry, found = whole
    wanted = expected(entry).get("state_vector")
    if wanted is None:
        assert found.memory.quantum is None or "sidecar" in entry or "undetectable_in_legacy_format" in entry["expect"]
        return
    state = found.memory.quantum
    assert state.qubit_order == "big"
    assert state.dtype == expected(entry).get("stored_dtype", state.dtype)
    assert sha256(state.amplitudes.astype("<c16").tobytes()) == wanted["sha256_of_complex128_le_bytes"]
    if "npy" in wanted:
        assert np.array_equal(state.amplitudes, np.load(DATA / wanted["npy"]))


def test_the_archive_beside_a_state_gives_its_tensors(whole):
    entry, found = whole
    if "sidecar" not in entry:
        return
    wanted, state = entry["sidecar"], found.memory.quantum
    digests = [sha256(tensor.tobytes()) for tensor in state.tensors]
    assert digests == wanted["tensors_sha256_of_complex64_le_bytes"]
    dense = np.load(DATA / wanted["state_vector(contracted,atol 1e-6)"]["npy"])
    assert np.allclose(state.to_dense(qubit_order="big").amplitudes, dense, atol=1e-6)
    facts = found.memory.classical["_quantum.npz"]
    assert (facts["bond_dimension"], facts["cache_hits"]) == (wanted["bond_dimension"], wanted["cache_hits"])
    assert facts["metadata"]["created_at"] == "2025-06-30T12:00:00"


def test_the_classical_part_is_what_was_saved(whole):
    entry, found = whole
    wanted, tree = expected(entry), found.memory.classical
    if "n_cache" in wanted:
        states = [item["state"] for item in tree["measurement_cache"]]
        assert len(states) == wanted["n_cache"]
        assert [one["pad_values"] for one in states] == wanted.get("pad_values", [])
        assert [one["confidence"] for one in states] == wanted.get("confidences", [])
        config = tree["interface_config"]
        assert config == {key: wanted[key] for key in config}
        keys = ("pad_values", "confidence", "timestamp", "metadata", "measurement_fidelity")
        rows = [{key: item["state"][key] for key in keys} | {"measurements": item["measurements"]}
                for item in tree["measurement_cache"]]  # fmt: skip
        if "measurement_cache_canonical_sha256" in wanted:
            text = json.dumps(rows, sort_keys=True, separators=(",", ":"))
            assert sha256(text.encode()) == wanted["measurement_cache_canonical_sha256"]
    else:
        for name in (
            "pad_values",
            "confidence",
            "measurement_cache",
            "emotional_context",
            "probabilities",
            "timestamp",
        ):
            if name in wanted:
                assert plain(tree[name]) == wanted[name], name
    for name in ("compression_metrics", "fidelity_metrics", "tensor_memory_stats", "bond_dimension"):
        if name in wanted:
            assert tree[name] == wanted[name], name
    if "metadata" in wanted:
        assert found.memory.metadata == wanted["metadata"]


def test_weights_are_float32_with_the_bits_that_were_saved(whole):
    entry, found = whole
    for name, wanted in expected(entry).get("classical_network", {}).items():
        weights = found.memory.classical["classical_network_state"][name]
        assert weights.dtype == np.float32
        assert list(weights.shape) == wanted["shape"]
        assert sha256(weights.tobytes()) == wanted["sha256_of_float32_le_bytes"]


def test_tensors_beside_a_vector_are_kept(whole):
    entry, found = whole
    if isinstance(wanted := expected(entry).get("mps_tensors"), list):
        tensors = found.memory.classical["mps_tensors"]
        assert [list(tensor.shape) for tensor in tensors] == [one["shape"] for one in wanted]
        digests = [sha256(tensor.astype("<c16").tobytes()) for tensor in tensors]
        assert digests == [one["sha256_of_complex128_le_bytes"] for one in wanted]


def test_it_is_saved_in_our_own_format_with_the_same_identity(whole, tmp_path):
    _, found = whole
    for suffix in ("qms", "json"):
        if suffix == "json" and getattr(found.memory.quantum, "nbytes", 0) > 1 << 20:
            continue
        path = tmp_path / f"again.{suffix}"
        qm.save(found.memory, path)
        assert qm.load(path).content_id == found.memory.content_id


def test_notes_say_what_is_odd():
    notes = {entry["path"]: " ".join(read(DATA / entry["path"], allow_pickle=True).notes) for entry in WHOLE}
    assert "the norm is 1.0003" in notes["damaged/qms_bitflip_none.qms"]
    assert "no checksum" in notes["qms/q_n3_none.qms"]
    assert "matches its SHA-256" in notes["hdf5/h_n3_gzip.h5"]
    assert "no archive of tensors" in notes["json_v1/v1_minimal.json"]
    assert "no archive of tensors" not in notes["json_v2/v2_n3_mps.json"]
    assert "torch tensor" in notes["serializer/s_n3_json.json"]


def test_all_kinds_are_among_the_fixtures():
    assert {KINDS[entry["kind"]] for entry in FIXTURES} == set(KINDS.values())


def test_what_is_ours_is_not_taken_for_legacy(tmp_path):
    for suffix in ("qms", "json", "json.zlib"):
        path = tmp_path / f"state.{suffix}"
        qm.save(np.ones(2), path)
        data = path.read_bytes()
        assert legacy.recognise(data[:4096], str(path), len(data)) is None


def test_an_archive_of_tensors_is_read_by_itself_too(tmp_path):
    for name in ("json_v1/v1_n3_mps_quantum.npz", "json_zlib/z_n3_mps_quantum.npz.zlib"):
        found = read(DATA / name)
        assert (found.kind, found.memory.quantum.n_sites) == ("interface-npz", 3)


def test_copies_that_a_backup_or_a_migration_left_are_states(tmp_path):
    backup = read(DATA / "others" / "v1_n3_backup_20261122_112704.json.zlib")
    assert (backup.kind, backup.version) == ("interface-json-zlib", "1.0")
    copy = tmp_path / "v1.json.backup_20261122_112648"
    shutil.copyfile(DATA / "json_v1" / "v1_n5_no_network.json", copy)
    assert read(copy).version == "1.0"


def test_a_store_is_read_by_the_ids_of_its_states(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "store.h5"
    shutil.copyfile(DATA / "hdf5" / "h_n3_none.h5", path)
    with h5py.File(path, "a") as file:
        file.copy("quantum_states/20250630_120003_000000", "quantum_states/second")
        del file["quantum_states/second/classical_data/measurement_cache"]
    with ReadableFile(str(path)) as source:
        assert legacy.ids(source) == ["20250630_120003_000000", "second"]
    with pytest.raises(InvalidStateError, match="2 states"):
        read(path)
    with pytest.raises(MissingError, match="third"):
        read(path, state_id="third")
    found = read(path, state_id="second")
    assert "not in the index" in " ".join(found.notes)
    assert found.memory.quantum == read(path, state_id="20250630_120003_000000").memory.quantum
    with pytest.raises(InvalidStateError, match="only a store"):
        read(DATA / "qms" / "q_n3_none.qms", state_id="second")


def test_nothing_is_lost_that_json_of_python_can_say():
    text = '{"interface_config":{"n_qubits":1},"a":[NaN,-Infinity,-0.0,1e400000],"state_vector":1,"$x":"\\ud800"}'
    tree = legacy.read(ReadableBytes(text.replace("1e400000", "12345678901234567890123").encode())).memory
    assert tree.classical["a"][3] == 12345678901234567890123
    assert np.isnan(tree.classical["a"][0])
    assert str(tree.classical["a"][2]) == "-0.0"
    assert qm.MemoryState.unflatten(*tree.flatten()) == tree


def test_weights_that_are_no_float32_become_float64_and_others_stay_lists():
    text = (
        '{"interface_config":{},"classical_network_state":{"a":[[0.1,0.2]],"b":[[1.0],[2.0,3.0]],"c":[1,2.0],"d":[]}}'
    )
    weights = legacy.read(ReadableBytes(text.encode())).memory.classical["classical_network_state"]
    assert weights["a"].dtype == np.float64
    assert weights["a"].tolist() == [[0.1, 0.2]]
    assert [weights[key] for key in "bcd"] == [[[1.0], [2.0, 3.0]], [1, 2.0], []]

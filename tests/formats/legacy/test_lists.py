"""Registries and reports of the first implementation are read as memories without a quantum state."""

import hashlib
import json
import zlib

import pytest

import quantum_memory as qm
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats import legacy
from quantum_memory.formats.legacy import lists

from .fixtures import DATA, read
from .test_damaged import packed

REPORT = {
    "directory": "states",
    "target_version": "2.0",
    "dry_run": False,
    "start_time": "2026-11-22T11:26:48.100000",
    "files_processed": 2,
    "files_migrated": 1,
    "files_failed": 0,
    "files_skipped": 1,
    "details": [{"file": "states/a.json", "status": "migrated"}],
    "end_time": "2026-11-22T11:26:48.200000",
}
LISTS = {
    "others/checkpoint_registry.json": "checkpoint-registry",
    "checkpoints/n5/checkpoint_registry.json": "checkpoint-registry",
    "others/checkpoint_20261122_112700_650_metadata.json": "checkpoint-entry",
    "others/backup_metadata.json": "backup-registry",
    "checkpoints/n5/backups/backup_metadata.json": "backup-registry",
}


def read_text(text):
    return legacy.read(ReadableBytes(text.encode(), "list.json"))


@pytest.mark.parametrize(("name", "kind"), LISTS.items())
def test_all_that_a_list_says_is_there_under_its_own_names(name, kind, tmp_path):
    found = read(DATA / name)
    text = (DATA / name).read_bytes()
    assert found.kind == kind
    assert found.memory.quantum is None
    assert found.memory.metadata == {}
    assert found.memory.classical == json.loads(text)
    assert found.memory.record["legacy"] == {
        "kind": kind,
        "version": None,
        "text_sha256": hashlib.sha256(text).hexdigest(),
    }
    for suffix in ("json", "qms"):
        qm.save(found.memory, tmp_path / f"new.{suffix}")
        again = qm.load(tmp_path / f"new.{suffix}")
        assert again == found.memory
        assert again.record["legacy"] == found.memory.record["legacy"]


def test_a_report_is_read_and_nothing_is_made_of_its_numbers():
    text = json.dumps(REPORT | {"files_failed": float("nan"), "x": [-0.0, 2**70, "é", None]})
    found = read_text(text)
    assert found.kind == "migration-report"
    assert json.dumps(found.memory.classical) == text
    assert any("no quantum state" in note for note in found.notes)


def test_every_verb_takes_a_list(tmp_path):
    path = DATA / "others/checkpoint_registry.json"
    assert set(qm.load(path).classical) == set(json.loads(path.read_text()))
    assert qm.info(path)["format"] == "legacy checkpoint-registry"
    assert any("the registry of a folder of checkpoints" in one for one in qm.verify(path).problems)
    qm.convert(path, tmp_path / "new.qms")
    assert qm.compare(path, tmp_path / "new.qms").same_content


def test_a_list_in_a_packed_backup_is_read():
    text = json.dumps(REPORT).encode()
    found = legacy.read(ReadableBytes(packed(text), "r_backup.json.zlib"))
    assert found.kind == "migration-report"
    assert found.memory.record["legacy"]["text_sha256"] == hashlib.sha256(text).hexdigest()


def test_a_state_that_has_keys_of_a_list_is_a_state():
    found = read_text('{"interface_config":{"n_qubits":1},"backups":{},"rotation_history":[]}')
    assert found.kind == "interface-json"


def test_a_registry_that_was_cut_short_when_it_was_written_says_what_to_do():
    text = (
        '{\n  "checkpoints": {\n    "20261122_112704_348": {\n      "id": "20261122_112704_348",\n      "timestamp": '
    )
    with pytest.raises(IntegrityError, match="each of which is read by itself") as caught:
        read_text(text)
    assert caught.value.path == "list.json"
    assert ".json files beside it" in caught.value.next_step
    for other in (text[:-1], text + "1", '{"backups": {"a": {"timestamp": '):
        with pytest.raises(IntegrityError, match="damaged or cut short"):
            read_text(other)


def test_a_list_is_no_document_of_the_interface():
    for keys, what in (
        ({"checkpoints": {}, "checkpoint_history": []}, "the registry of a folder of checkpoints"),
        ({"backups": {}, "rotation_history": []}, "the list of a folder of backups"),
        (REPORT, "the report of a migration"),
        ({"state_hash": "", "file_path": ""}, "what is noted about a checkpoint"),
    ):
        with pytest.raises(InvalidStateError, match=what):
            qm.VersionManager().get_version(keys)


@pytest.mark.parametrize(
    "name", ["json_v1/v1_n3_mps.json", "json_zlib/z_n3_mps.json.zlib", "serializer/s_n3_json.json"]
)
def test_json_says_by_which_digest_lists_know_it(name, tmp_path):
    data = (DATA / name).read_bytes()
    text = zlib.decompress(data[4 + int.from_bytes(data[:4], "little") :]) if name.endswith("zlib") else data
    found = read(DATA / name)
    assert found.memory.record["legacy"]["text_sha256"] == hashlib.sha256(text).hexdigest()
    qm.convert(DATA / name, tmp_path / "new.qms")
    assert qm.load(tmp_path / "new.qms").record["legacy"] == found.memory.record["legacy"]


def test_only_last_parts_of_the_paths_in_a_list_count():
    paths = {
        "a/b.json": "b.json",
        r"C:\old\c.json": "c.json",
        "/var/d": "d",
        "../../e": "e",
        "..": None,
        "f/": None,
        "": None,
        "g\0h": None,
    }
    table = {path: {"checksum": "AB"} for path in paths} | {"x": None, "y": {"checksum": 1}}
    named = list(lists.named_by({"backups": table}, "backup-registry", "list.json"))
    assert named == [(name, "ab") for name in paths.values() if name is not None]
    assert list(lists.named_by({"checkpoints": [1]}, "checkpoint-registry", "list.json")) == []
    entry = {"state_hash": "cd", "file_path": "/lost/1.json"}
    assert list(lists.named_by(entry, "checkpoint-entry", "checkpoint_1_metadata.json")) == [
        ("checkpoint_1.json", "cd")
    ]
    registry = {"checkpoints": {"1": entry, "2": {"file_path": 3, "state_hash": "ef"}}}
    assert list(lists.named_by(registry, "checkpoint-registry", "list.json")) == [("1.json", "cd")]
    assert list(lists.named_by(REPORT, "migration-report", "list.json")) == []

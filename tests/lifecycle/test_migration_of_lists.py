"""Registries, kept copies and names that no suffix of today has: what is migrated, and what a plan says before."""

import hashlib
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import InvalidStateError
from quantum_memory.formats import legacy
from quantum_memory.lifecycle.migration.names import kept_copy_of, may_be_ours, new_ids, target_of
from quantum_memory.lifecycle.migration.survey import count_entries

from ..formats.legacy.fixtures import DATA, read
from .trees import WORKPLACE, grown, listing

UTILS = qm.MigrationUtilities()
COPY = "v1.json.backup_20261122_112648"


def text_in(path):
    data = path.read_bytes()
    return zlib.decompress(data[4 + int.from_bytes(data[:4], "little") :])


def by_path(tree, **options):
    return {entry.path: entry for _, entry in UTILS.generate_migration_plan(tree, **options).entries()}


def warnings(entry, about="which it names"):
    return [one for one in entry.warnings if about in one or "SHA-256 is another" in one]


@pytest.fixture(params=["n3", "n5"])
def checkpoints(tmp_path, request):
    """A folder of checkpoints: the files that its registry names are in its backups, too."""
    place = tmp_path / request.param
    shutil.copytree(DATA / "checkpoints" / request.param, place)
    for entry in json.loads((place / "checkpoint_registry.json").read_text())["checkpoints"].values():
        for backup in (place / "backups").glob("*.zlib"):
            if hashlib.sha256(text := text_in(backup)).hexdigest() == entry["state_hash"]:
                (place / f"{entry['id']}.json").write_bytes(text)
    return place


@pytest.fixture
def copies(tmp_path):
    """A folder of backups that are plain copies, and one of each kind of list."""
    place = tmp_path / "copies"
    shutil.copytree(DATA / "others", place)
    listed = json.loads((place / "backup_metadata.json").read_text())
    for backup in place.glob("*.json.zlib"):
        backup.with_suffix("").write_bytes(text_in(backup))
        backup.unlink()
    listed["backups"] = {path.removesuffix(".zlib"): facts for path, facts in listed["backups"].items()}
    (place / "backup_metadata.json").write_text(json.dumps(listed))
    return place


# ---- lists


def test_a_registry_still_knows_its_checkpoints_when_all_are_migrated(checkpoints):
    before = listing(checkpoints)
    plan = UTILS.generate_migration_plan(checkpoints)
    assert not any(warnings(entry) for _, entry in plan.entries())
    done = UTILS.apply_migration_plan(plan)
    assert (done.migrated, plan.totals.leave, plan.totals.damaged) == (plan.count, 0, 0)
    registry = qm.load(checkpoints / "checkpoint_registry.json")
    old = json.loads(before["checkpoint_registry.json"][0])
    assert registry.classical == old
    assert registry.record["legacy"]["kind"] == "checkpoint-registry"
    assert len(old["checkpoints"]) == 4
    for entry in registry.classical["checkpoints"].values():
        record = qm.load(checkpoints / f"{entry['id']}.json").record
        assert record["migration"]["sha256"] == record["legacy"]["text_sha256"] == entry["state_hash"]
    backups = qm.load(checkpoints / "backups/backup_metadata.json").classical["backups"]
    assert len(backups) == 4
    for path, facts in backups.items():
        backup = checkpoints / "backups" / Path(path).name
        assert qm.load(backup).record["legacy"]["text_sha256"] == facts["checksum"]
    for path in before:
        if "_quantum.npz" not in path:
            kept = checkpoints / WORKPLACE / plan.id / "originals" / path
            assert UTILS.verify_migration(kept, checkpoints / path)
            qm.verify(checkpoints / path)
    UTILS.rollback_migration(checkpoints)
    assert listing(checkpoints) == before


def test_backups_that_are_plain_copies_keep_the_link_too(copies):
    UTILS.batch_migrate_directory(copies)
    backups = qm.load(copies / "backup_metadata.json").classical["backups"]
    assert len(backups) == 3
    for path, facts in backups.items():
        record = qm.load(copies / Path(path).name).record
        assert record["migration"]["sha256"] == record["legacy"]["text_sha256"] == facts["checksum"]


def test_a_plan_says_what_a_registry_names_and_is_not_there(checkpoints):
    registry = json.loads((checkpoints / "checkpoint_registry.json").read_text())
    first, second, third, _ = sorted(registry["checkpoints"])
    (checkpoints / f"{first}.json").unlink()
    with (checkpoints / f"{second}.json").open("ab") as file:
        file.write(b" ")
    (checkpoints / f"{third}.json").rename(checkpoints / "aside.json")
    (checkpoints / f"{third}.json").symlink_to("aside.json")
    (backup,) = (checkpoints / "backups").glob(f"*_{first}.json.zlib")
    data = bytearray(backup.read_bytes())
    data[-5] ^= 1
    backup.write_bytes(data)
    found = by_path(checkpoints)
    assert warnings(found["checkpoint_registry.json"]) == [
        f"{first}.json, which it names, is not beside it",
        f"{second}.json is not what it was when this list was written: its SHA-256 is another",
        f"{third}.json, which it names, is a symbolic link, which is not followed",
    ]
    (said,) = warnings(found["backups/backup_metadata.json"])
    assert said.startswith(f"{backup.name}, which it names, cannot be compared with it: ")
    assert found["checkpoint_registry.json"].action == found[f"{second}.json"].action == "migrate"


def test_a_list_that_is_planned_after_its_files_were_migrated_knows_them(checkpoints):
    lists = [checkpoints / "checkpoint_registry.json", checkpoints / "backups/backup_metadata.json"]
    kept = [path.read_bytes() for path in lists]
    UTILS.batch_migrate_directory(checkpoints)
    for path, data in zip(lists, kept, strict=True):
        path.write_bytes(data)
    found = by_path(checkpoints)
    assert [warnings(found[str(path.relative_to(checkpoints))]) for path in lists] == [[], []]
    name = next(iter(json.loads(kept[0])["checkpoints"]))
    qm.save(np.array([1.0, 0.0]), checkpoints / f"{name}.json")
    assert len(warnings(by_path(checkpoints)["checkpoint_registry.json"])) == 1


def test_of_many_files_that_are_missing_a_few_are_named(tmp_path):
    table = {str(n): {"file_path": f"/lost/{n}.json", "state_hash": "0" * 64} for n in range(1000)}
    document = {"checkpoints": table, "checkpoint_history": []}
    (tmp_path / "checkpoint_registry.json").write_text(json.dumps(document))
    said = warnings(by_path(tmp_path)["checkpoint_registry.json"], "")
    assert len(said) < 12
    assert said[-1] == "and 993 more like these"


def test_a_list_with_paths_of_somebody_who_wishes_us_ill_names_files_beside_it_only(tmp_path):
    (tmp_path / "secret").write_text("secret")
    place = tmp_path / "backups"
    place.mkdir()
    checksum = hashlib.sha256(b"secret").hexdigest()
    table = {name: {"checksum": checksum} for name in ("../secret", str(tmp_path / "secret"))}
    (place / "backup_metadata.json").write_text(json.dumps({"backups": table, "rotation_history": []}))
    said = warnings(by_path(place)["backup_metadata.json"])
    assert said == ["secret, which it names, is not beside it"] * 2


def test_a_registry_that_was_cut_short_is_damaged_and_says_what_to_do(tmp_path):
    text = '{\n  "checkpoints": {\n    "1": {\n      "id": "1",\n      "timestamp": '
    (tmp_path / "checkpoint_registry.json").write_text(text)
    entry = by_path(tmp_path)["checkpoint_registry.json"]
    assert entry.action == "damaged"
    assert "the other .json files of the folder, each of which is read by itself" in entry.reason


# ---- names


def test_copies_that_the_first_implementation_kept_are_migrated_under_their_names(tmp_path):
    old = (DATA / "json_v1/v1_n3_mps.json").read_bytes()
    for name in ("v1.json", COPY):
        (tmp_path / name).write_bytes(old)
    shutil.copy(DATA / "json_v1/v1_n3_mps_quantum.npz", tmp_path / "v1_quantum.npz")
    before = listing(tmp_path)
    plan = UTILS.generate_migration_plan(tmp_path)
    entries = {entry.path: entry for _, entry in plan.entries()}
    assert (entries[COPY].target, entries[COPY].sidecars) == ("json", ())
    assert any("v1_quantum.npz goes with v1.json" in one for one in entries[COPY].warnings)
    assert UTILS.apply_migration_plan(plan).migrated == 2
    path = tmp_path / COPY
    assert qm.load(path).classical["interface_config"]["n_qubits"] == 3
    assert qm.load(path).quantum is None
    assert qm.load(tmp_path / "v1.json").quantum is not None
    assert qm.info(path)["format"] == "json"
    qm.verify(path)
    qm.convert(path, tmp_path / "again.qms")
    assert qm.compare(path, tmp_path / "again.qms").same_content
    assert UTILS.verify_migration(tmp_path / WORKPLACE / plan.id / "originals" / COPY, path)
    (tmp_path / "again.qms").unlink()
    assert {entry.action for entry in by_path(tmp_path).values()} == {"leave"}
    UTILS.rollback_migration(tmp_path)
    assert listing(tmp_path) == before


def test_a_packed_archive_by_itself_becomes_an_archive_of_today(tmp_path):
    path = tmp_path / "z_quantum.npz.zlib"
    shutil.copy(DATA / "json_zlib/z_n3_mps_quantum.npz.zlib", path)
    old = read(path).memory
    assert UTILS.batch_migrate_directory(tmp_path).migrated == 1
    assert qm.load(path) == old
    assert qm.info(path)["format"] == "npz"
    with np.load(path, allow_pickle=False) as archive:
        assert archive.files


def test_a_pickle_has_two_suffixes(tmp_path):
    path = tmp_path / "s.pickle"
    shutil.copy(DATA / "serializer/s_n3_pickle.pkl", path)
    old = read(path, allow_pickle=True).memory
    assert by_path(tmp_path)["s.pickle"].action == "leave"
    assert UTILS.batch_migrate_directory(tmp_path, allow_pickle=True).migrated == 1
    assert qm.load(path, allow_pickle=True) == old
    qm.save(old, tmp_path / "new.PICKLE")
    assert qm.load(tmp_path / "new.PICKLE", allow_pickle=True) == old


def test_what_names_say():
    names = {"a.JSON": "json", f"b/{COPY}": "json", "c.NPZ.zlib": "npz", "d.json.zlib": "json.zlib", "e.pickle": "pkl"}
    assert {name: target_of(name) for name in names} == names
    assert [name for name in ("a.txt", "json", "a.backup_1", "b.json.backup_/c") if may_be_ours(name)] == []
    with pytest.raises(InvalidStateError):
        target_of(f"{COPY}/a.txt")
    assert kept_copy_of(f"x.json.backup_1/{COPY}") == "x.json.backup_1/v1.json"
    assert kept_copy_of("v1.json") is None


# ---- what only apply found before


def test_a_key_that_stands_twice_is_found_by_the_plan(tmp_path):
    text = (DATA / "json_v1/v1_minimal.json").read_text()
    (tmp_path / "a.json").write_text('{"twice": 1, "twice": 2, ' + text[1:])
    (tmp_path / "b.json").write_text(text.replace('"n_qubits"', '"n_qubits": 1, "n_qubits"'))
    for entry in by_path(tmp_path).values():
        assert (entry.action, entry.reason) == ("damaged", "its JSON text has a key twice")


def test_arrays_of_the_serializer_are_read_by_the_plan(tmp_path):
    lie = '{"x":{"_tensor_type":"numpy","data":[1],"dtype":"int64","shape":[9]}}'
    (tmp_path / "a.json").write_text(lie)
    assert by_path(tmp_path)["a.json"].action == "damaged"


def test_ids_that_a_store_of_today_has_not_are_written_in_others(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "many.h5"
    shutil.copyfile(DATA / "hdf5/h_n3_none.h5", path)
    ids = {"a b": "id=a=20b", "a=20b": "a=20b", ".x": "id=.x", "é=": "id==C3=A9=3D"}
    long = "x" * 65
    ids[long] = ("sha256=" + hashlib.sha256(long.encode()).hexdigest())[:64]
    with h5py.File(path, "r+") as file:
        states = file["quantum_states"]
        (one,) = states
        for name in ids:
            states.copy(one, name)
    ids[one] = one
    old = {name: read(path, state_id=name).memory for name in ids}
    plan = UTILS.generate_migration_plan(tmp_path)
    ((_, entry),) = plan.entries()
    assert "its state 'a b' gets the id id=a=20b" in entry.warnings
    assert sum("gets the id" in one for one in entry.warnings) == 4
    UTILS.apply_migration_plan(plan)
    store = qm.HDF5QuantumStorage(path)
    assert {row["id"] for row in store.list_states()} == set(ids.values())
    for name, new in ids.items():
        assert store.load_quantum_state(new) == old[name]
        assert store.load_quantum_state(new).classical["state_id"] == name
    check = UTILS.verify_migration(tmp_path / WORKPLACE / plan.id / "originals/many.h5", path)
    assert (check.states, check.differences) == (6, [])


def test_ids_that_would_be_one_are_refused_by_the_plan(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "many.h5"
    shutil.copyfile(DATA / "hdf5/h_n3_none.h5", path)
    with h5py.File(path, "r+") as file:
        states = file["quantum_states"]
        for name in ("a b", "id=a=20b"):
            states.copy(next(iter(states)), name)
    entry = by_path(tmp_path)["many.h5"]
    assert (entry.action, entry.reason.partition(":")[0]) == ("leave", "two of its states would have one id")


def test_new_ids_are_ids_and_all_different():
    h5py = pytest.importorskip("h5py")
    assert h5py
    names = ["a", "a ", " a", "=", "id=", "id==", "é", "e\u0301", "x" * 64, "x" * 65, "x" * 66, " " * 30, "\udc80", "_"]
    made = new_ids(names)
    assert len(set(made.values())) == len(names)
    assert made["a"] == "a"
    assert made["x" * 64] == "x" * 64
    assert new_ids(reversed(names)) == made
    assert all(len(new) <= 64 and new[0].isalnum() and new.isascii() for new in made.values())


def test_a_file_of_the_serializer_in_a_packed_backup_is_migrated(tmp_path):
    text = (DATA / "serializer/s_n3_json.json").read_bytes()
    stream = zlib.compress(text, 9)
    header = json.dumps({"original_size": len(text), "compressed_size": len(stream), "compression_ratio": 0.5}).encode()
    path = tmp_path / "s_backup.json.zlib"
    path.write_bytes(len(header).to_bytes(4, "little") + header + stream)
    assert legacy.recognise(path.read_bytes()[:4096], str(path), path.stat().st_size) == "interface-json-zlib"
    assert UTILS.batch_migrate_directory(tmp_path).migrated == 1
    new = qm.load(path)
    assert new.record["legacy"]["kind"] == "serializer-json"
    assert new.content_id == read(DATA / "serializer/s_n3_json.json").memory.content_id


def test_a_backup_of_any_name_is_migrated(tmp_path):
    tree = grown(tmp_path / "tree", DATA, "others/v1_n3_backup_20261122_112704.json.zlib")
    old = tree / "others/v1_n3_backup_20261122_112704.json.zlib"
    old.rename(tree / "rot_backup_2.json.zlib")
    assert UTILS.batch_migrate_directory(tree).migrated == 1
    assert qm.info(tree / "rot_backup_2.json.zlib")["format"] == "json.zlib"


def test_planning_and_taking_back_say_how_far_they_are(tmp_path):
    tree = grown(tmp_path / "tree", DATA, "json_v1/v1_minimal.json", "npz_simple/simple_n3.npz")
    planned, taken = [], []
    plan = UTILS.generate_migration_plan(tree, progress=planned.append)
    assert sum(planned) == count_entries(tree) == plan.count == 2
    UTILS.apply_migration_plan(plan)
    UTILS.rollback_migration(tree, progress=taken.append)
    assert sum(taken) == 2

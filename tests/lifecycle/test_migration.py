"""Folders of legacy files are migrated, and taken back to the byte."""

import hashlib
import json
import os
import shutil
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import ConflictError, MissingError, UnsafeError
from quantum_memory.formats import legacy
from quantum_memory.lifecycle.migration import staging
from quantum_memory.lifecycle.migration.entries import Entry, Source, sidecar_of
from quantum_memory.lifecycle.migration.pool import worker_pool
from quantum_memory.state.json_text import to_json
from quantum_memory.testing.faults import PassingFiles, RecordingFiles

from ..formats.legacy.fixtures import DATA, FIXTURES, WHOLE
from .trees import WORKPLACE, grown, listing

UTILS = qm.MigrationUtilities()


@pytest.fixture
def tree(tmp_path):
    """All fixtures, with various modes and times."""
    return grown(tmp_path / "tree", DATA)


@pytest.fixture
def few(tmp_path):
    return grown(tmp_path / "few", DATA, "json_v1/v1_minimal.json", "json_v2/v2_n3_mps.json", "qms/q_n3_lz4.qms")


def plan_of(tree, **options):
    return UTILS.generate_migration_plan(tree, **options)


def by_path(plan):
    return {entry.path: entry for _, entry in plan.entries()}


def read(path, **options):
    with ReadableFile(str(path)) as source:
        return legacy.read(source, **options)


# ---- the whole way


def test_every_fixture_is_migrated_and_rolled_back_to_the_byte(tree):
    before = listing(tree)
    plan = plan_of(tree, allow_pickle=True)
    paths = [path for path, entry in by_path(plan).items() if entry.action == "migrate"]
    assert {entry["path"] for entry in WHOLE} <= set(paths)
    done = UTILS.apply_migration_plan(plan)
    assert (done.migrated, done.failed) == (len(paths), [])
    for path in paths:
        check = UTILS.verify_migration(DATA / path, tree / path, allow_pickle=True)
        assert check, (path, check.differences)
        assert check.states >= 1
        assert (tree / path).stat().st_mode & 0o777 == before[path][1] & 0o777
    untouched = {path: facts for path, facts in listing(tree).items() if path not in paths}
    assert all(before[path] == facts for path, facts in untouched.items())
    assert UTILS.rollback_migration(tree).restored == len(paths)
    assert listing(tree) == before


@pytest.mark.parametrize("entry", WHOLE, ids=lambda entry: entry["path"])
def test_the_amplitudes_are_those_that_were_saved(tmp_path, entry):
    tree = grown(tmp_path / "one", DATA, entry["path"])
    assert UTILS.batch_migrate_directory(tree, allow_pickle=True).migrated == 1
    wanted = entry["expect"] if entry["kind"] != "hdf5" else next(iter(entry["expect"].values()))
    state = qm.load(tree / entry["path"], allow_pickle=True).quantum
    if "state_vector" in wanted:
        bits = state.amplitudes.astype("<c16").tobytes()
        assert hashlib.sha256(bits).hexdigest() == wanted["state_vector"]["sha256_of_complex128_le_bytes"]
        if "npy" in wanted["state_vector"]:
            assert bits == np.load(DATA / wanted["state_vector"]["npy"]).tobytes()
    if "sidecar" in entry:
        digests = [hashlib.sha256(tensor.tobytes()).hexdigest() for tensor in state.tensors]
        assert digests == entry["sidecar"]["tensors_sha256_of_complex64_le_bytes"]


def test_where_it_came_from_is_in_the_record_and_not_in_the_content(few):
    old = read(few / "json_v2/v2_n3_mps.json").memory
    sums = {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in (few / "json_v2").iterdir()}
    UTILS.batch_migrate_directory(few)
    new = qm.load(few / "json_v2/v2_n3_mps.json")
    assert new.content_id == old.content_id
    assert new.record["legacy"] == old.record["legacy"]
    noted = new.record["migration"]
    assert noted.pop("when").startswith("20")
    assert noted == {
        "from": {"kind": "interface-json", "version": "2.0"},
        "to": {"format": "json", "version": "2.0"},
        "release": qm.__version__,
        "sha256": sums["v2_n3_mps.json"],
        "sidecars": {"v2_n3_mps_quantum.npz": sums["v2_n3_mps_quantum.npz"]},
    }


def test_an_archive_of_tensors_goes_with_its_state(few):
    archive = few / "json_v2/v2_n3_mps_quantum.npz"
    data = archive.read_bytes()
    plan = plan_of(few)
    assert [one.path for one in by_path(plan)["json_v2/v2_n3_mps.json"].sidecars] == ["json_v2/v2_n3_mps_quantum.npz"]
    UTILS.apply_migration_plan(plan)
    assert not archive.exists()
    kept = few / WORKPLACE / plan.id / "originals/json_v2"
    assert (kept / archive.name).read_bytes() == data
    assert UTILS.verify_migration(kept / "v2_n3_mps.json", few / "json_v2/v2_n3_mps.json")
    UTILS.rollback_migration(few)
    assert archive.read_bytes() == data


def test_a_store_keeps_all_of_its_states_under_their_ids(tmp_path, make_store):
    tree = tmp_path / "stores"
    tree.mkdir()
    path = make_store(tree / "many.h5", {"a": 3, "b_2": 5, "20250630_120003_000000": 3})
    old = {name: read(path, state_id=name).memory for name in ("a", "b_2", "20250630_120003_000000")}
    UTILS.batch_migrate_directory(tree)
    store = qm.HDF5QuantumStorage(path)
    assert {row["id"] for row in store.list_states()} == set(old)
    for name, memory in old.items():
        assert store.load_quantum_state(name) == memory
    qm.verify(path)


@pytest.fixture
def make_store():
    """Make a legacy store of several states out of the fixtures."""
    h5py = pytest.importorskip("h5py")

    def make(path, states):
        shutil.copyfile(DATA / "hdf5/h_n3_none.h5", path)
        with h5py.File(path, "r+") as file:
            group = file["quantum_states"]
            (one,) = group
            for name in states:
                if name != one:
                    group.copy(one, name)
                    group[name]["quantum_data"].pop("state_vector")
                    group[name]["quantum_data"]["state_vector"] = group[one]["quantum_data/state_vector"][()]
            if one not in states:
                del group[one]
        return path

    return make


def test_an_empty_store_becomes_an_empty_store(tmp_path, make_store):
    path = make_store(tmp_path / "empty.h5", {})
    UTILS.batch_migrate_directory(tmp_path)
    assert qm.HDF5QuantumStorage(path).list_states() == []
    assert qm.HDF5QuantumStorage(path).save_quantum_state(np.array([1.0, 0.0]), "x") == "x"


# ---- the plan


def test_the_plan_says_of_every_file_what_happens_to_it(tree):
    (tree / "new.qms").write_bytes(b"")
    qm.save(np.array([1.0, 0.0]), tree / "today.json")
    (tree / "notes.txt").write_text("not ours")
    (tree / "other.json").write_text('{"a": 1}')
    (tree / "link.json").symlink_to(tree / "today.json")
    (tree / "folder").symlink_to(tree / "json_v1")
    plan = plan_of(tree)
    found = by_path(plan)
    for entry in FIXTURES:
        assert entry["path"] in found
    assert found["today.json"].reason == "nothing to do: it is a file of the current version"
    assert found["other.json"].reason == "it is a file of another program"
    assert found["link.json"].reason == "it is a symbolic link, which is not followed"
    assert not any(path.startswith("folder") for path in found)
    assert found["new.qms"].reason == "it is empty"
    registry = found["others/checkpoint_registry.json"]
    assert (registry.action, registry.kind) == ("migrate", "checkpoint-registry")
    assert "20261122_112700_579.json, which it names, is not beside it" in registry.warnings
    assert found["serializer/s_n3_pickle.pkl"].reason.startswith("a pickle is read only where that is allowed")
    assert found["damaged/h5_tampered.h5"].action == "damaged"
    assert found["qms_unmodified/q_n3_zlib.qms"].action == "damaged"
    totals = plan.totals
    assert totals.migrate + totals.leave + totals.damaged == len(found) == plan.count
    assert totals.others >= 1
    assert totals.free_bytes > totals.needed_bytes >= totals.source_bytes
    sources = [source for entry in found.values() for source in entry.sources]
    for source in sources:
        data, facts = (tree / source.path).read_bytes(), (tree / source.path).stat()
        assert (source.sha256, source.bytes, source.mtime_ns) == (
            hashlib.sha256(data).hexdigest(),
            len(data),
            facts.st_mtime_ns,
        )


def test_a_plan_in_a_file_is_the_plan(few, tmp_path):
    plan = plan_of(few, out=tmp_path / "plan.json")
    again = qm.MigrationUtilities().generate_migration_plan(few)
    lines = (tmp_path / "plan.json").read_text().splitlines()
    assert json.loads(lines[0])["root"] == str(few)
    assert json.loads(lines[-1])["id"] == plan.id
    assert sorted(by_path(plan)) == sorted(by_path(again))
    assert UTILS.apply_migration_plan(tmp_path / "plan.json").migrated == 3


def test_a_plan_in_the_folder_is_no_state(few):
    plan_of(few, out=few / "plan.json")
    assert by_path(plan_of(few))["plan.json"].reason == "it is the plan of a migration"


NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(
    lambda name: name not in {".", "..", WORKPLACE}
)
SOURCES = st.builds(
    Source,
    st.builds("{}/{}.json".format, NAMES, NAMES),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.integers(0, 2**63),
    st.integers(-(2**62), 2**62),
)


@given(SOURCES, st.one_of(st.none(), st.text()), st.lists(st.text()), st.integers(0, 2**63), st.booleans())
def test_an_entry_comes_back_as_it_was(source, version, texts, count, beside):
    sidecars = (replace(source, path=sidecar_of(source.path)),) if beside else ()
    entry = Entry(
        source.path, "migrate", "", "interface-json", version or None, source, sidecars, "json", count,
        tuple(texts), tuple(texts),
    )  # fmt: skip
    assert Entry.from_json(json.loads(to_json(entry.to_json()))) == entry


def test_planning_reads_and_nothing_more(tree):
    before = listing(tree, folders=True)
    plan_of(tree)
    assert listing(tree, folders=True) == before


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MissingError):
        plan_of(tmp_path / "nowhere")


def test_an_empty_folder_stays_empty(tmp_path):
    assert UTILS.batch_migrate_directory(tmp_path).migrated == 0
    assert list(tmp_path.iterdir()) == []


def test_planning_anew_looks_at_neither_originals_nor_what_is_new(few):
    UTILS.batch_migrate_directory(few)
    again = by_path(plan_of(few))
    assert {entry.action for entry in again.values()} == {"leave"}
    assert not any(WORKPLACE in path for path in again)


# ---- applying


class ReadOnly(PassingFiles):
    """Fails on whatever would change anything."""

    def call(self, name, *arguments):
        assert name in {"open", "close", "fstat", "stat", "read_into", "names", "try_lock"}, name
        if name == "open":
            assert not arguments[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return super().call(name, *arguments)


def test_a_dry_run_reads_everything_and_writes_nothing(tree):
    before = listing(tree, folders=True)
    with files.using(ReadOnly()):
        done = UTILS.batch_migrate_directory(tree, dry_run=True, continue_on_error=True)
    assert done.dry_run
    assert done.migrated > 20
    assert listing(tree, folders=True) == before
    assert not (tree / WORKPLACE).exists()


def test_a_dry_run_of_what_is_done_says_so(few):
    plan = plan_of(few)
    UTILS.apply_migration_plan(plan)
    done = UTILS.apply_migration_plan(plan, dry_run=True)
    assert (done.migrated, done.already) == (0, 3)


def test_what_was_changed_since_the_plan_is_refused(few):
    plan = plan_of(few)
    path = few / "json_v1/v1_minimal.json"
    facts = path.stat()
    data = path.read_bytes().replace(b"27", b"26")
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    before = listing(few)
    with pytest.raises(ConflictError, match="changed since the plan"):
        UTILS.apply_migration_plan(plan)
    done = UTILS.apply_migration_plan(plan, continue_on_error=True)
    assert done.migrated + done.already == 2
    assert [one["path"] for one in done.failed] == [str(path)]
    assert path.read_bytes() == data
    (status,) = UTILS.migration_status(few)
    assert (status.done, status.failed, status.pending) == (2, 1, 0)
    UTILS.rollback_migration(few)
    assert listing(few) == before


def test_a_touched_or_missing_archive_is_refused_too(few):
    plan = plan_of(few)
    archive = few / "json_v2/v2_n3_mps_quantum.npz"
    archive.touch()
    with pytest.raises(ConflictError, match="changed since the plan"):
        UTILS.apply_migration_plan(plan)
    archive.unlink()
    done = UTILS.apply_migration_plan(plan, continue_on_error=True)
    assert [one["error"] for one in done.failed] == ["MissingFileError"]


def test_a_broken_file_stops_it_or_not(few):
    """A number that no float64 is gets into a plan, and fails when it is read."""
    text = (few / "json_v1/v1_minimal.json").read_text()
    (few / "json_v1/broken.json").write_text('{"much": 1e999, ' + text[1:])
    plan = plan_of(few)
    with pytest.raises(qm.IntegrityError, match="1e999") as raised:
        UTILS.apply_migration_plan(plan)
    assert raised.value.path == str(few / "json_v1/broken.json")
    done = UTILS.apply_migration_plan(plan, continue_on_error=True)
    assert done.migrated + done.already == 3
    assert len(done.failed) == 1
    assert UTILS.apply_migration_plan(plan, continue_on_error=True).already == 3


@pytest.mark.parametrize("what", ["a bit of an array", "what it says of itself"])
@pytest.mark.parametrize("path", ["json_v2/v2_n3_mps.json", "qms/q_n3_lz4.qms", "hdf5/h_n3_gzip.h5"])
def test_a_new_file_that_is_whole_and_says_something_else_gets_no_name(tmp_path, monkeypatch, path, what):
    """As where memory or the program is at fault: what was written is compared with what was read."""
    tree = grown(tmp_path / "tree", DATA, path)
    before, plan, write = listing(tree), plan_of(tree), staging._write

    def write_other(memory, *where):
        changes = {"document": {**memory.document, "metadata": {"of": "another"}}}
        if what == "a bit of an array":
            name = max(memory.arrays)
            array = np.array(memory.arrays[name], order="C")
            array.reshape(-1).view(np.uint8)[0] ^= 1
            changes = {"arrays": {**memory.arrays, name: array}}
        write(replace(memory, **changes), *where)

    with monkeypatch.context() as patch:
        patch.setattr(staging, "_write", write_other)
        with pytest.raises(qm.IntegrityError, match="what was written is not what was read") as raised:
            UTILS.apply_migration_plan(plan)
    assert raised.value.path == str(tree / path)
    assert listing(tree) == before
    assert list((tree / WORKPLACE / plan.id / "staged").iterdir()) == []
    assert UTILS.apply_migration_plan(plan).migrated == 1


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, worker_pool])
def test_any_executor_does(few, pool):
    before = listing(few)
    with pool(2) as executor:
        plan = plan_of(few, executor=executor)
        assert UTILS.apply_migration_plan(plan, executor=executor).migrated == 3
    for path, entry in by_path(plan).items():
        assert entry.action == "migrate"
        qm.verify(few / path)
    UTILS.rollback_migration(few)
    assert listing(few) == before


class Killed(Executor):
    """Its process has been killed."""

    def submit(self, fn, /, *args, **kwargs):
        raise BrokenExecutor("gone")


def test_a_process_that_was_killed_is_told_in_a_sentence(few):
    before = listing(few)
    plan = plan_of(few)
    for work in (lambda: plan_of(few, executor=Killed()), lambda: UTILS.apply_migration_plan(plan, executor=Killed())):
        with pytest.raises(qm.StorageError, match="a process that worked on files has ended"):
            work()
    assert UTILS.apply_migration_plan(plan).migrated == 3
    UTILS.rollback_migration(few)
    assert listing(few) == before


def test_a_workplace_that_is_a_link_is_refused(few, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (few / WORKPLACE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeError):
        UTILS.batch_migrate_directory(few)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_calls_keep_the_rules_of_durable_writing(few):
    plan = plan_of(few)
    recording = RecordingFiles()
    with files.using(recording):
        UTILS.apply_migration_plan(plan)
    # What waits for its name is synced once, when it is complete.
    assert [line for line in recording.violations() if "/staged" not in line.rpartition(" the name ")[2]] == []
    recording = RecordingFiles()
    with files.using(recording):
        UTILS.rollback_migration(few)
    assert recording.violations() == []


def test_two_at_once_take_turns(few):
    plan = plan_of(few)
    seen = []

    def second(done):
        for work in (lambda: UTILS.apply_migration_plan(plan), lambda: UTILS.rollback_migration(few, plan.id)):
            with pytest.raises(ConflictError, match="another migration of this folder is running"):
                work()
            seen.append(done)

    UTILS.apply_migration_plan(plan, progress=second)
    assert seen


# ---- taking back, and making final


def test_status_follows(few):
    assert UTILS.migration_status(few) == []
    plan = plan_of(few)
    size = plan.totals.source_bytes
    UTILS.apply_migration_plan(plan)
    (status,) = UTILS.migration_status(few)
    assert (status.planned, status.done, status.kept_bytes) == (3, 3, size)
    assert status.can_roll_back
    UTILS.rollback_migration(few)
    (status,) = UTILS.migration_status(few)
    assert (status.rolled_back, status.done, status.kept_bytes, status.can_roll_back) == (3, 0, 0, False)
    assert UTILS.apply_migration_plan(plan).migrated == 3
    done = UTILS.commit_migration(few)
    assert (done.removed, done.freed_bytes) == (4, size)
    (status,) = UTILS.migration_status(few)
    assert (status.done, status.kept_bytes, status.can_roll_back, status.committed) == (3, 0, False, True)
    with pytest.raises(MissingError, match="no migration to be rolled back"):
        UTILS.rollback_migration(few)
    with pytest.raises(ConflictError, match="made final"):
        UTILS.rollback_migration(few, plan.id[:8])
    with pytest.raises(ConflictError, match="made final"):
        UTILS.apply_migration_plan(plan)
    for path in by_path(plan):
        qm.verify(few / path)


def test_a_new_file_that_was_changed_stays(few):
    plan = plan_of(few)
    UTILS.apply_migration_plan(plan)
    path = few / "qms/q_n3_lz4.qms"
    qm.save(np.array([0.0, 1.0]), path)
    mine = path.read_bytes()
    done = UTILS.rollback_migration(few)
    assert done.restored == 2
    assert done.left == [{"path": str(path), "reason": "it was changed since the migration"}]
    assert path.read_bytes() == mine
    (status,) = UTILS.migration_status(few)
    assert (status.changed, status.rolled_back, status.can_roll_back) == (1, 2, True)
    path.unlink()
    assert UTILS.rollback_migration(few).restored == 1
    assert path.read_bytes() == (DATA / "qms/q_n3_lz4.qms").read_bytes()


def test_somebody_elses_archive_is_not_replaced(few):
    UTILS.batch_migrate_directory(few)
    archive = few / "json_v2/v2_n3_mps_quantum.npz"
    archive.write_bytes(b"mine")
    done = UTILS.rollback_migration(few)
    assert [one["reason"] for one in done.left] == ["there is another file at json_v2/v2_n3_mps_quantum.npz"]
    assert archive.read_bytes() == b"mine"
    qm.verify(few / "json_v2/v2_n3_mps.json")


def test_two_migrations_are_told_apart_by_their_ids(few):
    first = plan_of(few)
    UTILS.apply_migration_plan(first)
    shutil.copy(DATA / "npz_simple/simple_n3.npz", few)
    second = plan_of(few)
    assert UTILS.apply_migration_plan(second).migrated == 1
    with pytest.raises(ConflictError, match="2 migrations"):
        UTILS.rollback_migration(few)
    assert UTILS.rollback_migration(few, second.id[:10]).restored == 1
    assert UTILS.rollback_migration(few).plan_id == first.id


def test_verify_migration_finds_what_differs(few, tmp_path):
    UTILS.batch_migrate_directory(few)
    old, new = DATA / "qms/q_n3_lz4.qms", few / "qms/q_n3_lz4.qms"
    memory = qm.load(new)
    amplitudes = memory.quantum.amplitudes.copy()
    amplitudes[0] = np.nextafter(amplitudes[0].real, 2) + 1j * amplitudes[0].imag
    state = qm.StateVector(amplitudes, qubit_order="big")
    changed = qm.MemoryState(state, memory.classical, emotion=memory.emotion, metadata=memory.metadata)
    qm.save(changed, tmp_path / "changed.qms")
    check = UTILS.verify_migration(old, tmp_path / "changed.qms")
    assert not check
    assert check.differences == ["quantum/amplitudes: other values"]
    assert UTILS.verify_migration(old, new)


# ---- plans of strangers


def forged(plan, path, change):
    """Change the lines of a plan, and give it the right id."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    text = [json.dumps(line, separators=(",", ":")) for line in lines[:-1]]
    last = {name: value for name, value in lines[-1].items() if name != "id"}
    digest = hashlib.sha256("".join(f"{line}\n" for line in text).encode())
    digest.update(json.dumps(last, separators=(",", ":")).encode())
    text.append(json.dumps({"id": digest.hexdigest(), **last}, separators=(",", ":")))
    path.write_text("".join(f"{line}\n" for line in text))


LEAVING = [
    "../out.json",
    "/etc/out.json",
    "a/../../b.json",
    "./x.json",
    "a//x.json",
    "",
    f"{WORKPLACE}/x.json",
    "a\0b",
    7,
]


@pytest.mark.parametrize("path", LEAVING)
def test_a_path_that_leaves_the_folder_is_refused(few, tmp_path, path):
    out = tmp_path / "plan.json"
    plan = plan_of(few, out=out)
    forged(plan, out, lambda lines: lines[1].update(path=path))
    with pytest.raises(UnsafeError):
        UTILS.apply_migration_plan(out)
    assert not (few / WORKPLACE).exists()


def test_an_archive_or_target_that_is_not_its_own_is_refused(few, tmp_path):
    out = tmp_path / "plan.json"
    source = {"path": "../secret", "sha256": "0" * 64, "bytes": 1, "mtime_ns": 1}
    for change in (
        {"sidecars": [source]},
        {"sidecars": [source | {"path": "qms/q_n3_lz4.qms"}]},
        {"target": "pkl"},
        {"expected_bytes": -1},
        {"unknown": 1},
        {"action": "remove"},
        {"source": {"sha256": "x", "bytes": 1, "mtime_ns": 1}},
        {"steps": [1]},
    ):
        plan = plan_of(few, out=out)
        forged(plan, out, lambda lines, change=change: lines[1].update(change))
        with pytest.raises(UnsafeError):
            UTILS.apply_migration_plan(out)


def test_a_folder_that_became_a_link_is_refused(few, tmp_path):
    plan = plan_of(few)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(few / "qms", elsewhere)
    (few / "qms").symlink_to(elsewhere)
    before = listing(elsewhere)
    done = UTILS.apply_migration_plan(plan, continue_on_error=True)
    assert [one["error"] for one in done.failed] == ["UnsafeError"]
    assert listing(elsewhere) == before


@pytest.mark.parametrize("at", [0, 1, -1])
def test_a_plan_that_was_changed_or_cut_short_is_refused(few, tmp_path, at):
    out = tmp_path / "plan.json"
    plan_of(few, out=out)
    lines = out.read_bytes().splitlines(keepends=True)
    for text in (
        b"".join(lines).replace(b'"bytes":', b'"bytes":1', 1),
        b"".join(lines[:at] + lines[at + 1 :] if at != -1 else lines[:-1]),
        b"".join(lines)[:-1],
        b"".join(lines) + lines[1],
        b"",
        Path(__file__).read_bytes(),
    ):
        out.write_bytes(text)
        with pytest.raises(qm.InvalidStateError):
            UTILS.apply_migration_plan(out)
    assert not (few / WORKPLACE).exists()

"""No file can hurt: each of the corpus gives a typed error, in bounded time and memory, and nothing else happens."""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory import errors
from quantum_memory.durability import files
from quantum_memory.durability.files import physical_memory
from quantum_memory.errors import BudgetError, IntegrityError
from quantum_memory.formats import reader
from quantum_memory.lifecycle.migration.plan import Plan
from quantum_memory.testing.faults import PassingFiles

from ..reliability.figures import figure
from . import archives, folders, forge, locked, stores, trees
from .case import READ, Case
from .corpus import AMPLITUDES, CORPUS, HONEST, JSON, PLUS, QMS, SPECIAL, STATE

SECONDS = 2.0
MIB = 1 << 20
BATCHES = 3
CHILD = Path(__file__).with_name("child.py")
OURS = {name for name, value in vars(errors).items() if isinstance(value, type)}
TITLES = [case.title for case in QMS]
ONLY_SEEN_BY_LOADING = TITLES[
    TITLES.index("a part that there is not") : TITLES.index("a state with a zip archive behind it")
]


def file_name(number: int, case: Case) -> str:
    return f"{number:03}.{case.suffix}"


def contents(folder: Path, without: set[str]) -> dict[str, object]:
    """Return everything in a folder but some parts: names, kinds, sizes, times of change and digests."""
    found = {}
    for path in sorted(folder.iterdir()):
        if str(path) not in without:
            facts = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
            found[path.name] = (facts.st_mode, facts.st_size, facts.st_mtime_ns, digest)
    return found


def watched_opening(folder: Path, numbered: list[tuple[int, Case]]) -> list[tuple[Case, dict]]:
    """Return what a child process saw when it opened these files with every verb."""
    (folder / "canary").write_bytes(b"alive")
    os.mkfifo(folder / "pipe")
    cases: dict[str, Case] = {}
    for number, case in numbered:
        path = folder / f"{number:03}.{case.suffix}"
        case.write(path)
        cases[str(path)] = case
    owned = {path for path, case in cases.items() if case.verbs in {"checkpoints", "backups"}}  # where locks are
    before = contents(folder, owned)
    command = [sys.executable, str(CHILD), *(part for path, case in cases.items() for part in (case.verbs, path))]
    child = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    seen = [json.loads(line) for line in child.stdout.splitlines()]
    last = seen[-1] if seen else "the beginning"
    assert child.returncode == 0, f"the child died after {last}: {child.stderr[-3000:]}"
    assert contents(folder, owned) == before, "something on disk has changed"
    assert {result["file"] for result in seen} == set(cases)
    return [(cases[result["file"]], result) for result in seen]


def complaints(case: Case, result: dict) -> list[str]:
    """Say what is wrong with what a verb did."""
    path = Path(result["file"])
    size = sum(one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file() and not one.is_symlink())
    error = result["error"]
    checks = {
        f"{result['verb']} should give {case.error}": result["first"] and (error or READ) != case.error,
        "the error is not one of ours": error is not None and error not in OURS,
        "the error does not name the file": error is not None and not str(result.get("names")).startswith(str(path)),
        "the error does not say what to do": error is not None and not result.get("next"),
        "it takes too long": result["seconds"] > SECONDS,
        "it needs too much memory": result["grown"] > 64 * MIB + size,
        "it does what it has no business doing": bool(result["watched"]),
        # What shows only when the tree is built, verifying does not see.
        "it should not verify": result["verb"] == "verify"
        and error is None
        and case.verbs.startswith("state")
        and case.error != READ
        and case.title not in ONLY_SEEN_BY_LOADING,
    }
    return [what for what, is_so in checks.items() if is_so]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_file_can_hurt(tmp_path, batch):
    each = -(-len(CORPUS) // BATCHES)
    numbered = list(enumerate(CORPUS, 1))[batch * each :][:each]
    with figure("hostile") as made:
        seen = watched_opening(tmp_path, numbered)
        files = [(case.suffix, case.verbs, (tmp_path / f"{number:03}.{case.suffix}")) for number, case in numbered]
        held = [
            (suffix, verbs, path.read_bytes()) for suffix, verbs, path in files if stat.S_ISREG(path.lstat().st_mode)
        ]
        assert len(set(held)) == len(held), "two are the same"
        wrong = [(case.title, said, result) for case, result in seen if (said := complaints(case, result))]
        assert not wrong, json.dumps(wrong, indent=1)
        made.count += len(numbered)


# ---- the corpus itself


def test_the_corpus_is_large_and_every_case_is_another():
    assert len(QMS) >= 100
    assert len(JSON) >= 50
    assert len({case.title for case in CORPUS}) == len(CORPUS) >= 400
    assert len(SPECIAL) >= 5


def test_the_readme_lists_the_corpus_number_by_number():
    page = Path(__file__).with_name("README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| `(\w+)` \|$", page, re.MULTILINE)
    assert rows == [(str(number), case.title, case.naive, case.error) for number, case in enumerate(CORPUS, 1)]


def test_what_the_forge_makes_without_lies_is_read(tmp_path):
    """Otherwise the forged files might be refused for another reason than theirs."""
    forged = {
        "a.qms": forge.qms(AMPLITUDES, HONEST),
        "b.json": forge.json_file({"classical": forge.json_array([1.0])}, classical_data={"$array": "classical"}),
        "c.json.zlib": forge.zlib_file(forge.json_file(metadata={"a": 1})),
        "d.msgpack": trees.forged(trees.tree()),
        "e.b64": trees.text(),
        "f.pkl": trees.ours(b"version", b"version"),
        "g.npz": archives.forged(),
        "h.h5": stores.whole(),
        "i.qms": locked.relocked(list),
        "j.plan": folders.plan(folders.left("a"), folders.moved("b.json")),
        "k.qmb": folders.exported(),
    }
    for name, data in forged.items():
        (tmp_path / name).write_bytes(data)
    for name in ("d.msgpack", "e.b64", "f.pkl", "g.npz"):
        assert qm.load(tmp_path / name, allow_pickle=True).classical.tolist() == [1.0, 2.0]
    assert qm.load(tmp_path / "h.h5").metadata == {"run": "a"}
    assert qm.load(tmp_path / "i.qms", key=qm.Key.from_file(locked.KEY)).quantum is not None
    assert len([*Plan.open(tmp_path / "j.plan").entries()]) == 2
    with qm.BackupManager(tmp_path / "backups") as manager:
        assert manager.import_backup(tmp_path / "k.qmb") == [folders.SECOND]
    assert qm.load(tmp_path / "a.qms").quantum.amplitudes.tolist() == PLUS.tolist()
    assert qm.verify(tmp_path / "a.qms").problems == []
    assert qm.load(tmp_path / "b.json").classical.tolist() == [1.0]
    assert qm.load(tmp_path / "c.json.zlib").metadata == {"a": 1}


def test_a_section_that_may_be_skipped_is_skipped_and_verified(tmp_path):
    path = tmp_path / "later.qms"
    extra = forge.array("metadata", np.ones(8), section=77, flags=0)
    data = forge.qms(AMPLITUDES, HONEST, extra)
    path.write_bytes(data)
    assert qm.load(path).quantum.amplitudes.tolist() == PLUS.tolist()
    qm.verify(path)
    damaged = data.replace(np.ones(8).tobytes(), bytes(64))
    assert damaged != data
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError):
        qm.verify(path)


def test_a_digest_that_is_a_lie_is_seen_by_verify_and_by_a_full_load(tmp_path):
    path = tmp_path / "lie.qms"
    part = forge.Part(
        2, b"classical", forge.F64, (1,), [forge.Chunk(np.array([2.0]).tobytes(), np.array([1.0]).tobytes())]
    )
    path.write_bytes(forge.qms(part, forge.says(classical_data={"$array": "classical"})))
    with pytest.raises(IntegrityError, match="SHA-256"):
        qm.verify(path)
    with pytest.raises(IntegrityError, match="SHA-256"):
        qm.load(path, verify="full")


def test_a_file_that_only_root_may_read_is_a_typed_error(tmp_path):
    path = tmp_path / "secret.qms"
    qm.save(PLUS, path)
    path.chmod(0)
    if os.geteuid() == 0:
        assert qm.load(path).quantum is not None
    else:
        with pytest.raises(qm.StorageError, match="permission"):
            qm.load(path)


# ---- files that change while they are read


@pytest.mark.parametrize("suffix", ["qms", "json", "json.zlib", "msgpack", "npz", "h5"])
def test_a_file_that_changes_while_it_is_read_is_read_as_one_of_the_two_or_refused(tmp_path, suffix):
    """Each read of the operating system finds another of two whole files, or a mixture of both."""
    path, memories, held = tmp_path / f"a.{suffix}", [], []
    for value in (1.0, 2.0):
        memories.append(qm.MemoryState(classical={"a": np.full(200, value), "b": np.arange(3) * value}))
        qm.save(memories[-1], path.with_name(f"{value}.{suffix}"), compression="none" if suffix == "qms" else "auto")
        held.append(path.with_name(f"{value}.{suffix}").read_bytes())

    class Changing(PassingFiles):
        calls = 0
        at = 0

        def call(self, name: str, *arguments: object) -> object:
            if name == "read_into":
                self.calls += 1
                if self.calls == self.at:
                    path.write_bytes(mixture)
            return super().call(name, *arguments)

    outcomes = set()
    for at in range(1, 20):
        for cut in (0, len(held[0]) // 3, len(held[0]) // 2, len(held[0]) - 40):
            mixture = held[0][:cut] + held[1][cut:]
            path.write_bytes(held[0])
            changing = Changing()
            changing.at = at
            with files.using(changing):
                try:
                    loaded = qm.load(path)
                except qm.QuantumMemoryError as error:
                    assert error.path == str(path)  # noqa: PT017 - some are read
                    outcomes.add("refused")
                else:
                    assert loaded in memories
                    outcomes.add("read")
    assert outcomes == {"refused", "read"}


# ---- small files of large states


def chain_of_zeros(*shapes: tuple[int, ...], dtype: type = np.float16) -> bytes:
    parts = [forge.zeros(f"quantum/site/{k}", shape, dtype) for k, shape in enumerate(shapes)]
    sites = [{"$array": f"quantum/site/{k}"} for k in range(len(shapes))]
    return forge.qms(*parts, forge.says(quantum_data={"$state": {"kind": "matrix_product_state", "sites": sites}}))


def matrix_of_zeros(dimension: int) -> bytes:
    node = {"kind": "density_matrix", "dims": [dimension], "qubit_order": "big", "matrix": {"$array": "quantum/matrix"}}
    part = forge.zeros("quantum/matrix", (dimension, dimension), np.complex128)
    return forge.qms(part, forge.says(quantum_data={"$state": node}))


LARGE = {
    "a chain": lambda: chain_of_zeros((1, 1, 3900), (3900, 1, 3900), (3900, 1, 1)),
    "a longer chain": lambda: chain_of_zeros((1, 1, 5000), (5000, 1, 5000), (5000, 1, 1)),
    "a chain of long vectors": lambda: chain_of_zeros((1, 1 << 23, 1), (1, 1 << 22, 1)),
    "a matrix": lambda: matrix_of_zeros(1400),
}


def test_a_small_file_of_a_large_state_is_verified_at_little_cost(tmp_path):
    cases = [Case(title, "", READ, build, verbs="state, verified") for title, build in LARGE.items()]
    seen = watched_opening(tmp_path, list(enumerate(cases)))
    assert [(case.title, said, result) for case, result in seen if (said := complaints(case, result))] == []


def test_what_is_quick_to_compute_is_computed(tmp_path):
    path = tmp_path / "zeros.qms"
    path.write_bytes(chain_of_zeros((1, 2, 64), (64, 2, 64), (64, 2, 1)))
    assert qm.verify(path).problems == ["the norm is exp(-inf), not 1"]
    path.write_bytes(matrix_of_zeros(512))
    assert qm.verify(path).problems == ["the trace is 0+0j, not 1"]


def test_a_small_file_of_long_arrays_is_loaded_within_a_budget_only(tmp_path, monkeypatch):
    path = tmp_path / "zeros.qms"
    whole = forge.says(classical_data={"$array": "classical"}, quantum_data={"$state": STATE})
    path.write_bytes(forge.qms(AMPLITUDES, forge.zeros("classical", (1 << 20,)), whole))
    needed = (8 << 20) + 32
    assert path.stat().st_size < 20_000
    assert physical_memory() >= 1 << 30
    with pytest.raises(BudgetError, match=f"need {needed} bytes of memory, and {needed - 1} are allowed") as caught:
        qm.load(path, max_bytes=needed - 1)
    assert caught.value.exit_code == 9
    assert qm.load(path, max_bytes=needed).classical.size == 1 << 20
    assert qm.load(path, max_bytes=needed - 32, out=bytearray(32)).classical.size == 1 << 20
    monkeypatch.setattr(reader, "physical_memory", lambda: needed - 1)
    with qm.open(path) as file:
        for load in (lambda: qm.load(path), file.load):
            with pytest.raises(BudgetError, match="are allowed"):
                load()
        assert file.load(max_bytes=needed).classical.size == 1 << 20


@pytest.mark.parametrize("lie", [{"dims": [3]}, {"qubit_order": "middle"}, {"labels": ["a", "a"]}, {"kind": "vector"}])
def test_what_loading_refuses_does_not_verify_where_the_state_is_too_large_to_be_put_together(tmp_path, lie):
    path = tmp_path / "large.qms"
    length = 5 * (8 << 20)
    node = STATE | {"dims": [length // 8]}
    state = forge.zeros("quantum/amplitudes", (length // 8,))
    path.write_bytes(forge.qms(state, forge.says(quantum_data={"$state": node})))
    assert qm.verify(path).problems == ["the norm is 0, not 1"]
    path.write_bytes(forge.qms(state, forge.says(quantum_data={"$state": node | lie})))
    for verb in (qm.load, qm.verify):
        with pytest.raises(qm.QuantumMemoryError) as caught:
            verb(path)
        assert caught.value.exit_code in {4, 5}
        assert caught.value.path == str(path)


def test_a_skipped_entry_with_the_name_of_the_amplitudes_is_not_taken_for_them(tmp_path):
    path = tmp_path / "later.qms"
    extra = forge.array("quantum/amplitudes", np.full(8, np.nan), section=77, flags=0)
    path.write_bytes(
        forge.qms(
            forge.zeros("quantum/amplitudes", (5 << 20,)),
            forge.says(quantum_data={"$state": STATE | {"dims": [5 << 20]}}),
            extra,
        )
    )
    assert qm.verify(path).problems == ["the norm is 0, not 1"]


def test_the_element_type_of_a_skipped_entry_must_be_known_since_the_number_of_its_chunks_follows(tmp_path):
    path = tmp_path / "later.qms"
    path.write_bytes(forge.qms(AMPLITUDES, HONEST, forge.array("metadata", [1.0], section=77, flags=0, kind=15)))
    with pytest.raises(IntegrityError, match="not well formed"):
        qm.load(path)


# ---- chunks that are not what their names say


def test_a_chunk_of_other_bytes_is_neither_restored_nor_exported_nor_verified(tmp_path):
    """Its checksum is right, and so is that of all that is about it."""
    other = bytes(len(folders.NOISE))
    folders.copied("backups", folders.restored(folders.TOP, folders.entry("f")), "kept")(tmp_path)
    folders.put_pack([(folders.CHUNK, other, 0, len(other))])(tmp_path / "kept")
    with qm.BackupManager(tmp_path / "kept") as manager:
        with pytest.raises(IntegrityError):
            manager.restore_backup(folders.SECOND, tmp_path / "out")
        with pytest.raises(IntegrityError):
            manager.export_backup([folders.SECOND], tmp_path / "out.qmb")
        assert not manager.verify_backup(folders.SECOND)
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]

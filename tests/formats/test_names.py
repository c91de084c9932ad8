"""Names after an @ in a path: of a checkpoint in a folder, and of a state in a store, in the place of a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.durability.chunk_store import ChunkStore
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, MissingError, MissingFileError
from quantum_memory.formats.names import named_in
from quantum_memory.formats.urls import local_path
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager


def state(seed: int) -> qm.StateVector:
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=64) + 1j * rng.normal(size=64)
    return qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="little")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder "run" with three checkpoints: "before", tagged "best", "after", a tree, and one of the branch "side"."""
    monkeypatch.chdir(tmp_path)
    with CheckpointManager("run", signals=False, durable=False, parameters={"lr": 0.1}) as manager:
        made = [
            manager.create_checkpoint(
                qm.MemoryState(state(1), classical={"step": 1}), "before", progress=1, metrics={"energy": -1.0}
            ),
            manager.create_checkpoint({"psi": state(2), "rng": np.random.default_rng(7)}, "after", progress=2),
        ]
        manager.tag(made[0], "best")
        manager.branch("side", at=made[0])
        made.append(manager.create_checkpoint(state(3), "a@b"))
    return made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store "store.h5" with the states "one" and "two@2"."""
    monkeypatch.chdir(tmp_path)
    storage = qm.HDF5QuantumStorage("store.h5")
    storage.save_quantum_state(state(1), "one")
    storage.save_quantum_state(state(2), "two@2")


# ---- checkpoints


@pytest.mark.parametrize(
    "path", ["run@best", "run/@best", "./run@before", "{there}/run@best", "file://{there}/run@best"]
)
def test_a_checkpoint_is_loaded_by_its_name(run: list[str], tmp_path: Path, path: str) -> None:
    memory = qm.load(path.format(there=tmp_path))
    assert (memory.quantum, memory.classical) == (state(1), {"step": 1})


def test_an_id_its_beginning_a_branch_and_a_name_with_an_at_name_one_as_well(run: list[str]) -> None:
    assert qm.load(f"run@{run[0]}").quantum == qm.load(f"run@{run[0][:-1]}").quantum == state(1)
    assert qm.load("run@side").quantum == qm.load("run@a@b").quantum == state(3)
    assert qm.load(Path("run@main")).record["checkpoint"]["id"] == run[1]


def test_a_tree_is_the_classical_part(run: list[str]) -> None:
    memory = qm.load("run@after")
    assert memory.quantum is None
    assert memory.classical["psi"] == state(2)


def test_every_verb_takes_a_name(run: list[str]) -> None:
    content = qm.load("run@best").content_id
    with CheckpointManager("run", signals=False) as manager:
        assert manager.get_checkpoint("best")["content_id"] == content
    report, facts = qm.verify("run@best"), qm.info("run@best")
    assert (report.content_id, report.path, report.format) == (content, "run@best", "checkpoint")
    assert (facts["content_id"], facts["path"], facts["bytes"]) == (content, "run@best", 1024)
    assert facts["record"]["checkpoint"]["progress"] == 1
    with qm.open("run@best") as file:
        assert np.array_equal(file.amplitudes[3:5], state(1).amplitudes[3:5])
    assert qm.load("run@best", only="step") == {"step": 1}
    assert qm.load("run@best", mmap=True).quantum == state(1)
    assert qm.compare("run@side", state(3)).same_content
    assert qm.verify_certificate("run@best", "run@best").measured == 0
    assert qm.recompress("run@best", "small.qms").content_id == content


def test_what_is_converted_is_what_is_exported(run: list[str]) -> None:
    done = qm.convert("run@best", "converted.qms")
    assert (done.source, done.source_format) == ("run@best", "checkpoint")
    with CheckpointManager("run", signals=False) as manager:
        manager.export_checkpoint("best", "exported.qms")
    assert Path("converted.qms").read_bytes() == Path("exported.qms").read_bytes()
    with CheckpointManager("other", signals=False, durable=False) as manager:
        facts = manager.get_checkpoint(manager.import_checkpoint("run@best"))
    assert {name: facts[name] for name in ("name", "progress", "metrics", "parameters")} == {
        "name": "before", "progress": 1, "metrics": {"energy": -1.0}, "parameters": {"lr": 0.1},
    }  # fmt: skip


def test_nothing_is_removed_while_a_checkpoint_is_open_and_nothing_is_made_by_looking(run: list[str]) -> None:
    there = sorted(Path().rglob("*"))
    folder = ChunkStore("run")
    with qm.open("run@best"):
        assert sorted(Path().rglob("*")) == there
        with pytest.raises(ConflictError, match="somebody else is reading it"), folder.alone(timeout=0.05):
            pass
    with folder.alone(timeout=0.05):
        pass
    for read in (qm.load, qm.info, qm.verify):
        read("run@best")
    with folder.alone(timeout=0.05):
        pass


@pytest.mark.parametrize("use", [qm.load, qm.open, qm.info, qm.verify, lambda path: qm.convert(path, "out.qms")])
def test_a_name_that_there_is_not_is_said_with_those_that_there_are(run: list[str], use: object) -> None:
    with pytest.raises(MissingFileError) as caught:
        use("run@nope")  # type: ignore[operator]
    assert str(caught.value) == (
        "run: there is no checkpoint 'nope'. Next: it has best, main, side, a@b, after, before; "
        "qmem checkpoint -C run list shows all"
    )
    assert not Path("out.qms").exists()


def test_an_id_that_two_begin_with_and_a_tag_of_one_that_is_gone_are_said(run: list[str]) -> None:
    with pytest.raises(ConflictError, match="means 3 checkpoints"):
        qm.load("run@2")
    Path("run/checkpoints", f"{run[0]}.qmcp").unlink()
    with pytest.raises(MissingFileError, match=r"no checkpoint 'best'\. Next: it has main, side"):
        qm.load("run@best")


def test_damage_is_said_with_where_it_is(run: list[str]) -> None:
    amplitudes = state(1).amplitudes.tobytes()
    (pack,) = (path for path in Path("run/chunks").glob("*.qmpack") if amplitudes in path.read_bytes())
    data = bytearray(pack.read_bytes())
    data[data.index(amplitudes)] ^= 1
    pack.write_bytes(data)
    for read in (qm.load, qm.verify, lambda path: qm.convert(path, "out.qms")):
        with pytest.raises(IntegrityError) as caught:
            read("run@best")
        assert caught.value.path in {"run@best", str(pack.absolute())}
    assert not Path("out.qms").exists()
    assert qm.load("run@side").quantum == state(3)


def test_options_that_a_checkpoint_does_not_have_are_refused(run: list[str]) -> None:
    with pytest.raises(InvalidStateError, match="which has no id"):
        qm.load("run@best", state_id="x")
    with pytest.raises(InvalidStateError, match="it is not encrypted"):
        qm.load("run@best", key="secret")
    with pytest.raises(InvalidStateError, match="one of several is not replaced in place"):
        qm.recompress("run@best")


# ---- states of a store


def test_a_state_of_a_store_is_loaded_by_its_id(store: None, tmp_path: Path) -> None:
    assert qm.load("store.h5@one") == qm.load("store.h5", state_id="one")
    assert qm.load(tmp_path / "store.h5@two@2").quantum == state(2)
    report = qm.verify("store.h5@one")
    assert (report.path, report.content_id) == ("store.h5@one", qm.load("store.h5@one").content_id)
    assert qm.info("store.h5@two@2")["content_id"] == qm.load("store.h5@two@2").content_id
    with qm.open("store.h5@one") as file:
        assert file.amplitudes[5] == state(1).amplitudes[5]
    assert not qm.compare("store.h5@one", "store.h5@two@2").same_content
    assert qm.load(qm.convert("store.h5@two@2", "two.qms").path) == qm.load("store.h5@two@2")


def test_a_state_that_there_is_not_is_said_with_those_that_there_are(store: None) -> None:
    with pytest.raises(MissingFileError, match=r"^store.h5: there is no state 'nope'\. Next: it has one, two@2;"):
        qm.load("store.h5@nope")
    with pytest.raises(MissingError, match="it has one, two@2"):
        qm.load("store.h5", state_id="nope")
    with pytest.raises(MissingFileError, match=r"^gone\.h5: there is no such file"):
        qm.load("gone.h5@one")
    with pytest.raises(InvalidStateError, match="both say which state"):
        qm.load("store.h5@one", state_id="two@2")


def test_a_store_is_not_replaced_by_one_of_its_states(store: None) -> None:
    qm.save(state(3), "alone.h5")
    before = Path("alone.h5").read_bytes()
    with pytest.raises(InvalidStateError, match="it is the file that is to be converted"):
        qm.convert("alone.h5@state", "alone.h5", overwrite=True)
    with pytest.raises(InvalidStateError, match="one of several is not replaced in place"):
        qm.recompress("alone.h5@state")
    assert Path("alone.h5").read_bytes() == before


def test_a_state_of_a_store_that_is_lost_comes_from_its_backup(store: None) -> None:
    with qm.BackupManager("backups", durable=False) as backups:
        backups.create_backup("store.h5")
    wanted = qm.load("store.h5@one")
    ladder = qm.Ladder(backups="backups")
    for spoil in (lambda: Path("store.h5").write_bytes(b"\x89HDF\r\n\x1a\n"), Path("store.h5").unlink):
        spoil()
        with pytest.warns(UserWarning, match="This is from the level 'backup'"):
            assert qm.load("store.h5@one", fallback=ladder) == wanted


# ---- what is no name


def test_a_file_that_is_called_so_comes_first(run: list[str], store: None) -> None:
    qm.save(state(9), "other.qms")
    for path in ("run@best", "store.h5@one", "run@nothing"):
        shutil.copy("other.qms", path)
        assert qm.load(path).quantum == state(9)
        assert qm.info(path)["format"] == "qms"
    Path("a@b.qms").write_bytes(Path("other.qms").read_bytes())
    assert qm.load("a@b.qms").quantum == state(9)


def test_a_folder_may_have_an_at_in_its_name(run: list[str]) -> None:
    Path("run").rename("run@2026")
    assert qm.load("run@2026@best").quantum == state(1)
    Path("there@x").mkdir()
    Path("run@2026").rename("there@x/run")
    assert qm.load("there@x/run@best").quantum == state(1)


@pytest.mark.parametrize("path", ["plain@x", "gone@x", "notes@x", "one.qms@x", "@x", "plain@", "a@b/c"])
def test_what_names_nothing_is_a_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain").mkdir()
    Path("notes").write_text("no state")
    qm.save(state(1), "one.qms")
    with pytest.raises(MissingFileError, match="there is no such file") as caught:
        qm.load(path)
    assert caught.value.path == path


def test_a_path_without_an_at_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError

    monkeypatch.setattr("quantum_memory.formats.names.current", refuse)
    assert named_in("run/one.qms") is None


# ---- file:// addresses


def test_a_file_by_its_address_is_that_file_for_every_verb(tmp_path: Path) -> None:
    there = f"file://{tmp_path}"
    qm.save(state(1), f"{there}/a%20b.qms", encrypt="secret")
    assert (tmp_path / "a b.qms").exists()
    reading = {"key": "secret"}
    memory = qm.load(f"{there}/a%20b.qms", **reading)
    assert qm.verify(f"{there}/a%20b.qms", **reading).content_id == memory.content_id
    assert qm.info(f"{there}/a%20b.qms", **reading)["encrypted"]["keys"] == 1
    assert qm.compare(f"{there}/a%20b.qms", tmp_path / "a b.qms", **reading).same_content
    with pytest.raises(InvalidStateError, match="it is the file that is to be converted"):
        qm.convert(tmp_path / "a b.qms", f"{there}/a%20b.qms", overwrite=True, **reading)
    done = qm.convert(f"{there}/a%20b.qms", f"{there}/c.json", decrypt=True, **reading)
    assert done.path == str(tmp_path / "c.json")
    with pytest.raises(ConflictError, match="the file exists already"):
        qm.convert(f"{there}/a%20b.qms", f"{there}/c.json", decrypt=True, **reading)


def test_a_file_is_compressed_where_its_address_says(tmp_path: Path) -> None:
    path = tmp_path / "zeros.qms"
    amplitudes = np.zeros(1 << 12)
    amplitudes[0] = 1
    qm.save(qm.StateVector(amplitudes, qubit_order="big"), path, compression="none")
    before = path.stat().st_size
    done = qm.recompress(f"file://{path}")
    assert (done.path, done.bytes) == (str(path), path.stat().st_size)
    assert path.stat().st_size < before
    assert qm.recompress(f"file://{path}").bytes == path.stat().st_size


@pytest.mark.parametrize("path", ["file://data/x.qms", "file://", "file://elsewhere"])
def test_a_file_of_another_machine_is_refused(path: str) -> None:
    with pytest.raises(InvalidStateError, match="no address of a file on this machine"):
        qm.load(path)
    with pytest.raises(InvalidStateError, match="no address of a file on this machine"):
        qm.save(state(1), path)
    assert local_path("file://localhost/x.qms") == "/x.qms"


def test_a_target_that_exists_is_refused_before_an_address_is_read(tmp_path: Path) -> None:
    url, target = f"icechunk+file://{tmp_path}/repository", tmp_path / "there.qms"
    qm.save(state(1), url)
    target.write_bytes(b"precious")

    def refuse(count: int) -> None:
        raise AssertionError(count)

    for write in (qm.convert, qm.recompress):
        with pytest.raises(ConflictError, match="the file exists already"):
            write(url, target, progress=refuse)
    assert target.read_bytes() == b"precious"


def test_a_smaller_form_at_an_address_is_a_newer_version(tmp_path: Path) -> None:
    url = f"icechunk+file://{tmp_path}/repository"
    amplitudes = np.zeros(1 << 12)
    amplitudes[0] = 1
    qm.save(qm.StateVector(amplitudes, qubit_order="big"), url)
    with pytest.raises(InvalidStateError, match="a version is never replaced"):
        qm.recompress(url)
    with pytest.raises(ConflictError, match="there is a memory already"):
        qm.recompress(url, url)
    done = qm.recompress(url, f"{url}@small", overwrite=True)
    assert done.bytes < done.source_bytes
    newer, older = qm.repository(url).history()
    assert (newer.tags, older.tags) == (("small",), ())
    assert qm.load(f"{url}@{older.id}") == qm.load(f"{url}@small")


def test_zeros_have_no_ratio_at_an_address(tmp_path: Path) -> None:
    saved = qm.save({"classical_data": {"w": np.zeros(10)}}, f"icechunk+file://{tmp_path}/repository")
    assert (saved.bytes, saved.raw_bytes, saved.ratio) == (0, 80, None)

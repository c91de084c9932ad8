"""What `CheckpointManager` does with a folder it does with an address, in a folder and in object storage."""

from __future__ import annotations

import datetime
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory import CheckpointManager, EverySteps, KeepLast
from quantum_memory.cli import main
from quantum_memory.cloud import cleaning
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    UnsafeError,
)
from quantum_memory.formats.urls import URL
from quantum_memory.lifecycle.purging import purge

from .conftest import stored_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator


def _state(seed: int = 0, n: int = 12) -> qm.StateVector:
    amplitudes = np.random.default_rng(seed).normal(size=2 << n).view(complex)
    return qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="little")


def _manager(path: Any, **options: Any) -> CheckpointManager:
    return CheckpointManager(path, signals=False, **options)


def _numbers(cm: CheckpointManager) -> list[int]:
    return [one["number"] for one in cm.list_checkpoints()]


def _damage(url: str) -> None:
    """Flip a bit of the largest chunk that is there."""
    path = max(Path(URL.parse(url).key, "chunks").iterdir(), key=lambda path: path.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_a_run_goes_on_where_it_was(url: str) -> None:
    def tree() -> dict[str, Any]:
        return {"psi": _state(1), "rng": np.random.default_rng(3), "model": {"w": np.zeros(3), "log": ["begun"]}}

    kept = tree()
    with _manager(url, save=EverySteps(2), parameters={"lr": 0.1}) as cm:
        assert cm.resume() is None
        assert cm.list_checkpoints() == []
        for step in range(1, 6):
            kept["model"]["w"] += kept["rng"].normal(size=3)
            cm.step(kept, progress=step, loss=1 / step)
            cm.wait()
        last = cm.finish(kept, progress=5)
    with _manager(url, parameters={"more": True}) as cm:
        found = cm.resume(update={"lr": 0.2})
        assert found is not None
        assert found.progress == 5
        assert cm.parameters == {"more": True, "lr": 0.2}
        assert np.array_equal(found.state["model"]["w"], kept["model"]["w"])
        assert found.state["psi"] == kept["psi"]
        assert found.state["rng"].random() == kept["rng"].random()
        assert [one["progress"] for one in cm.list_checkpoints()] == [5, 4, 2]
        assert cm.get_checkpoint(last)["finished"]
        target = tree()
        inner = target["model"]["w"]
        assert cm.restore_checkpoint(target, last) is target
        assert inner is target["model"]["w"]
        assert np.array_equal(inner, kept["model"]["w"])
        assert [line["action"] for line in cm.folder.log()] == ["resumed", "restored"]


def test_what_is_said_of_them_is_what_a_folder_says(url: str, tmp_path: Path) -> None:
    said = []
    for place in (tmp_path / "checkpoints", url):
        with _manager(place, parameters={"g": 0.5}) as cm:
            first = cm.create_checkpoint(qm.MemoryState(_state(1), {"k": np.arange(9)}), "a", "first", progress=1)
            cm.create_checkpoint({"psi": _state(1)}, metrics={"e": float("inf"), "n": 3}, automatic=True)
            cm.branch("trial", at=first)
            cm.create_checkpoint(_state(2), progress={"epoch": 1}, finished=True)
            listed = cm.list_checkpoints()
            ids = [one["id"] for one in listed]
            for one in listed:
                one["parent"] = one["parent"] and ids.index(one["parent"])
                for name in ("id", "created_at", "new_bytes"):
                    del one[name]
            said.append((listed, cm.get_statistics()["branches"], [*cm.verify().values()]))
    assert said[0] == said[1]
    assert [one["branch"] for one in said[1][0]] == ["trial", "main", "main"]


def test_only_what_has_changed_is_written(url: str) -> None:
    state = _state(1, 17)  # two chunks of 1 MiB of amplitudes in one of 2 MiB
    tree = {"psi": state, "weights": np.random.default_rng(0).normal(size=(3, 1 << 20)), "step": np.ones(4)}
    with _manager(url) as cm:
        cm.create_checkpoint(tree)
        tree["step"] += 1
        cm.create_checkpoint(tree)
        tree["weights"][2, -1] = 7
        cm.create_checkpoint(tree)
        new = [one["new_bytes"] for one in reversed(cm.list_checkpoints())]
    assert new == [tree["weights"].nbytes + (2 << 20) + 32, 32, 8 << 20]


def test_names_of_all_kinds(url: str) -> None:
    memories = [qm.MemoryState(_state(k), {"k": k}) for k in range(4)]
    with _manager(url) as cm:
        ids = [cm.create_checkpoint(memory, f"step-{k}") for k, memory in enumerate(memories[:3])]
        cm.branch("trial", at=ids[0])
        ids.append(cm.create_checkpoint(memories[3], "step-3"))
        cm.tag("step-1", "good")
        cm.pin(ids[2])
        assert [(one["tags"], one["pinned"]) for one in reversed(cm.list_checkpoints())] == [
            ([], False), (["good"], False), ([], True), ([], False),
        ]  # fmt: skip
        assert cm.resolve("good") == ids[1] == cm.resolve(ids[1][:-1])
    names = {"step-2": 2, "good": 1, ids[0]: 0, "trial": 3, "main": 2, ids[2][:-2]: 2}
    for name, k in names.items():
        memory = qm.load(f"{url}@{name}")
        assert memory == memories[k], name
        assert memory.record["checkpoint"]["id"] == ids[k]
    assert qm.load(url) == memories[2]
    assert qm.info(f"{url}@good")["content_id"] == memories[1].content_id
    with pytest.raises(MissingFileError, match="no tag, branch or snapshot 'step-9'"):
        qm.load(f"{url}@step-9")
    with _manager(url) as cm:
        cm.untag("good")
        cm.unpin(ids[2])
        cm.tag("step-2", "good")  # they move, as in a folder
        assert cm.resolve("good") == ids[2]
        with pytest.raises(MissingError, match="no tag 'other'"):
            cm.untag("other")
        with pytest.raises(MissingError, match="there is no checkpoint 'other'"):
            cm.tag("other", "x")


def test_no_more_are_kept_than_a_policy_says(url: str) -> None:
    with _manager(url, keep=KeepLast(2)) as cm:
        ids = [cm.create_checkpoint(_state(k)) for k in range(3)]
        cm.tag(ids[-1], "paper")
        ids += [cm.create_checkpoint(_state(k)) for k in range(3, 7)]
        assert _numbers(cm) == [7, 6, 3]
        assert [line["checkpoint"] for line in cm.folder.log() if line["action"] == "removed"] == [
            ids[0], ids[1], ids[3], ids[4],
        ]  # fmt: skip
        assert set(cm.prune(dry_run=True)["kept"]) == {ids[2], ids[5], ids[6]}
        with pytest.raises(MissingError):
            cm.restore(ids[0])
        assert cm.verify() == {ids[6]: None, ids[5]: None, ids[2]: None}
    assert qm.load(url).quantum == _state(6)
    assert qm.load(f"{url}@paper").quantum == _state(2)


def test_what_was_removed_frees_its_place(folder_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _manager(folder_url, max_checkpoints=3) as cm:
        for k in range(8):
            cm.create_checkpoint(_state(k, 16))
        before = stored_bytes(folder_url)
        assert before > 8 << 20
        monkeypatch.setattr(cleaning, "_HOUR", datetime.timedelta(0))
        done = cm.folder.collect()
        assert stored_bytes(folder_url) < before - (5 << 20)
        assert done.bytes_removed >= 5 << 20
        assert cm.get_statistics()["stored_bytes"] == done.bytes_kept == 3 * ((1 << 20) + 4)
        assert set(cm.verify().values()) == {None}
        assert [version.message for version in qm.repository(folder_url).history()] == [
            "checkpoint 8", "checkpoint 7", "checkpoint 6",
        ]  # fmt: skip


@pytest.mark.parametrize("late", [False, True])
def test_versions_of_others_stay(folder_url: str, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """They are in the history of the branch, between checkpoints that go, also where clocks differ."""
    monkeypatch.setattr(cleaning, "_HOUR", datetime.timedelta(0))
    plain = {}
    with _manager(folder_url, max_checkpoints=1) as cm:
        if not late:
            plain[qm.save(_state(100), folder_url).content_id] = _state(100)
        for k in range(3):
            cm.create_checkpoint(_state(k))
        plain[qm.save(_state(101), folder_url).content_id] = _state(101)
        for k in range(3, 6):
            cm.create_checkpoint(_state(k))
        cm.folder.collect()
        assert _numbers(cm) == [6]
        found = {version.metadata["content_id"]: version.id for version in qm.repository(folder_url).history()}
        for content, state in plain.items():
            assert qm.load(f"{folder_url}@{found[content]}").quantum == state
        assert qm.load(folder_url).quantum == _state(5)


def test_the_newest_is_deleted(url: str) -> None:
    with _manager(url) as cm:
        ids = [cm.create_checkpoint(_state(k)) for k in range(3)]
        cm.pin(ids[2])
        with pytest.raises(ConflictError, match="pinned or has a tag"):
            cm.delete_checkpoint(ids[2])
        cm.unpin(ids[2])
        cm.delete_checkpoint(ids[2])
        assert qm.load(url).quantum == _state(1)
        found = cm.resume()
        assert found is not None
        assert found.state == _state(1)
        for one in ids[:2]:
            cm.delete_checkpoint(one)
        assert cm.resume() is None
        with pytest.raises(MissingFileError):
            qm.load(url)
        cm.create_checkpoint(_state(9))
        assert qm.load(url).quantum == _state(9)


def test_one_goes_back_and_on(url: str) -> None:
    with _manager(url) as cm:
        ids = [cm.create_checkpoint({"k": k}, progress=k) for k in range(4)]
        assert cm.restore_checkpoint({"k": 0}, ids[1]) == {"k": 1}
        again = cm.create_checkpoint({"k": 10})
        assert cm.get_checkpoint(again)["parent"] == ids[1]
        assert _numbers(cm) == [5, 4, 3, 2, 1]
        assert qm.load(url).classical == {"k": 10}
        assert {cm.restore(one)["k"] for one in ids} == {0, 1, 2, 3}


def test_a_damaged_one_is_passed_over_and_nothing_relies_on_it(folder_url: str) -> None:
    with _manager(folder_url, max_checkpoints=1) as cm:
        one = cm.create_checkpoint(_state(1, 16), progress=1)
        two = cm.create_checkpoint({"only": 2}, progress=2)
        _damage(folder_url)
        assert cm.verify(two) == {two: None}
        with pytest.raises(MissingError):
            cm.verify(one)  # it had gone
    with _manager(folder_url, keep=KeepLast(5)) as cm:
        first = cm.create_checkpoint(_state(1, 17), progress=3)
        cm.create_checkpoint({"only": 4}, progress=4)
        newest = cm.create_checkpoint(_state(2, 17), progress=5)
        _damage(folder_url)
        wrong = [one for one, error in cm.verify().items() if error is not None]
        assert wrong in ([first], [newest])
        again = cm.create_checkpoint(_state(2, 17), progress=6)
        assert cm.verify(again) == {again: None}


def test_the_newest_that_can_be_read_is_taken_up(folder_url: str) -> None:
    with _manager(folder_url) as cm:
        cm.create_checkpoint({"k": 1})
        cm.create_checkpoint(_state(1, 17))
        _damage(folder_url)
    with _manager(folder_url) as cm:
        with pytest.warns(UserWarning, match="is passed over"):
            found = cm.resume()
        assert found is not None
        assert found.state == {"k": 1}
        assert cm.folder.log()[-1]["action"] == "resumed"


def test_several_save_at_once(url: str) -> None:
    failed: list[BaseException] = []

    def work(who: int) -> Iterator[None]:
        with _manager(url, keep=KeepLast(100)) as cm:
            for k in range(5):
                made = cm.create_checkpoint({"who": who, "k": k}, f"{who}-{k}")
                cm.tag(made, f"t{who}-{k}")
                yield

    def run(who: int) -> None:
        try:
            for _ in work(who):
                pass
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    with _manager(url) as cm:
        listed = cm.list_checkpoints()
        assert sorted(one["name"] for one in listed) == sorted(f"{who}-{k}" for who in range(3) for k in range(5))
        assert all(one["tags"] == [f"t{one['name']}"] for one in listed)
        newest = cm.resume()
        assert newest is not None
        assert qm.load(url).record["checkpoint"]["id"] == listed[0]["id"]


def test_files_and_other_folders(url: str, tmp_path: Path) -> None:
    with _manager(url, parameters={"g": 1}) as cm, _manager(tmp_path / "local") as local:
        one = cm.create_checkpoint(qm.MemoryState(_state(1), {"k": 1}), "a", progress=7, metrics={"e": 0.5})
        cm.export_checkpoint(one, tmp_path / "a.qms")
        there = local.import_checkpoint(f"{url}@a")
        assert local.get_checkpoint(there)["name"] == "a"
        assert local.get_checkpoint(there)["metrics"] == {"e": 0.5}
        back = cm.import_checkpoint(tmp_path / "a.qms", "b")
        assert cm.get_checkpoint(back)["branch"] == "imported"
        assert cm.restore(back) == cm.restore(one)
        changed = cm.create_checkpoint(qm.MemoryState(_state(2), {"k": 2}), "c", progress=8)
        found = cm.compare_checkpoints(one, changed)
        assert found.said["progress"] == (7, 8)
        assert found.tree.changed == 2
        assert qm.compare(f"{url}@a", tmp_path / "a.qms").same_content
    broken = tmp_path / "broken.qms"
    broken.write_bytes(b"\x89QMS\r\n\x1a\n" + bytes(100))
    with pytest.warns(UserWarning, match=changed):
        assert qm.load(broken, fallback=qm.Ladder(checkpoints=url)) == qm.MemoryState(_state(2), {"k": 2})


def test_one_content_is_purged(url: str) -> None:
    with _manager(url, max_checkpoints=50) as cm:
        wanted = qm.MemoryState(_state(1))
        ids = [cm.create_checkpoint(wanted), cm.create_checkpoint(_state(2)), cm.create_checkpoint(wanted, "again")]
        cm.tag(ids[0], "paper")
        rehearsed = purge(wanted.content_id, checkpoints=[cm], dry_run=True)
        assert [one["id"] for one in rehearsed.checkpoints] == [ids[0], ids[2]]
        assert _numbers(cm) == [3, 2, 1]
        done = purge(wanted.content_id, checkpoints=[cm])
        assert (done.checkpoints[0]["tags"], _numbers(cm)) == (["paper"], [2])
        assert any("younger than an hour" in said for said in done.unreached)
        assert cm.folder.refs().tags == {}
        qm.save(wanted, url)
        assert any("no checkpoint" in said for said in purge(wanted.content_id, checkpoints=[cm]).unreached)


def test_what_cannot_be_asked_for(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidStateError, match="address of one version"):
        CheckpointManager(f"{url}@one")
    with _manager(url, compression="zstd") as cm, pytest.raises(InvalidStateError, match="no compression 'zstd'"):
        cm.create_checkpoint({"k": 1})
    with _manager(url) as cm:
        assert not cm.folder.is_there
        with pytest.raises(MissingError, match="there is no checkpoint"):
            cm.restore()
        with pytest.raises(MissingError):
            cm.pin("x")


def test_storage_that_keeps_nobody_apart_is_refused(prefix: str, careless: str) -> None:
    with _manager(f"{prefix}?endpoint={careless}") as cm, pytest.raises(UnsafeError, match="keep two writers apart"):
        cm.create_checkpoint({"k": 1})


def test_amplitudes_that_are_elsewhere(url: str) -> None:
    state = _state(3, 20)
    qm.save(state, f"{url}-source")
    there = qm.load(f"{url}-source").quantum
    assert isinstance(there, qm.ShardedStateVector)
    with _manager(url) as cm:
        cm.create_checkpoint(there, "far")
        assert cm.restore("far") == state
    assert isinstance(qm.load(f"{url}@far").quantum, qm.ShardedStateVector)


def test_the_command(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        capfd.readouterr()
        code = main.run(["checkpoint", *arguments, "--json"])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, json.loads(out)

    at = ("-C", url)
    code, said = run("list", *at)
    assert (code, said["error"]["type"]) == (MissingError.exit_code, "MissingError")
    qm.save(_state(1), "a.qms")
    assert run("import", "a.qms", "--name", "a", *at)[0] == 0
    with _manager(url) as cm:
        cm.create_checkpoint(_state(2), "b")
        cm.create_checkpoint(_state(3), "c")
    assert [one["name"] for one in run("list", *at)[1]["checkpoints"]] == ["c", "b", "a"]
    shown = run("show", "b", *at)[1]
    assert shown["sections"][0]["path"] == "quantum/amplitudes"
    assert run("tag", "b", "good", *at)[0] == run("pin", "a", *at)[0] == 0
    assert run("diff", "a", "good", *at)[1]["same_content"] is False
    assert len(run("verify", *at)[1]["good"]) == 3
    assert run("restore", "good", "--to", "back.qms", *at)[0] == 0
    assert qm.load("back.qms").quantum == _state(2)
    pruned = run("prune", "--keep-last", "1", *at)[1]
    assert (len(pruned["removed"]), len(pruned["kept"])) == (0, 3)
    assert run("unpin", "a", *at)[0] == 0
    assert len(run("prune", "--keep-last", "1", *at)[1]["removed"]) == 1
    assert run("delete", "good", *at)[0] == ConflictError.exit_code
    assert run("untag", "good", *at)[0] == run("delete", "b", *at)[0] == run("gc", *at)[0] == 0
    actions = [one["action"] for one in run("log", *at)[1]["entries"]]
    assert actions.count("removed") == actions.count("deleted") == 1
    assert main.run(["checkpoint", "log", "--graph", *at]) == 0
    assert main.run(["checkpoint", "show", "c", *at]) == main.run(["checkpoint", "list", *at]) == 0
    capfd.readouterr()
    assert main.run(["checkpoint", "show", "c", *at]) == main.run(["checkpoint", "gc", *at]) == 0
    shown = capfd.readouterr().out
    assert "which is not there any more" in shown  # b was deleted
    assert "younger than an hour" in shown
    with _manager(url) as cm:
        cm.create_checkpoint(_state(4), "d")
    assert main.run(["checkpoint", "show", "d", *at]) == 0
    assert "not there any more" not in capfd.readouterr().out
    assert main.run(["verify", f"{url}@c"]) == main.run(["info", f"{url}@c"]) == 0


def test_a_version_that_is_another_one_is_damaged(folder_url: str) -> None:
    with _manager(folder_url) as cm:
        one, two = (cm.create_checkpoint(_state(k)) for k in range(2))
    refs = Path(URL.parse(folder_url).key, "refs")
    first = (refs / f"tag.{one}" / "ref.json").read_bytes()
    (refs / f"tag.{two}" / "ref.json").write_bytes(first)
    with _manager(folder_url) as cm:
        assert "it says that it is the checkpoint" in str(cm.verify()[two])
        with pytest.raises(IntegrityError):
            cm.get_checkpoint(two)

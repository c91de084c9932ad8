"""A run is saved and goes on from there; what fails changes nothing; what is not needed goes, and nothing else."""

import contextlib
import copy
import math
import warnings

import numpy as np
import pytest
import torch

import quantum_memory as qm
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    UnsupportedVersionError,
)
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints.folder import CheckpointFolder
from quantum_memory.lifecycle.due import Always, EverySteps, WhenBetter
from quantum_memory.lifecycle.retention import KeepAll, KeepBest, KeepEvery, KeepLast, KeepManual
from quantum_memory.testing.equality import assert_identical

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def manager(run, **options):
    return CheckpointManager(run, **{"signals": False, "durable": False, **options})


def state(k, size=1000):
    return {"w": np.arange(size, dtype=np.float64) + k, "k": k, "deep": [{"b": np.full((2, 3), k, np.complex64)}]}


def manifest_at(run, one):
    return run / "checkpoints" / (one + CheckpointFolder.suffix)


def damage(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def damage_pack_of(run, manager, one):
    """Damage a chunk that this checkpoint alone has."""
    (array,) = [array for path, array in manager.folder.manifest(one).arrays.items() if path == "classical/w"]
    with manager.folder.store.shared():
        name, place = manager.folder.store.place(array.chunk(0))
    damage(run / "chunks" / name, place.offset + 3)


def size_of(run):
    return sum(path.stat().st_size for path in run.rglob("*") if path.is_file())


# There and back


def ghz():
    amplitudes = np.zeros(8, np.complex128)
    amplitudes[[0, -1]] = math.sqrt(0.5)
    return qm.StateVector(amplitudes, qubit_order="little", labels=["a", "b", "c"])


def interface(seed):
    made = qm.QuantumClassicalInterface(n_qubits=3)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        made.encode(rng.uniform(-1, 1, 3).tolist())
        made.decode(shots=50, seed=seed)
    return made


TARGETS = {
    "a state": ghz,
    "a chain": lambda: qm.MatrixProductState([np.ones((1, 2, 1)), np.ones((1, 2, 1))], log_scale=0.5),
    "a memory": lambda: qm.MemoryState(ghz(), {"w": np.arange(3)}, {"pad": [0.1, 0.2, 0.3]}, {"a": 1}),
    "a tree": lambda: {"s": ghz(), "t": torch.arange(3.0), "n": (1, [None, "ü", b"\0"]), "e": np.zeros((0, 2))},
    "nothing": lambda: None,
    "a number": lambda: 0.1,
}


@pytest.mark.parametrize("compression", ["none", "zstd", "zlib", "lz4"])
@pytest.mark.parametrize("what", TARGETS)
def test_what_is_saved_comes_back(run, what, compression):
    target = TARGETS[what]()
    with manager(run, compression=compression) as cm:
        one = cm.create_checkpoint(target, "here", "and there", progress=3, metrics={"e": np.float64(-1.5)})
        assert_identical(cm.restore(one), target)
        assert_identical(cm.restore(), target)
        facts = cm.get_checkpoint(one)
        assert cm.verify() == {one: None}
    assert (facts["name"], facts["description"], facts["progress"]) == ("here", "and there", 3)
    assert facts["metrics"] == {"e": -1.5}
    assert (facts["automatic"], facts["finished"], facts["tags"], facts["pinned"]) == (False, False, [], False)


def test_an_interface_is_saved_and_restored_in_place(run):
    first, other = interface(1), interface(2)
    kept = first.to_memory()
    with manager(run) as cm:
        one = cm.create_checkpoint(first)
        assert other.to_memory() != kept
        assert cm.restore_checkpoint(other, one) is other
        assert other.to_memory() == kept
        assert cm.restore(one) == kept


def test_modules_and_optimisers_go_on_where_they_were(run):
    def made(seed):
        torch.manual_seed(seed)
        model = torch.nn.Linear(4, 3)
        return {"model": model, "optimizer": torch.optim.Adam(model.parameters(), 0.1), "step": 0}

    def trained(it):
        it["optimizer"].zero_grad()
        it["model"](torch.ones(2, 4)).pow(2).sum().backward()
        it["optimizer"].step()
        return it["model"].weight.detach().clone()

    first, other = made(0), made(1)
    trained(first)
    with manager(run) as cm:
        cm.create_checkpoint(first, progress=1)
        expected = trained(first)
        assert cm.resume(other).state is other
        assert torch.equal(trained(other), expected)


def test_only_what_is_asked_for_is_read(run):
    with manager(run) as cm:
        one = cm.create_checkpoint(state(0))
        two = cm.create_checkpoint({**state(0), "w": np.zeros(5)})
        damage_pack_of(run, cm, one)
        assert list(cm.restore(one, only="k")) == ["k"]
        assert_identical(cm.restore(one, only="deep.*"), {"deep.0.b": state(0)["deep"][0]["b"]})
        with pytest.raises(IntegrityError):
            cm.restore(one, only="w")
        with pytest.raises(MissingError):
            cm.restore(two, only="nothing")


@pytest.mark.parametrize("only", [None, "w"])
def test_arrays_are_mapped_and_outlive_their_pack(run, only):
    target = {"w": np.arange(400_000, dtype=np.float64), "x": np.ones(7, np.int8)}
    with manager(run) as cm:
        one = cm.create_checkpoint(target)
        mapped = cm.restore(one, mmap=True, only=only)
        mapped = mapped if only else dict(mapped)
        cm.create_checkpoint({})
        cm.delete_checkpoint(one)
        assert len(cm.list_checkpoints()) == 1
        assert np.array_equal(mapped["w"], target["w"])
        mapped["w"][:] = 0  # a private copy
        owner = mapped["w"]
        while isinstance(owner, np.ndarray):
            owner = owner.base
        assert isinstance(owner, memoryview)


def test_what_is_mapped_is_checked(run):
    with manager(run) as cm:
        one = cm.create_checkpoint(state(0))
        damage_pack_of(run, cm, one)
        for only in (None, "w"):
            with pytest.raises(IntegrityError):
                cm.restore(one, mmap=True, only=only)


@pytest.mark.parametrize("suffix", ["qms", "h5", "json"])
def test_a_checkpoint_goes_through_a_file_of_its_own(run, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    facts = {
        "progress": {"step": 3}, "metrics": {"e": -1.5, "gap": math.nan, "worst": -math.inf}, "finished": True,
    }  # fmt: skip
    with manager(run, parameters={"rate": 0.5}) as cm:
        one = cm.create_checkpoint({"state": ghz(), **state(4)}, "here", "and there", **facts)
        cm.export_checkpoint(one, path)
    with manager(tmp_path / "other") as cm:
        two = cm.import_checkpoint(path)
        assert two != one
        assert_identical(cm.restore(two), {"state": ghz(), **state(4)})
        found = cm.get_checkpoint(two)
        assert (found["name"], found["description"], found["kind"]) == ("here", "and there", "tree")
        assert (found["parameters"], found["finished"], found["progress"]) == ({"rate": 0.5}, True, {"step": 3})
        assert_identical(found["metrics"], facts["metrics"])
        assert cm.import_checkpoint(path, "another") != two
        assert cm.list_checkpoints()[0]["name"] == "another"


@pytest.mark.parametrize(
    "said",
    [
        {"metrics": [1]}, {"metrics": {"e": "low"}}, {"metrics": {"e": [1]}}, {"parameters": [1]}, {"parameters": 7},
        {"metrics": 7},
    ],
)  # fmt: skip
def test_a_file_that_says_nonsense_of_itself_is_refused(run, tmp_path, said):
    qm.save(qm.MemoryState(classical=1, record={"checkpoint": {"kind": "tree", **said}}), tmp_path / "x.qms")
    with manager(run) as cm:
        with pytest.raises(IntegrityError):
            cm.import_checkpoint(tmp_path / "x.qms")
        assert cm.list_checkpoints() == []


def test_a_file_that_is_damaged_is_not_imported(run, tmp_path):
    qm.save(ghz(), tmp_path / "x.qms")
    damage(tmp_path / "x.qms", 300)
    with manager(run) as cm, pytest.raises(IntegrityError):
        cm.import_checkpoint(tmp_path / "x.qms")
    assert cm.list_checkpoints() == []


def test_figures_of_the_folder(run):
    with manager(run) as cm:
        assert cm.get_statistics()["checkpoints"] == 0
        for k in range(3):
            cm.create_checkpoint(state(k), automatic=k == 1)
        figures = cm.get_statistics()
        assert (figures["checkpoints"], figures["automatic"], figures["manual"], figures["damaged"]) == (3, 1, 2, 0)
        assert figures["stored_bytes"] == sum(path.stat().st_size for path in (run / "chunks").iterdir())
        assert figures["latest"] == cm.list_checkpoints()[0]["id"]


def test_what_cannot_be_kept_is_refused_before_anything_is_written(run):
    with manager(run) as cm:
        for target, facts in [
            ({"a": object()}, {}),
            (1, {"progress": object()}),
            (1, {"progress": math.nan}),
            (1, {"metrics": {"e": "low"}}),
            (1, {"metrics": {"e": True}}),
            (1, {"name": 7}),
        ]:
            with pytest.raises(InvalidStateError):
                cm.create_checkpoint(target, **facts)
        assert cm.list_checkpoints() == []
    for options in ({"branch": "a b"}, {"max_checkpoints": 0}, {"max_checkpoints": 1.5}, {"share": 0}):
        with pytest.raises(InvalidStateError):
            manager(run, **options)


# Names


def test_a_checkpoint_is_named_by_its_id_its_beginning_a_tag_or_its_name(run):
    with manager(run) as cm:
        one = cm.create_checkpoint(state(1), "one")
        two = cm.create_checkpoint(state(2), "two")
        cm.tag(one, "paper")
        assert {cm.resolve(name) for name in (one, one[:-1], "paper", "one")} == {one}
        with pytest.raises(ConflictError, match="means 2"):
            cm.resolve(one[:8])
        for name in ("", "three", "../x"):
            with pytest.raises(MissingError):
                cm.resolve(name)
        assert cm.restore("two")["k"] == 2
        cm.untag("paper")
        with pytest.raises(MissingError):
            cm.restore("paper")
        assert two == cm.list_checkpoints()[0]["id"]


def test_branches_go_their_own_ways(run):
    with manager(run) as cm:
        root = cm.create_checkpoint(state(0), progress=0)
        main = cm.create_checkpoint(state(1), progress=1)
        cm.branch("other", at=root)
        side = cm.create_checkpoint(state(7), progress=7)
        parents = {one["id"]: (one["branch"], one["parent"]) for one in cm.list_checkpoints()}
        assert parents == {root: ("main", None), main: ("main", root), side: ("other", root)}
        assert cm.resume().progress == 7
    with manager(run) as cm:
        assert cm.resume().progress == 1
        assert cm.create_checkpoint(state(2)) != main
        assert cm.list_checkpoints()[0]["parent"] == main
    with manager(run, branch="other") as cm:
        assert cm.resume().progress == 7
        assert cm.restore()["k"] == 7
    with manager(run, branch="new") as cm:
        assert cm.resume() is None


# Going on


def test_a_run_goes_on_with_changed_parameters_and_can_be_extended(run):
    with manager(run, parameters={"bond_dimension": 64, "rate": 0.1}, save=EverySteps(10), background=False) as cm:
        assert cm.resume() is None
        for step in range(25):
            cm.step(state(step), progress=step)
        cm.finish(state(25), progress=25, energy=-1.0)
    with manager(run, parameters={"rate": 0.7, "new": True}, save=EverySteps(10), background=False) as cm:
        found = cm.resume(update={"bond_dimension": 256})
        assert_identical(found.state, state(25))
        assert found.progress == 25
        assert cm.parameters == {"bond_dimension": 256, "rate": 0.1, "new": True}
        newest = cm.list_checkpoints()[0]
        assert (newest["finished"], newest["metrics"]) == (True, {"energy": -1.0})
        due = [step for step in range(26, 41) if cm.step(state(step), progress=step)]
        assert due == [30, 40]
        newest, *_, oldest = cm.list_checkpoints()
        assert (newest["parameters"]["bond_dimension"], newest["finished"]) == (256, False)
        assert oldest["parameters"]["bond_dimension"] == 64


def test_what_was_better_is_remembered(run):
    with manager(run, save=WhenBetter("energy"), background=False) as cm:
        assert [cm.step(1, step, energy=e) for step, e in enumerate((-1.0, -0.5, math.nan, -1.5))] == [1, 0, 0, 1]
    with manager(run, save=WhenBetter("energy"), background=False) as cm:
        cm.resume()
        assert [cm.step(1, step, energy=e) for step, e in enumerate((-1.2, -1.6))] == [0, 1]


def test_an_update_that_cannot_be_kept_changes_nothing(run):
    with manager(run, parameters={"rate": 0.1}) as cm:
        cm.create_checkpoint(state(0))
        target = state(5)
        with pytest.raises(InvalidStateError):
            cm.resume(target, update={"rate": object()})
        assert_identical(target, state(5))
        assert cm.parameters == {"rate": 0.1}


def test_parameters_and_progress_are_those_of_the_moment(run):
    rates = [0.5]
    with manager(run, parameters={"rates": rates}) as cm:
        one = cm.create_checkpoint(1)
        rates.append(0.25)
        two = cm.create_checkpoint(1)
        assert [cm.get_checkpoint(name)["parameters"]["rates"] for name in (one, two)] == [[0.5], [0.5, 0.25]]


# Nothing changes on failure; the newest that is whole takes the place of a damaged one


def test_a_target_that_does_not_fit_is_as_it_was(run):
    with manager(run) as cm:
        cm.create_checkpoint(state(0))
        for target in (
            {**state(5), "w": np.zeros(3)},
            {**state(5), "w": np.zeros(1000, np.float32)},
            {**state(5), "deep": [{"b": np.zeros((2, 3), np.complex64), "c": 1}]},
            {"k": 1},
        ):
            before = copy.deepcopy(target)
            with pytest.raises(InvalidStateError):
                cm.restore_checkpoint(target)
            assert_identical(target, before)
            with pytest.raises(InvalidStateError):
                cm.resume(target)
            assert_identical(target, before)


WAYS = {
    "a chunk": damage_pack_of,
    "the text": lambda run, cm, one: damage(manifest_at(run, one)),
    "the head": lambda run, cm, one: damage(manifest_at(run, one), 140),
    "its beginning": lambda run, cm, one: damage(manifest_at(run, one), 3),
    "an empty file": lambda run, cm, one: manifest_at(run, one).write_bytes(b""),
    "a folder in its place": lambda run, cm, one: (manifest_at(run, one).unlink(), manifest_at(run, one).mkdir()),
}


@pytest.mark.parametrize("what", WAYS)
def test_a_damaged_checkpoint_is_passed_over_and_named(run, what):
    with manager(run) as cm:
        ids = [cm.create_checkpoint(state(k), progress=k) for k in range(3)]
        WAYS[what](run, cm, ids[2])
    with manager(run) as cm:
        target = state(9)
        with pytest.raises((IntegrityError, qm.UnsafeError), match="pack" if what == "a chunk" else ids[2]):
            cm.restore_checkpoint(target, ids[2])
        assert_identical(target, state(9))
        with pytest.raises((IntegrityError, qm.UnsafeError)):
            cm.restore()
        with pytest.warns(UserWarning, match=f"{ids[2]} is passed over") as said:
            assert cm.resume(target).progress == 1
        assert {warning.filename for warning in said} == {__file__}
        assert_identical(target, state(1))
        assert [line["checkpoint"] for line in cm.folder.log() if line["action"] == "passed over"] == [ids[2]]
        for name, fallback in ((None, False), (ids[2], True)):
            target = state(9)
            with pytest.warns(UserWarning, match="passed over"):
                cm.restore_checkpoint(target, name, fallback=fallback)
            assert_identical(target, state(1))
        assert cm.verify(ids[1]) == {ids[1]: None}
        newer = cm.create_checkpoint(state(4), progress=4)
        assert cm.list_checkpoints()[0]["id"] == newer
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is older than a good one does not matter
            assert cm.resume().progress == 4
            assert cm.restore_checkpoint(state(9), ids[1], fallback=True)["k"] == 1


@pytest.mark.parametrize("what", WAYS)
def test_when_none_can_be_read_a_run_does_not_begin_anew_unseen(run, what):
    with manager(run) as cm:
        ids = [cm.create_checkpoint(state(k), progress=k) for k in range(2)]
        for one in ids:
            WAYS[what](run, cm, one)
    target = state(9)
    with manager(run) as cm:
        for resume in (lambda: cm.resume(target), lambda: cm.restore_checkpoint(target)):
            with (
                pytest.warns(UserWarning, match="passed over"),
                pytest.raises((IntegrityError, qm.UnsafeError, MissingError)),
            ):
                resume()
        assert_identical(target, state(9))


def test_one_of_a_later_release_is_not_passed_over(run):
    import xxhash

    with manager(run) as cm:
        one = cm.create_checkpoint(state(0))
        two = cm.create_checkpoint(state(1))
        data = bytearray(manifest_at(run, two).read_bytes())
        data[8:16] = (7).to_bytes(4, "little") * 2
        data[120:128] = xxhash.xxh3_64_intdigest(bytes(data[:120])).to_bytes(8, "little")
        manifest_at(run, two).write_bytes(data)
    with manager(run) as cm:
        with pytest.raises(UnsupportedVersionError, match="version 7"):
            cm.resume()
        assert cm.restore(one)["k"] == 0


def test_a_fallback_stays_in_the_branch(run):
    with manager(run) as cm:
        root = cm.create_checkpoint(state(0), progress=0)
        cm.branch("other", at=root)
        cm.create_checkpoint(state(5), progress=5)
        cm.branch("main", at=root)
        last = cm.create_checkpoint(state(1), progress=1)
        damage_pack_of(run, cm, last)
        with pytest.warns(UserWarning, match=last):
            assert cm.restore_checkpoint(state(9), last, fallback=True)["k"] == 0


# What goes


def test_twenty_are_kept_and_automatic_ones_go_first(run):
    with manager(run) as cm:
        for k in range(24):
            cm.create_checkpoint(k, automatic=k % 2 == 0, progress=k)
        there = [one["progress"] for one in cm.list_checkpoints()][::-1]
        assert there == [1, 3, 5, 7, *range(8, 24)]
        for k in range(24, 40):
            cm.create_checkpoint(k, progress=k)
        there = [one["progress"] for one in cm.list_checkpoints()][::-1]
        assert there == [7, 9, 11, 13, 15, 17, 19, 21, *range(23, 24), *range(24, 40)][-20:]
        assert list(cm.verify().values()) == [None] * 20


def test_policies_remove_files_and_never_what_is_needed(run):
    shared = np.arange(50_000, dtype=np.float64)
    with manager(run, keep=KeepLast(2) | KeepBest("e") | KeepManual()) as cm:
        made = [
            cm.create_checkpoint(
                {"shared": shared, **state(k)}, automatic=k != 1, metrics={"e": abs(k - 4)}, progress=k
            )
            for k in range(10)
        ]
        there = {one["progress"] for one in cm.list_checkpoints()}
        assert there == {1, 4, 8, 9}
        assert set(cm.verify().values()) == {None}
        assert len(list((run / "checkpoints").iterdir())) == 4
        assert size_of(run) < 400_000 + 4 * 20_000 + 10_000
        assert_identical(cm.restore(made[4]), {"shared": shared, **state(4)})


def test_pins_and_tags_hold_and_let_go(run):
    with manager(run, keep=KeepLast(1)) as cm:
        one = cm.create_checkpoint(state(1))
        cm.pin(one)
        two = cm.create_checkpoint(state(2))
        cm.tag(two, "paper")
        three = cm.create_checkpoint(state(3))
        assert {item["id"] for item in cm.list_checkpoints()} == {one, two, three}
        for held in (one, two):
            with pytest.raises(ConflictError, match="pinned or has a tag"):
                cm.delete_checkpoint(held)
        cm.unpin(one)
        cm.untag("paper")
        plan = cm.prune(dry_run=True)
        assert set(plan["removed"]) == {one, two}
        assert len(cm.list_checkpoints()) == 3
        done = cm.prune()
        assert set(done["removed"]) == {one, two}
        assert done["collection"]["packs_removed"] + done["collection"]["packs_written"] >= 1
        assert cm.verify() == {three: None}


def test_the_old_goes_only_after_the_new_was_read_back(run, monkeypatch):
    with manager(run, keep=KeepLast(1)) as cm:
        old = cm.create_checkpoint(state(0))
        publish = CheckpointFolder.publish

        def bad_disk(folder, head, data):
            publish(folder, head, data)
            (new,) = set((run / "chunks").iterdir()) - before
            damage(new, 70)

        before = set((run / "chunks").iterdir())
        with monkeypatch.context() as patch:
            patch.setattr(CheckpointFolder, "publish", bad_disk)
            with pytest.raises(IntegrityError, match="do not match"):
                cm.create_checkpoint(state(1))
        assert cm.verify(old) == {old: None}
        new = cm.create_checkpoint(state(1))
        assert cm.verify() == {new: None}


def test_what_hinders_a_removal_does_not_make_a_save_fail(run):
    """A checkpoint that is durable is not said to be lost: the run would end for the sake of an old file."""
    with manager(run, keep=KeepLast(1), parameters={"a": 1}) as cm:
        first = cm.create_checkpoint(state(0))
        cm.pin(first)
        damage(manifest_at(run, first))  # so that nobody knows which chunks it needs
        cm.create_checkpoint(state(1))
        with pytest.warns(UserWarning, match="was saved, but others were not removed") as said:
            second = cm.create_checkpoint(state(1), progress=1)
        assert said[0].filename == __file__
        assert cm.verify(second) == {second: None}
        cm.unpin(first)
        cm.delete_checkpoint(first)
        (run / "refs.json").write_bytes(b"{}")
        with pytest.warns(UserWarning, match=r"refs\.json"):
            third = cm.create_checkpoint(state(2), progress=2)
        assert cm.resume().progress == 2
        (run / "refs.json").unlink()
        last = cm.create_checkpoint(state(3))
        assert cm.verify() == {last: None}
        assert third != last


def test_a_deleted_checkpoint_takes_its_chunks_along(run):
    with manager(run) as cm:
        one, two = cm.create_checkpoint(state(1, 50_000)), cm.create_checkpoint(state(2, 50_000))
        full = size_of(run)
        cm.delete_checkpoint(two)
        assert full - size_of(run) > 390_000
        three = cm.create_checkpoint(state(3))
        assert cm.get_checkpoint(three)["parent"] == one
        with pytest.raises(MissingError):
            cm.delete_checkpoint(two)


@pytest.mark.parametrize("keep", [KeepAll(), KeepEvery("1d")])
def test_with_a_policy_there_are_as_many_as_that_keeps(run, keep):
    with manager(run, keep=keep) as cm:
        for k in range(25):
            cm.create_checkpoint(k)
        assert len(cm.list_checkpoints()) == (25 if keep == KeepAll() else 1)


# What is there already is not written again


def test_a_tree_that_has_not_changed_takes_next_to_nothing(run):
    target = {"w": np.random.default_rng(0).normal(size=1 << 18), "names": [str(k) for k in range(100)]}
    with manager(run) as cm:
        cm.create_checkpoint(target)
        before = size_of(run)
        one = cm.create_checkpoint(target)
        assert size_of(run) - before <= 100 * KIB
        assert cm.get_checkpoint(one)["new_bytes"] == 0


def test_a_head_over_a_frozen_body_takes_only_what_the_head_does(run):
    rng = np.random.default_rng(0)
    body = {str(k): rng.normal(size=1 << 15) for k in range(16)}
    with manager(run) as cm:
        cm.create_checkpoint({"body": body, "head": rng.normal(size=1000)})
        for _ in range(5):
            before = size_of(run)
            cm.create_checkpoint({"body": body, "head": rng.normal(size=1000)})
            assert size_of(run) - before <= 8000 + 100 * KIB


def test_two_hundred_checkpoints_of_a_run_that_grows_take_what_is_unique(run):
    rng = np.random.default_rng(0)
    blocks = []
    with manager(run, max_checkpoints=1000) as cm:
        for _ in range(200):
            blocks.append(rng.normal(size=1 << 13))
            cm.create_checkpoint({"log": list(blocks)}, progress=len(blocks))
        unique = sum(block.nbytes for block in blocks)
        packs = sum(path.stat().st_size for path in (run / "chunks").iterdir())
        assert len(cm.list_checkpoints()) == 200
    assert packs <= 1.05 * unique
    assert size_of(run) <= 1.15 * unique  # with the names of chunks, 32 bytes for each in each manifest
    with manager(run) as cm:
        assert_identical(cm.resume().state, {"log": blocks})


def test_a_step_saves_always_or_never(run):
    with manager(run, background=False) as cm:
        assert not cm.step(1, 1)
    with manager(run, save=Always(), background=False) as cm:
        assert cm.step(1, 1)
        assert [one["automatic"] for one in cm.list_checkpoints()] == [True]


def test_a_newest_that_others_remove_meanwhile_is_not_missed(run, monkeypatch):
    """Another process saves a newer one and removes this one just before it is read back."""
    with manager(run, keep=KeepLast(1)) as cm, manager(run, keep=KeepLast(1)) as other:
        cm.create_checkpoint(state(0))
        check, newer = CheckpointFolder.check, []

        def late(folder, one, *more):
            if not newer:
                newer.append("")
                newer[0] = other.create_checkpoint(state(2))
            return check(folder, one, *more)

        monkeypatch.setattr(CheckpointFolder, "check", late)
        one = cm.create_checkpoint(state(1))
        assert [item["id"] for item in cm.list_checkpoints()] == newer != [one]


@pytest.mark.parametrize("how", ["resume", "restore", "restore into", "only"])
def test_the_newest_is_not_removed_between_the_choice_and_the_reading(run, how):
    """Others do so all the time, where a policy keeps few."""

    class Slow(CheckpointManager):
        def _newest_first(self, branch=None):
            ids = super()._newest_first(branch)
            with contextlib.suppress(ConflictError), other.folder.store.alone(timeout=0.01):
                other.folder.remove(ids[:1])
                other.folder.collect()
            return ids

    with manager(run) as other, Slow(run, signals=False) as cm:
        other.create_checkpoint(state(1))
        into = state(0)
        found = {
            "resume": lambda: cm.resume().state["k"],
            "restore": lambda: cm.restore()["k"],
            "restore into": lambda: cm.restore_checkpoint(into)["k"],
            "only": lambda: cm.restore(only="k")["k"],
        }[how]()
        assert found == 1
        assert len(other.list_checkpoints()) == 1


def test_looking_for_a_checkpoint_makes_no_folder(run):
    with manager(run) as cm:
        assert cm.resume() is None
        for look in (cm.restore, lambda: cm.restore_checkpoint(state(0))):
            with pytest.raises(MissingError, match="there is no checkpoint"):
                look()
    assert not run.exists()

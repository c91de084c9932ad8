"""Real payloads go on bit for bit, in the same process and in another, and cost what changed of them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from quantum_memory.durability import files
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.checkpoints.randomness import Randomness
from quantum_memory.lifecycle.checkpoints.targets import captured
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.faults import RecordingFiles

from .payloads import KEPT, PAYLOADS, deberta, emotion, fusion, gone_on, identity, memories, memories_step

KIB = 1024


@pytest.fixture(autouse=True)
def _global_states():
    before = Randomness().state_dict()
    yield
    Randomness().load_state_dict(before)


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "run", signals=False) as made:
        yield made


def bytes_in(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def test_all_go_on_bit_for_bit_in_the_same_process_and_in_another(tmp_path):
    """One for all of them, since most of its time goes into the imports."""
    expected = {}
    for name, (make, _) in PAYLOADS.items():
        run = make(seed=7)
        gone_on(name, run)
        at = identity(run)
        with CheckpointManager(tmp_path / name, signals=False) as manager:
            manager.create_checkpoint(run)
            expected[name] = gone_on(name, run)
            assert expected[name][-1] != at, name

            assert manager.restore_checkpoint(run) is run
            assert identity(run) == at, name
            assert gone_on(name, run) == expected[name], name
    another = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.lifecycle.checkpoints.payloads", tmp_path],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert another.returncode == 0, another.stderr
    assert json.loads(another.stdout) == expected


def test_an_interface_is_given_back_whole(manager):
    run = emotion(7)
    gone_on("emotion", run)
    before = run["interface"].to_memory().content_id
    manager.create_checkpoint(run)
    gone_on("emotion", run)
    manager.restore_checkpoint(run)
    assert run["interface"].to_memory().content_id == before


def test_what_is_shared_is_shared_again_where_it_is_replaced(manager):
    """An in-place copy goes into an array; what is replaced, since it has grown, is another one, once."""
    array = np.arange(3.0)
    run = {"log": [array], "last": array, "index": [{"of": array}]}
    manager.create_checkpoint(run)
    run["log"].append(np.ones(2))
    run["index"].append(5)
    manager.restore_checkpoint(run)
    assert run["last"] is array
    assert run["log"][0] is run["index"][0]["of"]


def test_tied_tensors_are_stored_once_and_tied_again(manager):
    run = deberta(7)
    names = ("deberta.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    manager.create_checkpoint({"model": run["model"]})
    parameters = sum(one.nbytes for one in run["model"].parameters())  # which names each tensor once
    assert manager.list_checkpoints()[0]["raw_bytes"] == parameters
    state = manager.restore()["model"]
    assert state[names[0]] is state[names[1]]

    other = deberta(8)
    manager.restore_checkpoint({"model": other["model"]})
    first, second = (other["model"].get_parameter(name) for name in names)
    assert first is second
    assert torch.equal(first, run["model"].get_parameter(names[0]))


def test_a_changed_head_costs_the_head(manager):
    run = fusion(7)
    gone_on("fusion", run, steps=1)
    manager.create_checkpoint(run)
    before = bytes_in(manager.folder.path)
    frozen = sum(one.nbytes for one in run["model"].parameters() if not one.requires_grad)
    head = sum(one.nbytes for one in run["model"].head.parameters())
    assert frozen > 40 * head

    gone_on("fusion", run)
    manager.create_checkpoint(run)
    changed = 3 * head  # the parameters, and two moments of each
    assert bytes_in(manager.folder.path) - before <= changed + 100 * KIB
    assert changed <= manager.list_checkpoints()[0]["new_bytes"] <= changed + 100 * KIB


def test_a_memory_that_grows_and_forgets_costs_what_is_new(manager):
    run = memories(7)
    memories_step(run)
    manager.create_checkpoint(run)
    old = {one["timestamp"] for one in run["log"]}
    before = bytes_in(manager.folder.path)
    memories_step(run)
    manager.create_checkpoint(run)
    new = [one for one in run["log"] if one["timestamp"] not in old]
    assert 0 < len(new) <= 20
    assert len(run["log"]) == KEPT
    # Texts and times of all are in the manifest.
    assert bytes_in(manager.folder.path) - before <= sum(one["embedding"].nbytes for one in new) + 64 * KIB
    assert_identical(manager.restore()["log"], run["log"])


@pytest.mark.parametrize("mmap", [False, True])
def test_one_layer_is_read_alone(manager, mmap):
    run = deberta(7)
    gone_on("deberta", run, steps=1)
    target = {**run["model"].state_dict(), "half": torch.ones(3, dtype=torch.bfloat16)}
    at = manager.create_checkpoint(target)
    layer = {name: one for name, one in target.items() if name.startswith("deberta.encoder.layer.3.")}
    wanted = sum(one.nbytes for one in layer.values())
    everything = manager.list_checkpoints()[0]["raw_bytes"]

    with files.using(recorded := RecordingFiles()), CheckpointManager(manager.folder.path, signals=False) as fresh:
        found = fresh.restore(at, only="deberta.encoder.layer.3.*", mmap=mmap)
    assert found.keys() == layer.keys()
    for name, one in layer.items():
        assert torch.equal(found[name], one)
    # The index of the packs and the manifest; what is mapped is not read by a call.
    around = recorded.bytes_read - (0 if mmap else wanted)
    assert 0 < around < 64 * KIB
    assert wanted < everything / 4

    half = manager.restore(at, only="half", mmap=mmap)["half"]
    assert half.dtype == torch.bfloat16
    found["deberta.encoder.layer.3.output.dense.bias"].add_(1)  # a private copy, where it is mapped
    assert manager.verify() == {at: None}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_whole_checkpoint_is_mapped(tmp_path, compression):
    run = fusion(7)
    with CheckpointManager(tmp_path / "run", signals=False, compression=compression) as manager:
        manager.create_checkpoint(run)
        state = manager.restore(mmap=True)
        words = manager.restore(only="model.words.weight", mmap=True)  # of several chunks
    assert_identical(words, {"model.words.weight": run["model"].words.weight.detach()})
    assert_identical(state["model"], captured(run).memory.classical["model"])
    assert np.isfinite(state["model"]["words.weight"].numpy()).all()  # after the folder was let go

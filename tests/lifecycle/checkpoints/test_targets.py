"""What is captured goes on bit for bit when it is given back; what does not fit changes nothing."""

import copy
import math
import random
import warnings
from collections import Counter, OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import nn

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, InvalidStateError, UnsupportedVersionError
from quantum_memory.lifecycle.checkpoints.objects import Functions, Remembering
from quantum_memory.lifecycle.checkpoints.randomness import Randomness
from quantum_memory.lifecycle.checkpoints.targets import captured, rebuilt, restore_into
from quantum_memory.state.emotional_state import Emotion
from quantum_memory.testing.equality import assert_identical


@pytest.fixture
def stored(tmp_path):
    """Return a function that captures a target, saves it, and returns kind and memory as read from the file."""

    def store(target):
        taken = captured(target)
        qm.save(taken.memory, tmp_path / "target.qms")
        return taken.kind, qm.load(tmp_path / "target.qms")

    return store


def plain(tree):
    """Return a copy of what a tree holds, with plain values in the places of objects."""
    return copy.deepcopy(captured(tree).memory.classical)


# ---- training goes on bit for bit


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(0.3), nn.Linear(7, 3))


def trained(run, steps=4):
    """Train with noise from all sources; return the losses."""
    losses = []
    for _ in range(steps):
        inputs = torch.randn(8, 5) * random.random() + torch.from_numpy(np.random.mtrand._rand.random((8, 5))).float()

        def closure(inputs=inputs):
            run["optimizer"].zero_grad()
            loss = run["model"](inputs).pow(2).sum()
            loss.backward()
            return loss

        losses.append(run["optimizer"].step(closure).item())
        if "scheduler" in run:
            run["scheduler"].step()
    return losses


def a_run(make_optimizer, make_scheduler=None, seed=0):
    model = network(seed)
    run = {"model": model, "optimizer": make_optimizer(model.parameters())}
    if make_scheduler is not None:
        run["scheduler"] = make_scheduler(run["optimizer"])
    return run | {"randomness": Randomness(), "step": 0}


OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, 0.01),
    "AdamW, amsgrad": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "SGD, momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True),
    "LBFGS": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
    "RMSprop, two groups": lambda p: torch.optim.RMSprop(
        [{"params": (q := list(p))[:2], "lr": 0.1}, {"params": q[2:]}], 0.01, centered=True
    ),
    "Adafactor": torch.optim.Adafactor,
}

schedules = torch.optim.lr_scheduler
SCHEDULERS = {
    "StepLR": lambda o: schedules.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [2, 3, 3, 6]),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.1, total_steps=40),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.ConstantLR(o), schedules.MultiStepLR(o, [1, 3])], [3]
    ),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 3),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about the order of its own calls in SequentialLR
@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [*((name, "StepLR") for name in OPTIMIZERS), *(("Adam", name) for name in SCHEDULERS if name != "StepLR")],
)
def test_a_training_goes_on_bit_for_bit(stored, optimizer, scheduler):
    run = a_run(OPTIMIZERS[optimizer], SCHEDULERS[scheduler])
    trained(run)
    run["step"] = 4
    kind, memory = stored(run)
    losses, end = trained(run), plain(run)

    run["step"] = 8
    assert restore_into(run, kind, memory) is run
    assert run["step"] == 4
    assert trained(run) == losses
    assert_identical(plain(run), end)

    another = a_run(OPTIMIZERS[optimizer], SCHEDULERS[scheduler], seed=1)  # as in another process
    restore_into(another, kind, memory)
    assert trained(another) == losses
    assert_identical(plain(another), end)


def test_what_is_given_back_is_not_shared_with_the_checkpoint(stored):
    run = a_run(OPTIMIZERS["Adam"])
    trained(run)
    kind, memory = stored(run)
    name = memory.content_id
    restore_into(run, kind, memory)
    losses = trained(run)
    assert memory.content_id == name
    restore_into(run, kind, memory)
    assert trained(run) == losses


@pytest.mark.parametrize("target", ["model", "optimizer"])
def test_an_object_may_be_the_whole_target(stored, target):
    run = a_run(OPTIMIZERS["Adam"])
    trained(run)
    one, before = run[target], plain(run[target])
    kind, memory = stored(one)
    trained(run)
    assert restore_into(one, kind, memory) is one
    assert_identical(plain(one), before)
    assert_identical(rebuilt(kind, memory), before)
    if target == "model":
        assert "classical/0.weight" in memory.flatten().arrays
        network(3).load_state_dict(rebuilt(kind, memory))


def test_a_gradient_scaler_is_kept(stored):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(1))
    kind, memory = stored({"scaler": scaler})
    scaler.update(4.0)
    restore_into({"scaler": scaler}, kind, memory)
    assert scaler.get_scale() == 8.0


class Counting(torch.optim.SGD):
    """Keeps what torch would cast to the type of the parameter."""

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["count"] = state.get("count", torch.tensor(2**40)) + 1
            state["exact"] = [torch.full((2,), math.pi, dtype=torch.float64), {"name": "text"}]
        return super().step(closure)


def test_the_state_of_an_optimizer_keeps_its_types(stored):
    run = a_run(lambda p: Counting(p, 0.01))
    trained(run)
    kind, memory = stored(run)
    before = plain(run)
    trained(run)
    restore_into(run, kind, memory)
    assert_identical(plain(run), before)
    assert run["optimizer"].state_dict()["state"][0]["count"].dtype == torch.int64


# ---- types of tensors, ties


class Odd(nn.Module):
    def __init__(self, fill):
        super().__init__()
        for name in ("bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2"):
            items = torch.full((2, 3), fill).to(getattr(torch, name))
            setattr(self, f"as_{name}", nn.Parameter(items, requires_grad="8_" not in name))
        self.register_buffer("mask", torch.tensor([True, fill > 1, False]))
        self.register_buffer("phases", torch.tensor([1j, fill]))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.head = nn.Linear(3, 3, bias=False)
        self.body = nn.Linear(3, 3, bias=False)
        self.body.weight = self.head.weight
        self.told = {"fill": fill}

    def get_extra_state(self):
        return self.told

    def set_extra_state(self, state):
        self.told = state


def test_every_type_and_ties_are_kept(stored):
    module = Odd(1.5)
    kind, memory = stored({"module": module})
    before = plain(module)
    arrays = memory.flatten().arrays
    assert sum(path.endswith((".weight", "weight")) for path in arrays) == 1
    state = rebuilt(kind, memory)["module"]
    assert type(state) is OrderedDict
    assert state._metadata == module.state_dict()._metadata
    assert state["head.weight"] is state["body.weight"]
    assert_identical(state, before)

    other = Odd(0.25)
    weight = other.head.weight
    restore_into({"module": other}, kind, memory)
    assert other.head.weight is other.body.weight is weight
    assert_identical(plain(other), before)
    other.told["fill"] = 3
    assert memory.classical["module"]["_extra_state"] == {"fill": 1.5}


def test_tensors_of_a_tree_are_written_in_place(stored):
    weight = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    target = {"weight": weight, "views": (weight[1:], [torch.tensor(1j)])}
    kind, memory = stored(target)
    with torch.no_grad():
        weight.fill_(7)
    restore_into(target, kind, memory)
    assert target["weight"] is weight
    assert weight.tolist() == [*target["views"][0].tolist(), 1.0] == [1.0] * 3
    assert weight.requires_grad


# ---- sources of random numbers

BIT_GENERATORS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


def numpy_numbers(source):
    return [*source.normal(size=3), *source.integers(0, 9, 3, np.uint8), source.integers(0, 2**31, dtype=np.uint32)]


@pytest.mark.parametrize("bits", BIT_GENERATORS)
def test_generators_of_numpy_go_on(stored, bits):
    source = np.random.Generator(bits(12))
    numpy_numbers(source)
    source.spawn(2)
    kind, memory = stored({"source": source})

    def go_on(one):
        return [*numpy_numbers(one), *one.spawn(1)[0].random(2)]

    expected = go_on(source)
    restore_into({"source": source}, kind, memory)
    assert go_on(source) == expected
    assert go_on(rebuilt(kind, memory)["source"]) == expected
    other = np.random.Generator(bits(99))
    restore_into({"source": other}, kind, memory)
    assert go_on(other) == expected


@pytest.mark.parametrize("bits", BIT_GENERATORS)
def test_random_states_of_numpy_go_on(stored, bits):
    source = np.random.RandomState(bits(12))
    source.normal()
    kind, memory = stored(source)
    expected = source.normal(size=4).tolist()
    assert restore_into(source, kind, memory).normal(size=4).tolist() == expected
    assert rebuilt(kind, memory).normal(size=4).tolist() == expected


def test_a_generator_that_was_seeded_with_a_key_is_kept(stored):
    source = np.random.Generator(np.random.Philox(key=5))
    kind, memory = stored(source)
    expected = source.random(3).tolist()
    assert rebuilt(kind, memory).random(3).tolist() == expected
    assert restore_into(source, kind, memory).random(3).tolist() == expected


def test_other_sources_go_on(stored):
    target = {"python": random.Random(3), "torch": [torch.Generator().manual_seed(2**40 + 1)]}

    def go_on(tree):
        one = tree["python"]
        return [one.gauss(0, 1), one.random(), *torch.rand(3, generator=tree["torch"][0]).tolist()]

    go_on(target)
    kind, memory = stored(target)
    expected = go_on(target), go_on(target)
    restore_into(target, kind, memory)
    assert (go_on(target), go_on(target)) == expected
    made = rebuilt(kind, memory)
    assert (go_on(made), go_on(made)) == expected


def test_a_generator_of_a_device_that_is_not_here_stays_plain():
    state = {"device": "cuda:77", "state": np.zeros(16, np.uint8)}
    memory = qm.MemoryState(classical={"g": state}, metadata={"objects": [[["g"], "torch_generator"]]})
    assert_identical(rebuilt("tree", memory), {"g": state})
    with pytest.raises(InvalidStateError, match=r"g draws on cuda in the checkpoint and on cpu in the target"):
        restore_into({"g": torch.Generator()}, "tree", memory)


def test_a_source_of_another_kind_does_not_fit():
    held = captured({"g": np.random.default_rng(1)})
    with pytest.raises(InvalidStateError, match=r"g draws from PCG64 in the checkpoint and from SFC64 in the target"):
        restore_into({"g": np.random.Generator(np.random.SFC64(1))}, held.kind, held.memory)
    held = captured(np.random.RandomState(1))
    with pytest.raises(InvalidStateError, match=r"the whole draws from MT19937 .* from SFC64"):
        restore_into(np.random.RandomState(np.random.SFC64(1)), held.kind, held.memory)


# ---- memories, emotions, logs


def an_entry(number):
    rng = np.random.default_rng(number)
    return {
        "text": f"remembered {number} é",
        "at": np.datetime64("2026-01-31T12:00:00") + number,
        "pad": qm.PAD(*rng.uniform(-1, 1, 3)),
        "embedding": rng.normal(size=4).astype(np.float32),
        "tensor": torch.from_numpy(rng.normal(size=3)).bfloat16(),
        "emotion": Emotion((0.1, 0.2, 0.3), confidence=0.5),
        "tags": ("a", number),
        **({"note": None} if number % 2 else {}),
    }


def a_mind():
    return {
        "log": [an_entry(number) for number in range(3)],
        "trajectory": qm.Trajectory(np.linspace(-1, 1, 12).reshape(4, 3), np.arange(4)),
        "context": qm.EmotionalContext(
            pad=qm.PAD(0.1, 0.2, 0.3), trajectory=qm.Trajectory(np.zeros((2, 3), np.float32)), extra={"mood": "calm"}
        ),
        "memory": qm.MemoryState(np.array([0.6, 0.8j]), {"n": 10**40}, {"pad": [0, 0, 1]}, {"k": 1}, {"at": "noon"}),
        "state": qm.StateVector(np.array([1, 0], np.complex64), qubit_order="big"),
        "seen": Counter("aab"),
        "index": {},
        "last": None,
    }


def test_a_mind_goes_back_to_what_it_was(stored):
    mind = a_mind()
    kind, memory = stored(mind)
    log, remembered = mind["log"], mind["memory"]
    log[0]["embedding"][:] = 0
    log += [an_entry(7), an_entry(8)]
    mind["trajectory"] = qm.Trajectory(np.ones((1, 3)))
    mind["context"] = qm.EmotionalContext()
    remembered.quantum, remembered.classical, remembered.record = None, None, {"at": "midnight"}
    mind["state"] = qm.StateVector(np.array([0, 1], np.complex64), qubit_order="big")
    mind["seen"].update("xyz")
    mind["last"] = an_entry(8)
    restore_into(mind, kind, memory)
    assert mind["log"] is log
    assert mind["memory"] is remembered
    assert remembered.record == {"at": "noon"}
    assert_identical(mind, a_mind())
    assert_identical(rebuilt(kind, memory), a_mind())
    assert rebuilt(kind, memory)["memory"].record == {"at": "noon"}


def test_a_fresh_target_is_filled(stored):
    mind = a_mind() | {"index": {"first": an_entry(1), 3: [np.random.default_rng(1)]}, "last": qm.PAD(0, 0, 0)}
    kind, memory = stored(mind)
    fresh = a_mind() | {"log": [], "trajectory": None, "context": None}
    index = fresh["index"]
    restore_into(fresh, kind, memory)
    assert fresh["index"] is index
    assert index[3][0].random() == np.random.default_rng(1).random()
    assert_identical(fresh["log"], mind["log"])
    assert fresh["trajectory"] == mind["trajectory"]
    assert fresh["context"] == mind["context"]
    assert fresh["last"] == qm.PAD(0, 0, 0)
    fresh["log"][0]["embedding"][:] = 9
    assert_identical(rebuilt(kind, memory)["log"], mind["log"])


def test_plain_values_in_lists_may_change_as_they_like(stored):
    target = {"log": [1, "two", {"three": 3}], "turns": ({"a": 1}, (2,))}
    kind, memory = stored(target)
    gone = {"three": 4}
    target["log"][:] = [gone, {"other": []}, gone]
    target["turns"] = ({"b": 1, "c": 2}, (5, 6))
    restore_into(target, kind, memory)
    assert gone == {"three": 4}
    assert target == {"log": [1, "two", {"three": 3}], "turns": ({"a": 1}, (2,))}


def test_arrays_are_written_in_place_where_they_can_be(stored):
    array, fixed = np.arange(3.0), np.arange(3)
    fixed.flags.writeable = False
    target = [{"array": array, "fixed": fixed}, (array[:2], 5)]
    kind, memory = stored(target)
    array[:] = -1
    target[0]["fixed"] = np.zeros(3, int)
    target[0]["fixed"].flags.writeable = False
    target[1] = (array[:2], 6)
    restore_into(target, kind, memory)
    assert target[0]["array"] is array
    assert array.tolist() == [0, 1, 2]
    assert target[0]["fixed"].tolist() == [0, 1, 2]
    assert target[1][1] == 5
    assert target[1][0].base is array


@pytest.mark.parametrize(
    ("target", "now"),
    [
        (5, 6),
        ("text", "other"),
        ((1, 2), (3, 4, 5)),
        (qm.PAD(0, 0, 1), qm.PAD(1, 0, 0)),
        (qm.StateVector(np.array([1, 0j]), qubit_order="big"), qm.StateVector(np.array([0, 1j]), qubit_order="big")),
        (None, np.ones(2)),
    ],
)
def test_what_cannot_be_altered_is_returned(stored, target, now):
    kind, memory = stored(target)
    assert_identical(restore_into(now, kind, memory), target) if not isinstance(target, qm.PAD) else None
    assert restore_into(now, kind, memory) == target
    assert rebuilt(kind, memory) == target


class Interface:
    """Remembers, and needs the record for it."""

    def __init__(self, number):
        self.number = number

    def to_memory(self):
        return qm.MemoryState(classical={"number": self.number}, record={"created_at": "noon"})

    def restore_memory(self, memory):
        if memory.record["created_at"] != "noon":
            raise ValueError("not noon")
        self.number = memory.classical["number"]


def test_what_remembers_is_kept_alone_and_in_a_tree(stored):
    assert isinstance(Interface(1), Remembering)
    kind, memory = stored(Interface(4))
    assert kind == "memory"
    assert rebuilt(kind, memory) is memory
    one = Interface(0)
    assert restore_into(one, kind, memory) is one
    assert one.number == 4
    kind, memory = stored([Interface(5)])
    restore_into([one], kind, memory)
    assert one.number == 5
    assert rebuilt(kind, memory)[0] == Interface(5).to_memory()


def test_a_memory_alone_is_given_back_in_place(stored):
    memory = qm.MemoryState(np.array([1, 0j]), {"a": np.ones(2)})
    kind, held = stored(memory)
    memory.classical["a"] += 1
    memory.quantum = None
    assert restore_into(memory, kind, held) is memory
    assert memory == held
    memory.classical["a"] += 1
    assert held.classical["a"].tolist() == [1, 1]


def test_two_functions_keep_what_they_like(stored):
    kept = {"grows": np.arange(2), "source": np.random.default_rng(1)}

    def load(state):
        kept.clear()
        kept.update(state)

    target = {"kept": Functions(lambda: kept, load)}
    kind, memory = stored(target)
    expected = kept["source"].random()
    kept["grows"] = np.arange(9)
    kept["more"] = 1
    restore_into(target, kind, memory)
    assert set(kept) == {"grows", "source"}
    assert kept["grows"].tolist() == [0, 1]
    assert kept["source"].random() == expected
    kept["grows"][:] = 9
    restore_into(target, kind, memory)
    assert kept["grows"].tolist() == [0, 1]
    bare = Functions(lambda: np.random.default_rng(2), lambda state: kept.update(whole=state))
    kind, memory = stored(bare)
    restore_into(bare, kind, memory)
    assert kept["whole"].random() == np.random.default_rng(2).random()


# ---- marks are not to be confused with what a caller keeps


def test_dicts_that_look_like_marks_are_dicts(stored):
    target = {
        "kind": "state_dict", "state": {"a": 1}, "objects": [[["kind"], "pad"]], "$object": {"$array": "x"},
        "classical": {"metadata": {"objects": [[[], "pad"]]}}, 3: {(1, "x"): {"kind": "pad", "state": (0, 0, 0)}},
    }  # fmt: skip
    target |= {"sources": {(2, b"k"): [random.Random(1)], None: (qm.PAD(0, 0, 1),)}}
    kind, memory = stored(target)
    made = rebuilt(kind, memory)
    assert made["sources"][2, b"k"][0].random() == random.Random(1).random()
    assert made["sources"][None] == (qm.PAD(0, 0, 1),)
    del made["sources"]
    assert_identical(made, {key: item for key, item in target.items() if key != "sources"})
    assert_identical(memory.classical["sources"][None], ((0.0, 0.0, 1.0),))


@pytest.mark.parametrize(
    "table",
    [
        [[["nowhere"], "pad"]], [[["a", "deeper"], "pad"]], [[["list", 9], "pad"]], [[["list"], "pad"]], [[["a"]]], 5,
        [[[["a"]], "pad"]], [[["a"], "numpy_generator"]], [[["a"], "python_random"]], [[["a"], "memory"]],
        [[["a"], "emotional_context"]],
    ],
)  # fmt: skip
def test_a_table_that_nobody_writes_is_refused(table):
    memory = qm.MemoryState(classical={"a": 1, "list": [1]}, metadata={"objects": table})
    with pytest.raises(IntegrityError):
        rebuilt("tree", memory)
    with pytest.raises((IntegrityError, InvalidStateError)):
        restore_into({"a": random.Random(), "list": [1]}, "tree", memory)


def test_a_state_that_no_module_gives_is_refused():
    memory = qm.MemoryState(classical={"m": [1]}, metadata={"objects": [[["m"], "state_dict"]]})
    with pytest.raises(InvalidStateError, match=r"^m has a list for a state in the checkpoint and takes a dict"):
        restore_into({"m": nn.Linear(1, 1)}, "tree", memory)
    memory = qm.MemoryState(classical={"param_groups": [1], "state": {}}, metadata={"objects": [[[], "state_dict"]]})
    with pytest.raises(IntegrityError):
        restore_into(torch.optim.SGD([torch.ones(1)]), "tree", memory)


def test_kinds_of_later_releases_are_told():
    memory = qm.MemoryState(classical={"a": 1}, metadata={"objects": [[["a"], "hologram"]]})
    with pytest.raises(UnsupportedVersionError, match="an object of kind 'hologram'"):
        rebuilt("tree", memory)
    with pytest.raises(UnsupportedVersionError, match="it is of kind 'forest'"):
        rebuilt("forest", memory)
    with pytest.raises(IntegrityError, match="quantum state, and has none"):
        rebuilt("quantum", memory)


# ---- what is not kept


class WithState:
    """A class of somebody's own, with the pair of methods."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, deque([1]), lambda: 0, WithState, random.SystemRandom(), np.random.PCG64(1), torch.int8]
)
def test_what_is_not_kept_is_named_by_its_path(value):
    with pytest.raises(InvalidStateError, match=r"^deep\.list\[1\]\['\\n'\] is a .*, which a checkpoint does not keep"):
        captured({"deep": {"list": [0, {"\n": value}]}})
    with pytest.raises(InvalidStateError, match=r"^the whole is a "):
        captured(value)
    with pytest.raises(InvalidStateError, match=r"^mine\.value is a .*in the state of the object at mine"):
        captured({"mine": WithState(value)})


def test_the_state_of_an_object_holds_no_other_with_a_state():
    with pytest.raises(InvalidStateError, match=r"mine\.value is a .*WithState.* in the state of the object at mine"):
        captured({"mine": WithState(WithState())})


def test_a_tree_that_holds_itself_is_refused():
    tree = []
    tree.append(tree)
    with pytest.raises(InvalidStateError, match="nested deeper"):
        captured(tree)


def test_an_object_that_does_not_give_its_state_is_named():
    def save():
        raise OSError("gone")

    with pytest.raises(InvalidStateError, match=r"^a\[0\] did not give its state: gone") as told:
        captured({"a": [Functions(save, print)]})
    assert isinstance(told.value.__cause__, OSError)


# ---- all or nothing


def several():
    """Return a tree with objects of many kinds."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    tree = {
        "array": np.arange(3.0),
        "model": model,
        "optimizer": optimizer,
        "tensor": torch.ones(2),
        "source": np.random.default_rng(3),
        "mine": WithState(1),
        "log": [1, {"a": np.ones(2)}],
        "python": random.Random(4),
        "memory": qm.MemoryState(classical={"x": 1}),
        "step": 3,
    }
    trained(tree, 2)
    return tree


def altered(tree):
    """Alter everything in a tree."""
    trained(tree, 2)
    tree["array"] += 1
    tree["tensor"] += 1
    tree["source"].random()
    tree["mine"].value += 1
    tree["log"].append(5)
    tree["log"][1]["a"] += 1
    tree["python"].random()
    tree["memory"].classical["x"] = 2
    tree["step"] = 9
    return tree


def refused(target, kind, memory, match, error=InvalidStateError):
    before, order = plain(target), list(target)
    identities = {key: id(item) for key, item in target.items()}
    with pytest.raises(error, match=match) as told:
        restore_into(target, kind, memory)
    assert_identical(plain(target), before)
    assert list(target) == order
    assert identities == {key: id(item) for key, item in target.items()}
    return told.value


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("array", np.arange(4.0), r"^array has shape \(3,\) in the checkpoint and \(4,\) in the target"),
        ("array", np.arange(3), r"^array has dtype float64 in the checkpoint and int64 in the target"),
        ("array", torch.ones(3), r"^array is an array in the checkpoint and a tensor in the target"),
        ("model", nn.Linear(5, 7), r"^model\.weight is in the target and not in the checkpoint"),
        ("model", nn.Sequential(nn.Linear(5, 7)), r"^model\.1\.weight is in the checkpoint and not in the target"),
        ("model", WithState(), r"^model did not take its state: 'value'; everything is as it was"),
        ("model", {"a": 1}, r"^model is an object with a state_dict in the checkpoint and a dict in the target"),
        ("model", None, r"^model is an object with a state_dict in the checkpoint and a NoneType in the target"),
        ("model", network().double(), r"^model\.0\.weight has dtype torch\.float32 in .* and torch\.float64"),
        (
            "optimizer", torch.optim.SGD([torch.ones(1)]),
            r"^optimizer has groups of \[6\] parameters in the checkpoint and of \[1\] in the target",
        ),
        ("tensor", torch.ones(3), r"^tensor has shape \(2,\) in the checkpoint and \(3,\) in the target"),
        ("source", random.Random(1), r"^source is a numpy.random.Generator in the checkpoint and a random.Random"),
        ("log", {"a": 1}, r"^log is a list in the checkpoint and a dict in the target"),
        ("log", [1, {"a": np.ones(3)}], r"^log\[1\]\.a has shape \(2,\) in the checkpoint and \(3,\)"),
        ("log", [WithState()], r"^log has 2 items in the checkpoint and 1 in the target"),
        ("step", "three", r"^step is a number in the checkpoint and a str in the target"),
        ("step", WithState(), r"^step is a number in the checkpoint and an object with a state_dict in the target"),
    ],
)  # fmt: skip
def test_what_does_not_fit_changes_nothing(stored, key, value, match):
    kind, memory = stored(several())
    target = altered(several()) | {key: value}
    refused(target, kind, memory, match)


def test_the_shape_of_a_head_is_told(stored):
    kind, memory = stored({"model": nn.ModuleDict({"head": nn.Linear(768, 3)})})
    with pytest.raises(
        InvalidStateError,
        match=r"^model\.head\.weight has shape \(3, 768\) in the checkpoint and \(5, 768\) in the target\. Next: ",
    ):
        restore_into({"model": nn.ModuleDict({"head": nn.Linear(768, 5)})}, kind, memory)


def test_missing_and_further_keys_are_told(stored):
    kind, memory = stored(several())
    target = altered(several())
    refused(target | {"more": 1}, kind, memory, "^more is in the target and not in the checkpoint")
    del target["tensor"]
    refused(target, kind, memory, "^tensor is in the checkpoint and not in the target")
    refused({"model": {}}, *stored({"model": {"net": network()}}), r"^model\.net is in the checkpoint and not in the")
    refused(
        {"model": {"net": network()}}, *stored({"model": None}), r"^model is a NoneType in the checkpoint and a dict"
    )


class Failing(WithState):
    """Half applies a state, and fails, once."""

    def __init__(self, error):
        super().__init__(1)
        self.other = 1
        self.error = error

    def state_dict(self):
        return {"value": self.value, "other": self.other}

    def load_state_dict(self, state):
        self.value = state["value"]
        error, self.error = self.error, None
        if error is not None:
            raise error
        self.other = state["other"]


def failing_tree(error):
    """Return a tree in which what fails comes after, and before, other objects."""
    tree = several()
    return {**tree, "failing": Failing(error), "last": Functions(lambda: tree["step"], lambda state: None)}


@pytest.mark.parametrize("error", [ValueError("no room"), MemoryError("no room"), InvalidStateError("no room")])
def test_an_object_that_fails_changes_nothing(stored, error):
    target = failing_tree(error)
    kind, memory = stored(target)
    altered(target)["failing"].value = 7
    told = refused(target, kind, memory, r"^failing did not take its state: no room; everything is as it was")
    assert told.__cause__ is error
    assert target["failing"].value == 7
    restore_into(target, kind, memory)  # which does not fail any more
    assert target["step"] == 3
    assert target["failing"].value == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt("enough"), SystemExit(3)])
def test_an_interrupt_changes_nothing_and_goes_on(stored, error):
    target = failing_tree(error)
    kind, memory = stored(target)
    altered(target)["failing"].value = 7
    assert refused(target, kind, memory, None, type(error)) is error
    assert target["failing"].value == 7


def test_what_cannot_be_taken_back_is_noted(stored):
    class Broken(WithState):
        def load_state_dict(self, state):
            raise OSError("broken")

    target = {"fine": WithState(1), "broken": Broken()}
    kind, memory = stored(target)
    target["fine"].value = 2
    error = refused(target, kind, memory, "^broken did not take its state: broken")
    assert error.__cause__.__notes__ == ["broken did not take back what it had: OSError('broken')"]
    assert target["fine"].value == 2


def test_what_cannot_be_kept_for_a_failure_is_not_touched():
    class Locked(WithState):
        def state_dict(self):
            return {"value": (one for one in ())}  # which has no copy

    held = captured({"a": WithState(1), "locked": WithState(2)})
    target = {"a": WithState(5), "locked": Locked(6)}
    with pytest.raises(InvalidStateError, match=r"what locked holds now cannot be kept"):
        restore_into(target, held.kind, held.memory)
    assert target["a"].value == 5
    assert target["locked"].value == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore_into({"a": WithState(5), "locked": WithState(6)}, held.kind, held.memory)

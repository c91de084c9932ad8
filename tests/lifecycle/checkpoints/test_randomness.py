"""The global sources of random numbers go on where they were; those that are not there are not brought in."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.lifecycle.checkpoints.randomness import Randomness
from quantum_memory.lifecycle.checkpoints.targets import captured, rebuilt, restore_into

GLOBAL = np.random.mtrand._rand
"""What the functions of `numpy.random` are methods of."""


@pytest.fixture(autouse=True)
def _global_states():
    before = Randomness().state_dict()
    yield
    Randomness().load_state_dict(before)


def drawn():
    """Return numbers of every kind; those of an odd count leave a half of a pair behind."""
    numbers = [random.random(), random.gauss(0, 1), GLOBAL.random(), GLOBAL.normal()]
    return [*numbers, *torch.rand(3).tolist(), *torch.randn(5).tolist()]


def through_a_file(target, path):
    taken = captured(target)
    qm.save(taken.memory, path)
    return taken.kind, qm.load(path)


def test_the_next_numbers_are_those_that_would_have_come(tmp_path):
    drawn()
    kind, memory = through_a_file(Randomness(), tmp_path / "r.qms")
    expected = [drawn(), drawn()]
    restore_into(Randomness(), kind, memory)
    assert [drawn(), drawn()] == expected


def test_other_bit_generators_may_be_the_global_one(tmp_path):
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(7))
        GLOBAL.normal()
        kind, memory = through_a_file(Randomness(), tmp_path / "r.qms")
        assert memory.classical["numpy"]["state"]["state"] > 1 << 64
        expected = GLOBAL.normal(size=3).tolist()
        restore_into(Randomness(), kind, memory)
        assert GLOBAL.normal(size=3).tolist() == expected
    finally:
        np.random.set_bit_generator(before)


def test_what_is_not_asked_for_is_left_alone():
    only_python = Randomness(numpy=False, torch=False)
    assert set(only_python.state_dict()) == {"python"}
    everything = Randomness().state_dict()
    expected = [GLOBAL.random(), torch.rand(1).item()]
    again = Randomness().state_dict()
    first = random.random()
    Randomness().load_state_dict(everything)
    only_python.load_state_dict(again)
    assert [GLOBAL.random(), torch.rand(1).item()] == expected
    assert random.random() == first


def test_a_source_that_is_asked_for_must_be_there():
    with pytest.raises(InvalidStateError, match=r"no random state of numpy.*Randomness\(numpy=False\)"):
        Randomness().load_state_dict(Randomness(numpy=False).state_dict())


def test_more_cuda_devices_than_are_here_are_refused():
    state = Randomness().state_dict()
    here = len(state["torch"]["cuda"])
    state["torch"]["cuda"] = [np.zeros(16, np.uint8)] * (here + 1)
    with pytest.raises(InvalidStateError, match=rf"of {here + 1} CUDA devices, and {here} are here"):
        Randomness().load_state_dict(state)
    Randomness(torch=False).load_state_dict(state)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("python", {}),
        ("python", {"version": 3, "words": np.zeros(5, np.uint32), "gauss": None}),
        ("python", {"version": 3, "words": np.full(625, 2**32 - 1, np.uint32), "gauss": None}),
        ("numpy", {"bit_generator": "seed", "state": {}}),
        ("numpy", {"bit_generator": "PCG64", "state": {}}),
        ("torch", {"cpu": np.zeros(3, np.uint8), "cuda": []}),
        ("torch", []),
    ],
)
def test_what_no_source_gives_changes_none(part, value):
    state = Randomness().state_dict()
    drawn()
    now = Randomness().state_dict()
    with pytest.raises(IntegrityError):
        Randomness().load_state_dict({**state, part: value})
    np.testing.assert_equal(Randomness().state_dict(), now)
    with pytest.raises(IntegrityError):
        Randomness().load_state_dict(None)


def test_torch_is_not_imported(tmp_path):
    """Neither to take the state, nor to read one that another process took with torch."""
    through_a_file({"r": Randomness(), "g": torch.Generator()}, tmp_path / "with.qms")
    code = f"""
import sys
import quantum_memory as qm
from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.checkpoints.randomness import Randomness

state = Randomness().state_dict()
assert set(state) == {{"python", "numpy"}}, state.keys()
Randomness().load_state_dict(state)
held = qm.load({str(tmp_path / "with.qms")!r}).classical["r"]
try:
    Randomness().load_state_dict(held)
except InvalidStateError as error:
    assert "not imported" in str(error)
else:
    raise AssertionError
Randomness(torch=False).load_state_dict(held)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_object_there_are_plain_states(tmp_path):
    state = rebuilt(*through_a_file({"r": Randomness()}, tmp_path / "r.qms"))["r"]
    first = Randomness().state_dict()
    np.testing.assert_equal(state, first)

"""Random numbers: what their sources go on from, as plain values, and the global sources as one object."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np

from quantum_memory.errors import InvalidStateError
from quantum_memory.state.document import well_formed

State = dict[str, Any]

_WORDS = 625
"""Of the Mersenne Twister: 624 of its state, and the position in them."""


def python_plain(state: tuple[Any, ...]) -> State:
    """Return what ``getstate`` of a `random.Random` gives, as plain values and one array."""
    version, words, gauss = state
    return {"version": version, "words": np.array(words, np.uint32), "gauss": gauss}


def python_state(plain: State) -> tuple[Any, ...]:
    """Return what ``setstate`` of a `random.Random` takes."""
    words = np.asarray(plain["words"])
    if words.shape != (_WORDS,):
        raise ValueError(f"the state of a random.Random has {_WORDS} words, not the shape {words.shape}")
    return plain["version"], tuple(words.tolist()), plain["gauss"]


def torch_plain(state: Any) -> np.ndarray[Any, Any]:
    """Return the state of a torch generator as an array, which is read without torch."""
    array: np.ndarray[Any, Any] = state.cpu().numpy()
    return array


def torch_state(plain: Any) -> Any:
    """Return the state of a torch generator, in memory of its own."""
    return sys.modules["torch"].from_numpy(np.array(plain, np.uint8))


class Randomness:
    """The global random states: ``random``, ``numpy.random``, and those of torch on the CPU and on every CUDA device.

    With it in the tree, ``{"model": model, "randomness": Randomness()}``, a run that is resumed draws the numbers that
    it would have drawn. torch is never imported for it: where it is not there when the state is taken, it has drawn
    nothing.

    Parameters
    ----------
    python, numpy, torch
        Which of them are kept and given back. What a checkpoint holds of the others is left alone.

    Examples
    --------
    >>> randomness = Randomness()
    >>> before = randomness.state_dict()
    >>> first = random.random()
    >>> randomness.load_state_dict(before)
    >>> random.random() == first
    True
    """

    def __init__(self, python: bool = True, numpy: bool = True, torch: bool = True) -> None:
        self._python, self._numpy, self._torch = python, numpy, torch

    def state_dict(self) -> State:
        """Return the states, as plain values and arrays that share nothing with the sources."""
        state: State = {}
        if self._python:
            state["python"] = python_plain(random.getstate())
        if self._numpy:
            state["numpy"] = np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is meant
        torch = sys.modules.get("torch")
        if self._torch and torch is not None:
            state["torch"] = {
                "cpu": torch_plain(torch.get_rng_state()).copy(),
                "cuda": [torch_plain(torch.cuda.get_rng_state(device)) for device in range(_cuda_devices(torch))],
            }
        return state

    def load_state_dict(self, state_dict: State) -> None:
        """Set the sources to what `state_dict` gave; when it does not fit, nothing is set.

        Raises
        ------
        InvalidStateError
            A source that is asked for is not in it, or it holds states of torch, or of CUDA devices, which are not
            here.
        IntegrityError
            It is nothing that `state_dict` gives.
        """
        asked = [name for name, wanted in (("python", self._python), ("numpy", self._numpy)) if wanted]
        with well_formed():
            missing = [name for name in asked if name not in state_dict]
        if missing:
            raise InvalidStateError(
                f"the checkpoint has no random state of {missing[0]}", next_step=f"use Randomness({missing[0]}=False)"
            )
        with well_formed():
            python = python_state(state_dict["python"]) if self._python else None
            if python is not None:
                random.Random().setstate(python)  # noqa: S311 - a rehearsal
            if self._numpy:
                legacy_generator(state_dict["numpy"])
            ours = state_dict.get("torch") if self._torch else None
            cpu, cuda = (None, []) if ours is None else (np.asarray(ours["cpu"]), list(ours["cuda"]))
        if cpu is not None:
            _check_torch(cpu, cuda)
        if python is not None:
            random.setstate(python)
        if self._numpy:
            np.random.set_state(state_dict["numpy"])  # noqa: NPY002 - the global state is meant
        if cpu is not None:
            torch = sys.modules["torch"]
            torch.set_rng_state(torch_state(cpu))
            for device, one in enumerate(cuda):
                torch.cuda.set_rng_state(torch_state(one), device)


def bit_generator(name: Any) -> np.random.BitGenerator:
    """Return a bit generator of NumPy of that name, in any state.

    Raises
    ------
    KeyError
        NumPy has none of that name.
    """
    made: np.random.BitGenerator = BIT_GENERATORS[name](0)
    return made


BIT_GENERATORS: dict[str, type[Any]] = {
    one.__name__: one
    for one in (
        np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64,
    )
}  # fmt: skip
"""Bit generators by their names; a file may name no other."""


def legacy_generator(plain: State) -> np.random.RandomState:
    """Return a `numpy.random.RandomState` that goes on from what ``get_state(legacy=False)`` gave."""
    made = np.random.RandomState(bit_generator(plain["bit_generator"]))
    made.set_state(plain)
    return made


def _cuda_devices(torch: Any) -> int:
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _check_torch(cpu: np.ndarray[Any, Any], cuda: list[Any]) -> None:
    """Tell before anything is set whether the states of torch can be."""
    torch = sys.modules.get("torch")
    if torch is None:
        raise InvalidStateError(
            "the checkpoint has the random state of torch, which is not imported",
            next_step="import torch first, or use Randomness(torch=False)",
        )
    if len(cuda) > _cuda_devices(torch):
        raise InvalidStateError(
            f"the checkpoint has random states of {len(cuda)} CUDA devices, and {_cuda_devices(torch)} are here",
            next_step="use Randomness(torch=False): the run then goes on with other random numbers",
        )
    with well_formed():
        torch.Generator().set_state(torch_state(cpu))
        for device, one in enumerate(cuda):
            torch.Generator(f"cuda:{device}").set_state(torch_state(one))

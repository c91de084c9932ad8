"""What saving, loading, checking and reading a part of a state cost in each way, and what a flipped bit does to it."""

from __future__ import annotations

import gc
import random
import shutil
import statistics
import time
import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.cli.bench_memory import peak, reset_peak
from quantum_memory.cli.bench_ways import Way, ways

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quantum_memory.state.arrays import AnyArray

FLIPS = 48
_PART = 1024
_CHANGED = 16
"""One of so many amplitudes is another one in the next checkpoint: all with four qubits in one state, as a gate with
four controls leaves them."""

_FLIP_BYTES = 1 << 21
"""The largest file of which bits are flipped: each takes a load of the whole."""

_ROUNDS_SECONDS, _MOST_ROUNDS, _FEWEST_ROUNDS = 4.0, 15, 3


@dataclass
class Cost:
    """What one way costs for one state.

    Attributes
    ----------
    seconds
        By operation, "save", "load", "check", "part" and "checkpoint", of each round.
    nbytes
        Of the file.
    added
        By how many bytes the disk is fuller after the last checkpoint.
    memory
        By operation, "save" and "load": by how many bytes the peak of the process was above what it had before; of a
        load the state itself is in it. None where the system does not say.
    flips
        Of bits that were flipped: how many were "found", how many gave a "wrong" state without a word, and how many
        changed "nothing". Empty where the file is too large for it.
    """

    way: str
    ours: bool
    synced: bool
    nbytes: int
    added: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)
    flips: dict[str, int] = field(default_factory=dict)

    def median(self, operation: str) -> float | None:
        """Return the median of an operation, or None where it is not there."""
        found = self.seconds.get(operation)
        return statistics.median(found) if found else None

    def spread(self, operation: str) -> tuple[float, float] | None:
        """Return the least and the greatest."""
        found = self.seconds.get(operation)
        return (min(found), max(found)) if found else None


@dataclass
class Sheet:
    """What all ways cost for one state."""

    family: str
    qubits: int
    raw: int
    costs: list[Cost]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def measure(
    family: str, qubits: int, array: AnyArray, folder: Path, step: Callable[[int], object] | None = None
) -> Sheet:
    """Measure all ways, in turn, as often as a few seconds allow.

    Parameters
    ----------
    array
        The amplitudes.
    folder
        Where the files are made, and removed.
    step
        Called with 1 after each way was measured for the first time.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about themselves
        return _measure(family, qubits, array, folder, step)


def _measure(family: str, qubits: int, array: AnyArray, folder: Path, step: Callable[[int], object] | None) -> Sheet:
    costs, total = {}, 0.0
    for way in ways():  # once, to load what there is to load; and what is measured once
        path = _path(way, folder)
        way.save(path, array)
        if not np.array_equal(way.load(path), array):
            raise AssertionError(f"{way.name} gives back something else")
        start = time.perf_counter()
        cost = costs[way.name] = Cost(way.name, way.ours, way.synced, _size(path))
        cost.memory = {
            "save": _extra(lambda way=way, path=path: way.save(path, array)),  # type: ignore[misc]
            "load": _extra(lambda way=way, path=path: way.load(path)),  # type: ignore[misc]
        }
        total += time.perf_counter() - start
        if _size(path) <= _FLIP_BYTES:
            cost.flips = flipped(way, path, array)
        if step is not None:
            step(1)
    rounds = int(min(max(_ROUNDS_SECONDS / max(total, 1e-9), _FEWEST_ROUNDS), _MOST_ROUNDS))
    changed = array.copy()
    for way in ways():
        if way.checkpoint is not None:
            way.checkpoint(_history(way, folder), changed)
    for _ in range(rounds):
        gc.collect()  # once: it takes longer than most of what is measured
        part = changed[: max(1, len(changed) // _CHANGED)]
        np.multiply(part, 0.6 + 0.8j, out=part)
        for way in ways():
            cost = costs[way.name]
            found = _one_round(way, _path(way, folder), array)
            found["checkpoint"], cost.added = _one_checkpoint(way, folder, changed)
            for operation, seconds in found.items():
                cost.seconds.setdefault(operation, []).append(seconds)
    for way in ways():
        _remove(_path(way, folder))
        _remove(_history(way, folder))
    return Sheet(family, qubits, array.nbytes, list(costs.values()))


def _one_round(way: Way, path: Path, array: AnyArray) -> dict[str, float]:
    middle = len(array) // 2
    work: dict[str, Callable[[], object]] = {"save": lambda: way.save(path, array), "load": lambda: way.load(path)}
    if (check := way.check) is not None:
        work["check"] = lambda: check(path)
    if (part := way.part) is not None:
        work["part"] = lambda: part(path, middle, middle + min(_PART, middle))
    found = {}
    for operation, run in work.items():
        start = time.perf_counter()
        run()
        found[operation] = time.perf_counter() - start
    return found


def _one_checkpoint(way: Way, folder: Path, array: AnyArray) -> tuple[float, int]:
    """Return how long it takes to keep the next state beside those before, and by how much the disk is fuller then."""
    history = _history(way, folder)
    before = _size(history) if way.checkpoint is not None else 0
    start = time.perf_counter()
    (way.save if way.checkpoint is None else way.checkpoint)(history, array)
    seconds = time.perf_counter() - start
    added = _size(history) - before
    if way.checkpoint is None:
        _remove(history)  # the next one would be another file beside it
    return seconds, added


def flipped(way: Way, path: Path, array: AnyArray, flips: int = FLIPS) -> dict[str, int]:
    """Flip bits of a file, one after another, at places drawn with a seed, and count what becomes of the state.

    What is saved as a folder is taken for one file after the other.
    """
    good = {one: one.read_bytes() for one in _files(path)}
    found = {"found": 0, "wrong": 0, "nothing": 0}
    rng = random.Random(flips)  # noqa: S311 - a place, not a secret
    for _ in range(flips):
        place, which = rng.randrange(sum(map(len, good.values()))), iter(good)
        while place >= len(good[one := next(which)]):
            place -= len(good[one])
        bad = bytearray(good[one])
        bad[place] ^= 1 << rng.randrange(8)
        one.write_bytes(bad)
        try:
            same = np.array_equal(way.load(path), array)
        except Exception:
            found["found"] += 1
        else:
            found["nothing" if same else "wrong"] += 1
        one.write_bytes(good[one])
    return found


def _path(way: Way, folder: Path) -> Path:
    return folder / f"{way.name.replace(' ', '-')}{way.suffix}"


def _history(way: Way, folder: Path) -> Path:
    """Return where checkpoints go: a folder, or one more file."""
    name = way.name.replace(" ", "-")
    return folder / (f"{name}-history" if way.checkpoint is not None else f"{name}-next{way.suffix}")


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in _files(path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _extra(work: Callable[[], object]) -> int | None:
    """Return by how much the peak of this process grows above what it has now; None where the system does not say."""
    gc.collect()
    try:
        before = reset_peak()
    except OSError:
        return None
    made = work()
    after = peak()
    del made
    return max(0, after - before)

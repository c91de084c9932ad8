"""Checkpoints: small and large, unchanged and changed, against what else saves the same tensors."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import quantum_memory as qm
from benchmarks.harness import Row, medians, rounds
from quantum_memory.durability.files import using
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from quantum_memory.lifecycle.due import Always
from quantum_memory.lifecycle.retention import KeepAll
from quantum_memory.testing.faults import RecordingFiles

_KIB, _MIB = 1 << 10, 1 << 20
_LAYERS, _WIDTH, _WORDS = 12, 768, 128_100


def run(quick: bool) -> list[Row]:
    """Time and weigh checkpoints."""
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        return [
            *_small(folder / "small"),
            *_background(folder / "background", 22 if quick else 26),
            *_deberta(folder / "deberta", 1 if quick else _LAYERS, 1000 if quick else _WORDS, 3 if quick else 5),
            *_growing(folder / "growing"),
        ]
    finally:
        shutil.rmtree(folder)


def _small(folder: Path) -> list[Row]:
    """5 qubits, in memory and on disk."""
    memory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    rng = np.random.default_rng(1)
    states = [qm.StateVector(rng.normal(size=32) + 0j, qubit_order="big") for _ in range(201)]
    try:
        created, restored = [], []
        for number, state in enumerate(states):
            where = memory / str(number)
            manager = CheckpointManager(where, durable=False, keep=KeepAll())
            manager.create_checkpoint(state)  # makes the folder
            start = time.perf_counter()
            one = manager.create_checkpoint(states[number - 1])
            middle = time.perf_counter()
            manager.restore_checkpoint(state, one)
            restored.append(time.perf_counter() - middle)
            created.append(middle - start)
            manager.close()
            shutil.rmtree(where)
    finally:
        shutil.rmtree(memory)
    manager = CheckpointManager(folder, keep=KeepAll())
    manager.create_checkpoint(states[0])
    recorder = RecordingFiles()
    with using(recorder):
        manager.create_checkpoint(states[1])
    manager.close()
    syncs = sum(call.name == "fsync" for call in recorder.log)
    create, restore = float(np.median(created[1:])), float(np.median(restored[1:]))
    return [
        Row("5 qubits: create, in memory (tmpfs)", f"{create * 1e3:.2f} ms", "<= 1 ms", create <= 1e-3),
        Row("5 qubits: restore, in memory (tmpfs)", f"{restore * 1e3:.2f} ms", "<= 1 ms", restore <= 1e-3),
        Row("5 qubits: fsyncs of a checkpoint on disk", str(syncs), "<= 4", syncs <= 4),
    ]


def _background(folder: Path, qubits: int) -> list[Row]:
    """Measure what the caller notices while a large state is saved."""
    amplitudes = np.ones(1 << qubits, np.complex128)
    size = f"{amplitudes.nbytes / (1 << 30):.3g} GiB"
    rows = []
    for kind, state in (("that may change", amplitudes), ("that is read-only", _read_only(amplitudes))):
        stopped, frozen = [], []
        with CheckpointManager(folder / kind, save=Always(), keep=KeepAll(), signals=False) as manager:
            for turn in range(4):
                amplitudes[turn] = turn
                start = time.perf_counter()
                manager.step(state, progress=turn)
                stopped.append(time.perf_counter() - start)
                frozen.append(_longest_gap(manager))
                manager.wait()
        shutil.rmtree(folder / kind)
        stop, freeze = float(np.median(stopped[1:])), max(frozen[1:])
        reach, most = ("<= 0.35 s", 0.35) if kind == "that may change" else ("0", 0.005)
        rows += [
            Row(f"{size} {kind}, in the background: the caller is stopped", f"{stop:.3f} s", reach, stop <= most),
            Row(f"{size} {kind}, in the background: longest freeze while it is written", f"{freeze * 1e3:.0f} ms",
                "<= 50 ms", freeze <= 0.05),
        ]  # fmt: skip
    return rows


def _read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _longest_gap(manager: CheckpointManager) -> float:
    """Return the longest time between two instructions of this thread while something is saved."""
    longest, last = 0.0, time.perf_counter()
    while manager._background.busy:
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest


def _model(layers: int, words: int) -> dict[str, torch.Tensor]:
    """Return tensors of the names and shapes of DeBERTa-v3-base."""
    torch.manual_seed(1)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (words, _WIDTH),
        "encoder.rel_embeddings.weight": (512, _WIDTH),
    }
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        for name in ("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj",
                     "attention.output.dense"):  # fmt: skip
            shapes |= {f"{at}.{name}.weight": (_WIDTH, _WIDTH), f"{at}.{name}.bias": (_WIDTH,)}
        shapes |= {
            f"{at}.intermediate.dense.weight": (4 * _WIDTH, _WIDTH),
            f"{at}.intermediate.dense.bias": (4 * _WIDTH,),
        }
        shapes |= {f"{at}.output.dense.weight": (_WIDTH, 4 * _WIDTH), f"{at}.output.dense.bias": (_WIDTH,)}
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}.{norm}.weight": (_WIDTH,), f"{at}.{norm}.bias": (_WIDTH,)}
    tensors = {name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}
    return tensors | {"head.weight": torch.randn(3, _WIDTH), "head.bias": torch.zeros(3)}


def _deberta(folder: Path, layers: int, words: int, turns: int) -> list[Row]:
    from safetensors.torch import load_file, save_file
    from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

    model = _model(layers, words)
    size = f"{sum(one.nbytes for one in model.values()) / 1e6:.0f} MB of tensors"
    folder.mkdir()
    manager = CheckpointManager(folder / "run", keep=KeepAll())
    manager.create_checkpoint(model)
    start = time.perf_counter()
    again = manager.create_checkpoint(model)
    unchanged = time.perf_counter() - start
    wrote = _weight(manager, again)
    head = {**model, "head.weight": model["head.weight"] + 1, "head.bias": model["head.bias"] + 1}
    changed = _weight(manager, manager.create_checkpoint(head)) - sum(
        head[f"head.{x}"].nbytes for x in ("weight", "bias")
    )
    rows = [
        Row(f"{size}, unchanged: written", f"{wrote / _KIB:.1f} KiB", "<= 100 KiB", wrote <= 100 * _KIB),
        Row(f"{size}, unchanged: time of the checkpoint", f"{unchanged:.2f} s", "<= 1.0 s", unchanged <= 1.0),
        Row(
            f"{size}, the head changed: written beside the head",
            f"{changed / _KIB:.1f} KiB",
            "<= 100 KiB",
            changed <= 100 * _KIB,
        ),
    ]
    manager.close()
    shutil.rmtree(folder / "run")

    def ours() -> None:
        with CheckpointManager(folder / "ours", keep=KeepAll(), signals=False) as one:
            one.create_checkpoint(model)

    def peer(save: Any, path: Path) -> Any:
        def case() -> None:
            save(path)
            _sync(path)

        return case

    paths = {name: folder / name for name in ("ours", "torch.pt", "safe.safetensors", "dcp", "tenpy.h5")}
    saves = {
        "ours": ours,
        "torch.save": peer(lambda path: torch.save(model, path), paths["torch.pt"]),
        "safetensors": peer(lambda path: save_file(model, path), paths["safe.safetensors"]),
        "torch.distributed.checkpoint": peer(lambda path: save_distributed(model, checkpoint_id=path), paths["dcp"]),
        "TeNPy's HDF5": peer(lambda path: _tenpy_save(model, path), paths["tenpy.h5"]),
    }
    clean = {name: lambda path=path: _remove(path) for name, path in zip(saves, paths.values(), strict=True)}
    took = medians(rounds(saves, turns, clean))
    loads = {
        "ours": lambda: _restored(folder / "ours"),
        "torch.load": lambda: torch.load(paths["torch.pt"], weights_only=True),
        "safetensors": lambda: {name: one.clone() for name, one in load_file(paths["safe.safetensors"]).items()},
    }
    read = medians(rounds(loads, turns))
    ratio, back = took["ours"] / took["torch.save"], read["ours"] / read["torch.load"]
    rows += [
        Row(f"{size}: save with SHA-256, durable, against torch.save + fsync ({took['torch.save']:.2f} s)",
            f"{ratio:.2f} x", "<= 1.3 x", ratio <= 1.3),
        *(Row(f"{size}: the same against {name} + fsync ({took[name]:.2f} s)", f"{took['ours'] / took[name]:.2f} x", "", True)
          for name in list(saves)[2:]),
        Row(f"{size}: load, every byte verified, against torch.load ({read['torch.load']:.2f} s)",
            f"{back:.2f} x", "<= 1.2 x", back <= 1.2),
        Row(f"{size}: the same against safetensors into memory ({read['safetensors']:.2f} s)",
            f"{read['ours'] / read['safetensors']:.2f} x", "", True),
    ]  # fmt: skip
    return rows


def _restored(folder: Path) -> Any:
    with CheckpointManager(folder, signals=False) as manager:
        return manager.restore()


def _tenpy_save(model: dict[str, torch.Tensor], path: Path) -> None:
    from tenpy.tools import hdf5_io

    with h5py.File(path, "w") as file:
        hdf5_io.save_to_hdf5(file, {name: one.numpy() for name, one in model.items()})


def _growing(folder: Path) -> list[Row]:
    """200 checkpoints of a run whose log grows and whose state changes by a part."""
    rng = np.random.default_rng(3)
    state, log = rng.normal(size=1 << 18), []
    unique = state.nbytes
    manager = CheckpointManager(folder, durable=False, keep=KeepAll())
    for step in range(200):
        part = rng.normal(size=1 << 14)
        state[(step % 16) << 14 : (step % 16 + 1) << 14] = part
        log.append(rng.normal(size=1 << 15))
        unique += log[-1].nbytes + (1 << 20)  # the chunk of the state that changed, as a whole
        manager.create_checkpoint({"state": state, "log": log}, progress=step)
    manager.close()
    times: list[tuple[float, float]] = []
    for _ in range(9):
        fresh = CheckpointManager(folder)
        start = time.perf_counter()
        listed = fresh.list_checkpoints()
        then = time.perf_counter()
        fresh.list_checkpoints()
        times.append((then - start, time.perf_counter() - then))
    first, second = (statistics.median(some) for some in zip(*times, strict=True))
    taken = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    more = taken / unique - 1
    assert len(listed) == 200
    return [
        Row(
            "200 checkpoints: listed by a manager that has not seen them",
            f"{first * 1e3:.1f} ms",
            "<= 20 ms",
            first <= 0.02,
        ),
        Row("200 checkpoints: listed again", f"{second * 1e3:.1f} ms", "", True),
        Row(
            "200 checkpoints of a growing run: folder above its different chunks", f"{more:.1%}", "<= 5 %", more <= 0.05
        ),
    ]


def _weight(manager: CheckpointManager, checkpoint: str) -> int:
    """Return the bytes that were written for a checkpoint, its manifest included."""
    manifest = Path(manager.folder.manifest_path(checkpoint))
    return int(manager.get_checkpoint(checkpoint)["new_bytes"]) + manifest.stat().st_size


def _sync(path: Path) -> None:
    for one in [*([path] if path.is_file() else path.rglob("*")), path.parent]:
        fd = os.open(one, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

"""Migration: one large state against a plain copy of its file, and very many small files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import quantum_memory as qm
from benchmarks.harness import Row, extra_memory, medians, rounds

_FIXTURE = Path(__file__).parents[1] / "tests" / "data" / "legacy" / "json_v1" / "v1_n5_no_network.json"
_BLOCK = 1 << 20

_LARGE = """
import quantum_memory as qm
import quantum_memory.formats.hdf5_storage, quantum_memory.formats.legacy.windows, quantum_memory.lifecycle.migration.apply
UTILS = qm.MigrationUtilities()
def setup():
    {setup}
def work(prepared):
    {work}
"""

_MANY = """
import json, resource, time
import quantum_memory as qm
from benchmarks.harness import peak
from quantum_memory.lifecycle.migration.pool import worker_pool
utils, start = qm.MigrationUtilities(), time.perf_counter()
plan = utils.generate_migration_plan({tree!r})
planned = time.perf_counter()
with worker_pool(2) as pool:
    done = utils.apply_migration_plan(plan, executor=pool)
applied = time.perf_counter()
most = max(peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)
print(json.dumps([planned - start, applied - planned, most, done.migrated]))
"""


def run(quick: bool) -> list[Row]:
    """Time plan and apply, and measure the memory that they need."""
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        rows = _one_large(folder / "plain", 22 if quick else 26, "none", 3 if quick else 7)
        rows += _one_large(folder / "gzip", 20 if quick else 24, "gzip", 1)
        return rows + _many(folder / "many", 500 if quick else 10_000)
    finally:
        shutil.rmtree(folder)


def _one_large(tree: Path, qubits: int, compression: str, turns: int) -> list[Row]:
    """Migrate a store of one state of incompressible amplitudes, over and over."""
    tree.mkdir()
    original, copy = tree / "store.h5", tree.with_suffix(".copy")
    _write_store(original, qubits, compression)
    utils = qm.MigrationUtilities()
    plan = utils.generate_migration_plan(tree)

    def again() -> None:
        copy.unlink(missing_ok=True)
        if utils.migration_status(tree):
            utils.rollback_migration(tree)
            shutil.rmtree(tree / ".qmem-migration")
        # Memory that a virtual machine has given back takes seconds to come again: all find it there.
        _copy(original, copy)
        copy.unlink()
        os.sync()

    cases = {
        "copy": lambda: _copy(original, copy),
        "plan": lambda: utils.generate_migration_plan(tree),
        "apply": lambda: utils.apply_migration_plan(plan),
    }
    found = medians(rounds(cases, turns, dict.fromkeys(cases, again)))
    again()
    path, mib = str(tree), 1 << 20
    planning = extra_memory(_LARGE.format(setup="return None", work=f"UTILS.generate_migration_plan({path!r})"))
    applying = extra_memory(
        _LARGE.format(
            setup=f"return UTILS.generate_migration_plan({path!r})", work="UTILS.apply_migration_plan(prepared)"
        )
    )
    size = f"{(16 << qubits) / 2**30:.3g} GiB complex128 in a store, {compression}"
    limit = 3.0 if compression == "none" else None  # to be packed again, it has to be unpacked three times
    ratio, planned = found["apply"] / found["copy"], found["plan"] / found["copy"]
    return [
        Row(
            f"{size}: apply, against a copy of the file + fsync ({found['copy']:.2f} s)",
            f"{ratio:.2f} x",
            "" if limit is None else f"<= {limit:.0f} x",
            limit is None or ratio <= limit,
        ),
        Row(f"{size}: plan, against the same", f"{planned:.2f} x", "", True),
        Row(f"{size}: memory beside the process, plan", f"{planning / mib:.0f} MiB", "<= 64 MiB", planning <= 64 * mib),
        Row(
            f"{size}: memory beside the process, apply", f"{applying / mib:.0f} MiB", "<= 64 MiB", applying <= 64 * mib
        ),
    ]


def _many(tree: Path, count: int) -> list[Row]:
    """Migrate files of the interface, each with numbers of its own, in a process of their own."""
    tree.mkdir()
    document, rng = json.loads(_FIXTURE.read_text()), random.Random(5)
    for number in range(count):
        folder = tree / f"{number // 1000:03d}"
        folder.mkdir(exist_ok=True)
        (folder / f"state_{number}.json").write_text(json.dumps(_with_other_numbers(document, rng), indent=2))
    code = _MANY.format(tree=str(tree))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    plan, apply, peak, migrated = json.loads(done.stdout)
    if migrated != count:
        raise RuntimeError(f"{migrated} of {count} files were migrated")
    what, mib = f"{count:,} files of 5 qubits", 1 << 20
    return [
        Row(f"{what}: plan", f"{plan:.1f} s", "<= 10 s", plan <= 10),
        Row(f"{what}: apply with 2 jobs", f"{apply:.1f} s", "<= 60 s", apply <= 60),
        Row(f"{what}: memory of the largest process", f"{peak / mib:.0f} MiB", "<= 300 MiB", peak <= 300 * mib),
    ]


def _with_other_numbers(value: Any, rng: random.Random) -> Any:
    """Return a document with every float another one."""
    if isinstance(value, dict):
        return {key: _with_other_numbers(item, rng) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_other_numbers(item, rng) for item in value]
    return value * rng.random() if type(value) is float else value


def _copy(source: Path, target: Path) -> None:
    """Copy a file durably: the least that any migration that keeps the original must do."""
    shutil.copyfile(source, target)
    for path in (target, target.parent):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def _write_store(path: Path, qubits: int, compression: str) -> None:
    """Write what the first implementation wrote of one state vector."""
    count = 1 << qubits
    rng, digest = np.random.default_rng(26), hashlib.sha256()
    options = {"compression": "gzip", "compression_opts": 6} if compression == "gzip" else {}
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = "1.0"
        file.create_group("checkpoints")
        file.create_dataset("index/chronological", data=np.array([b"large"], "S64"), maxshape=(None,), chunks=True)
        state = file.create_group("quantum_states/large")
        vector = state.create_dataset("quantum_data/state_vector", (count,), np.complex128, **options)
        for start in range(0, count, _BLOCK):
            part = rng.standard_normal(2 * min(_BLOCK, count - start)).view(np.complex128) / np.sqrt(2 * count)
            digest.update(part)
            vector[start : start + len(part)] = part
        facts = {"version": "1.0", "n_qubits": qubits, "compression": compression, "checksum": digest.hexdigest()}
        state.create_group("metadata").attrs.update(facts)

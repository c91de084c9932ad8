"""27 qubits, dense, complex64: 1 GiB of incompressible amplitudes against plain files."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import quantum_memory as qm
from benchmarks.harness import Row, extra_memory, medians, rounds

_CHILD = """
import numpy as np, quantum_memory as qm
import quantum_memory.formats.verbs
N, PATH = {count}, {path!r}
def setup():
    {setup}
def work(prepared):
    {work}
"""


def run(quick: bool) -> list[Row]:
    """Time save and load, and measure the memory that they need beside the state."""
    count = 1 << (24 if quick else 27)
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        return _run(folder, count, 3 if quick else 7)
    finally:
        shutil.rmtree(folder)


def _run(folder: Path, count: int, turns: int) -> list[Row]:
    rng = np.random.default_rng(27)
    amplitudes = rng.standard_normal(2 * count, dtype=np.float32).view(np.complex64)
    amplitudes /= np.float32(np.sqrt(2 * count))
    state = qm.StateVector(amplitudes, qubit_order="big")
    raw, npy, qms = folder / "raw.bin", folder / "state.npy", folder / "state.qms"
    out = np.zeros_like(amplitudes)
    np.save(npy, amplitudes)
    qm.save(state, qms, compression="none")
    found = medians(
        rounds(
            {
                "write": lambda: _plain_write(raw, amplitudes),
                "overwrite": lambda: _plain_write(raw, amplitudes, in_place=True),
                "save": lambda: qm.save(state, qms, compression="none"),
                "auto": lambda: qm.save(state, qms),
            },
            turns,
        )
    )
    found |= medians(
        rounds(
            {
                "np.load": lambda: np.load(npy),
                "load": lambda: qm.load(qms),
                "out": lambda: qm.load(qms, out=out),
                "full": lambda: qm.load(qms, out=out, verify="full"),
                "verify": lambda: qm.verify(qms),
                "info": lambda: qm.info(qms),
            },
            turns,
        )
    )
    mib = 2**20
    size = f"{amplitudes.nbytes / 2**30:.3g} GiB"
    saving = extra_memory(
        _CHILD.format(
            count=count, path=str(qms),
            setup="a = np.ones(N, np.complex64); return qm.StateVector(a, qubit_order='big')",
            work="qm.save(prepared, PATH, compression='none')",
        )
    )  # fmt: skip
    qm.save(state, qms, compression="none")
    loading = extra_memory(
        _CHILD.format(
            count=count,
            path=str(qms),
            setup="a = np.ones(N, np.complex64); return a",
            work="qm.load(PATH, out=prepared)",
        )
    )
    return [
        _row(
            f"{size} complex64: save with SHA-256 and fsync, against plain write + fsync",
            found["save"] / found["write"],
            1.15,
        ),
        _row(
            f"{size}: the same, against a file that is overwritten in place and lost when that is cut short",
            found["save"] / found["overwrite"],
        ),
        _row(f"{size}: save, compression chosen by itself, against the same", found["auto"] / found["write"]),
        _row(
            f"{size}: load, every byte checked (xxh3), against np.load from page cache",
            found["load"] / found["np.load"],
            1.5,
        ),
        _row(f"{size}: the same into memory of the caller (out=)", found["out"] / found["np.load"], 1.0),
        _row(f"{size}: the same with the SHA-256 of every chunk as well", found["full"] / found["np.load"]),
        Row(
            f"{size}: verify (all checksums, all SHA-256, norm)",
            f"{amplitudes.nbytes / found['verify'] / 1e9:.2f} GB/s",
            "",
            True,
        ),
        Row(f"{size}: info", f"{1e3 * found['info']:.1f} ms", "at once", found["info"] < 0.1),
        Row(f"{size}: memory beside the state, save", f"{saving / mib:.0f} MiB", "<= 64 MiB", saving <= 64 * mib),
        Row(f"{size}: memory beside the state, load", f"{loading / mib:.0f} MiB", "<= 64 MiB", loading <= 64 * mib),
    ]


def _row(what: str, ratio: float, limit: float | None = None) -> Row:
    """Return a row for a ratio of times."""
    return Row(what, f"{ratio:.2f} x", "" if limit is None else f"<= {limit} x", limit is None or ratio <= limit)


def _plain_write(path: Path, array: np.ndarray[Any, np.dtype[np.complex64]], *, in_place: bool = False) -> None:
    """Write bytes into a new file and fsync them: the least that any durable save must do.

    The file of the round before is replaced at the end, as a save does it. Written in place, it would use the same blocks
    of the disk again and again, which on many disks is several times faster than blocks that are new.
    """
    data = array.view(np.uint8).data
    new = path if in_place else path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])
    os.fsync(fd)
    os.close(fd)
    if not in_place:
        new.replace(path)

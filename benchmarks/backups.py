"""Backups: one large file against cp and sha256sum, and whole folders against restic and borg."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm
from benchmarks.families import FAMILIES, state
from benchmarks.harness import Row, medians, rounds
from benchmarks.tables import Table
from quantum_memory.encryption.keys import Key
from quantum_memory.lifecycle.backup_manager import BackupManager

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_QMEM = str(Path(sys.executable).with_name("qmem"))
_SECRET = "correct horse battery staple"
_STEPS = ("first", "unchanged", "changed", "verified")

_SLOW = {"clifford", "clifford_t", "tfim", "heis", "heis_long", "quench", "rqc16", "rqc40"}
"""Families whose states of many qubits take minutes to make."""

_EVEN = ("graph", "qaoa")
"""Families that need an even number of qubits begin with these."""

_FULL = ("haar", "rqc4", "rqc8", "mps16", "mps64", "hea3", "hea3c")
"""Families of which there are larger states as well."""

_RUNNER = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ,
                        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, used = os.wait4(child, 0)
took = time.perf_counter() - start
print(json.dumps([took, used.ru_utime + used.ru_stime, used.ru_maxrss << 10]))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command. A process of its own does it, since the peak of a child begins with the memory of its parent."""


def run(quick: bool) -> list[Row | Table]:
    """Time and weigh backups."""
    folder = Path(tempfile.mkdtemp(dir=Path.cwd(), prefix="qmem-bench-"))
    try:
        found: list[Row | Table] = [*_one_file(folder / "file", _GIB // (16 if quick else 1), 3)]
        for name, what, make, change in (
            ("states", "states in files", partial(_states, most=13 if quick else 20), _save_anew),
            ("small", "files of 20 KiB", partial(_small, count=200 if quick else 5000), _write_anew),
        ):
            (folder / name).mkdir()
            found += _beside(folder / name, what, make, change, turns=1 if quick else 2)
        return found
    finally:
        shutil.rmtree(folder)


# --- one large file


def _one_file(folder: Path, size: int, turns: int) -> list[Row]:
    """Measure an incompressible file; what is timed is the library, beside a process for the command line."""
    folder.mkdir()
    file, copy, back = folder / "file", folder / "copy", folder / "back"
    _random_file(file, size)
    managers = {name: BackupManager(folder / name, None, None) for name in ("first", "kept")}
    kept = managers["kept"].create_backup(file)
    before = _weight(folder / "kept")
    managers["kept"].create_backup(file, reread=True)
    wrote = _weight(folder / "kept") - before
    sealed = {"QMEM_PASSPHRASE": _SECRET}
    cases: dict[str, Callable[[], object]] = {
        "cp": lambda: _copied(file, copy),
        "sha256sum": lambda: _run(["sha256sum", str(file)]),
        "hashlib": lambda: _digest(file),
        "first": lambda: managers["first"].create_backup(file),
        "command": lambda: _run([_QMEM, "backup", "-C", str(folder / "command"), "create", str(file)]),
        "sealed": lambda: _run([_QMEM, "backup", "-C", str(folder / "sealed"), "create", str(file)], sealed),
        "reread": lambda: managers["kept"].create_backup(file, reread=True),
        "stat": lambda: managers["kept"].create_backup(file),
        "verify": lambda: managers["kept"].verify_backup(kept),
        "restore": lambda: managers["kept"].restore_backup(kept, back),
    }
    made = {"cp": copy, "restore": back, **{name: folder / name for name in ("first", "command", "sealed")}}
    prepared = {name: partial(_prepare, made.get(name), 2 * size + _GIB // 4) for name in cases}
    took = medians(rounds(cases, turns, prepared))
    for one in managers.values():
        one.close()
    shutil.rmtree(folder)

    what, cp, sums = f"1 file of {_size(size)}, incompressible", took["cp"], took["sha256sum"]

    def row(name: str, case: str, than: float, most: float | None) -> Row:
        ratio = took[case] / than
        reach = "" if most is None else f"<= {most:g} x"
        return Row(f"{what}: {name}", f"{took[case]:.2f} s = {ratio:.2f} x", reach, most is None or ratio <= most)

    return [
        row(f"backed up, against cp + fsync ({cp:.2f} s)", "first", cp, 1.4),
        row("the same by qmem backup create, a process", "command", cp, None),
        row("the same, encrypted with a passphrase", "sealed", cp, None),
        row(f"unchanged, all of it read and hashed, against sha256sum ({sums:.2f} s)", "reread", sums, 0.6),
        row(f"the same against hashlib on one core, with instructions for SHA ({took['hashlib']:.2f} s)",
            "reread", took["hashlib"], None),
        row("unchanged, by what the file system says of it, against sha256sum", "stat", sums, 0.6),
        Row(f"{what}: unchanged, bytes written", f"{wrote / _KIB:.1f} KiB", "<= 64 KiB", wrote <= 64 * _KIB),
        row("restored, every byte verified, against cp + fsync", "restore", cp, 1.5),
        row("verified whole, against sha256sum", "verify", sums, None),
    ]  # fmt: skip


def _random_file(path: Path, size: int) -> None:
    rng = np.random.default_rng(5)
    with path.open("wb") as file:
        for _ in range(size // _MIB):
            file.write(rng.bytes(_MIB))
        os.fsync(file.fileno())


def _copied(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--reflink=never", source, target], check=True)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _digest(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _prepare(made: Path | None, nbytes: int) -> None:
    """Remove what a case makes, and warm the memory that it may take.

    A virtual machine gives back what it does not use, and the first touch of a page that it has given back costs more
    than anything that is measured here: so all cases find as much memory that was touched a moment ago.
    """
    if made is not None:
        _remove(made)
    os.sync()
    mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- folders, beside restic and borg


@dataclass(frozen=True)
class _Used:
    """What a command took: seconds, seconds of the processors, and bytes of memory at the most."""

    seconds: float
    processor: float
    memory: int


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> _Used:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _RUNNER, *command],
        env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return _Used(*json.loads(done.stdout))


@dataclass
class _Tool:
    """What makes backups.

    Attributes
    ----------
    steps
        What each step does, and says that it took.
    begin
        What makes an empty repository.
    repository
        Where that is.
    encrypts
        Whether others can read nothing in it.
    used, weighs
        What each step took, in each round, and how large the repository was after the first and the third.
    """

    steps: Mapping[str, Callable[[], _Used]]
    begin: Callable[[], object]
    repository: Path
    encrypts: bool
    used: dict[str, list[_Used]] = field(default_factory=lambda: {step: [] for step in _STEPS})
    weighs: dict[str, list[int]] = field(default_factory=lambda: {step: [] for step in _STEPS})

    def median(self, step: str) -> float:
        return statistics.median(one.seconds for one in self.used[step])

    def line(self) -> list[str]:
        """Return its line of the table."""
        cells = [
            f"{self.median(step):.2f} s ({statistics.median(one.processor for one in self.used[step]):.2f} s)"
            for step in _STEPS
        ]
        first, changed = (statistics.median(self.weighs[step]) for step in ("first", "changed"))
        memory = max(one.memory for step in _STEPS for one in self.used[step])
        return [*cells, f"{first / _MIB:.1f}", f"{(changed - first) / _MIB:.2f}", f"{memory / _MIB:.0f}"]


def _beside(
    folder: Path,
    what: str,
    make: Callable[[Path], object],
    change: Callable[[Path, int], None],
    *,
    turns: int,
) -> list[Row | Table]:
    """Have all tools go through the same steps, in turn; only the times of processes are compared, start and all."""
    tree = folder / "tree"
    make(tree)
    files = [path for path in tree.rglob("*") if path.is_file()]
    nbytes = sum(path.stat().st_size for path in files)
    what = f"{len(files):,} {what}, {_size(nbytes)}"
    tools = {**_ours(tree, folder), **_restic(tree, folder), **_borg(tree, folder)}
    for turn in range(turns):
        for tool in tools.values():
            _remove(tool.repository)
            tool.begin()
        for step in _STEPS:
            if step == "changed":
                _change(tree, turn, change)
            for tool in tools.values():
                _prepare(None, 2 * nbytes + _GIB // 4)
                tool.used[step].append(tool.steps[step]())
                tool.weighs[step].append(_weight(tool.repository))
    columns = (
        what, "first: time (of processors)", "unchanged", "1 % changed", "verified whole", "repository, MiB",
        "more with 1 % changed, MiB", "memory at the most, MiB",
    )  # fmt: skip
    found: list[Row | Table] = [
        Table(f"backups.{folder.name}", columns, [[name, *tool.line()] for name, tool in tools.items()])
    ]
    for name, encrypted in (("qmem", False), ("qmem, encrypted", True)):
        others = [one for one, tool in tools.items() if not one.startswith("qmem") and (tool.encrypts or not encrypted)]
        for step in _STEPS if others else ():
            best = min(others, key=lambda one: tools[one].median(step))
            ratio = tools[name].median(step) / tools[best].median(step)
            found.append(Row(f"{what}: {step}, {name} against {best}", f"{ratio:.2f} x", "<= 1 x", ratio <= 1))
    absent = [name for name in ("restic", "borg") if shutil.which(name) is None]
    return [*found, *(Row(f"{what}: beside {name}", "not installed", "", True) for name in absent)]


def _change(tree: Path, turn: int, change: Callable[[Path, int], None]) -> None:
    """Write some files anew, in which there is 1 % of the bytes."""
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    rng = np.random.default_rng(turn)
    left = sum(path.stat().st_size for path in files) / 100
    for at in rng.permutation(len(files)):
        size = files[at].stat().st_size
        if size <= 1.5 * left:
            left -= size
            change(files[at], turn)
    os.sync()


def _ours(tree: Path, folder: Path) -> dict[str, _Tool]:
    """Return the tools that are of this package: the command, and the library within this process."""

    def command(name: str, environment: Mapping[str, str]) -> _Tool:
        qmem = [_QMEM, "backup", "-C", str(folder / name)]
        save = partial(_run, [*qmem, "create", str(tree)], environment)
        verify = partial(_run, [*qmem, "verify", "--full"], environment)
        steps = {step: verify if step == "verified" else save for step in _STEPS}
        return _Tool(steps, lambda: None, folder / name, bool(environment))

    def called(work: Callable[[BackupManager], object]) -> _Used:
        with BackupManager(folder / "library") as manager:
            before, start = os.times(), time.perf_counter()
            work(manager)
            took, after = time.perf_counter() - start, os.times()
        return _Used(took, after.user + after.system - before.user - before.system, 0)

    save, verify = (
        partial(called, lambda manager: manager.create_backup(tree)),
        partial(called, lambda manager: manager.verify()),
    )
    steps = {step: verify if step == "verified" else save for step in _STEPS}
    key = folder / "key"
    Key.new_file(key)
    return {
        "qmem": command("plain", {}),
        "qmem, encrypted": command("sealed", {"QMEM_PASSPHRASE": _SECRET}),
        "qmem, encrypted with a key file": command("sealed-by-file", {"QMEM_KEY_FILE": str(key)}),
        "qmem, called from Python": _Tool(steps, lambda: None, folder / "library", False),
    }


def _restic(tree: Path, folder: Path) -> dict[str, _Tool]:
    """Return restic as it is by default: it always encrypts, and compresses with zstd."""
    if shutil.which("restic") is None:
        return {}
    repository = folder / "restic"
    environment = {
        "RESTIC_REPOSITORY": str(repository),
        "RESTIC_PASSWORD": _SECRET,
        "RESTIC_CACHE_DIR": str(folder / "restic-cache"),
    }

    def restic(*words: str) -> _Used:
        return _run(["restic", *words], environment)

    save = partial(restic, "backup", "--compression", "auto", str(tree))
    steps = {step: partial(restic, "check", "--read-data") if step == "verified" else save for step in _STEPS}
    tool = _Tool(steps, partial(restic, "init", "--repository-version", "2"), repository, True)
    return {"restic, compression auto (always encrypted)": tool}


def _borg(tree: Path, folder: Path) -> dict[str, _Tool]:
    """Return borg: as it is by default but without encryption, with the compression nearest to ours, and encrypted."""
    if shutil.which("borg") is None:
        return {}
    found = {}
    for name, encryption, compression in (
        ("borg, none, lz4", "none", "lz4"),
        ("borg, none, zstd,1", "none", "zstd,1"),
        ("borg, repokey-blake2, lz4", "repokey-blake2", "lz4"),
    ):
        repository = folder / name.replace(", ", "-")
        environment = {
            "BORG_REPO": str(repository),
            "BORG_BASE_DIR": str(folder / "borg"),
            "BORG_PASSPHRASE": _SECRET,
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

        def borg(*words: str, environment: Mapping[str, str] = environment) -> _Used:
            return _run(["borg", *words], environment)

        save = partial(borg, "create", "--compression", compression, "::{now:%Y-%m-%dT%H:%M:%S.%f}", str(tree))
        steps = {step: partial(borg, "check", "--verify-data") if step == "verified" else save for step in _STEPS}
        begin = partial(borg, "init", "--encryption", encryption)
        found[name] = _Tool(steps, begin, repository, encryption != "none")
    return found


# --- what is backed up


def _states(tree: Path, most: int) -> None:
    """Make some 200 states of many families and sizes, in files of four formats."""
    tree.mkdir()
    wanted = [
        (family, qubits)
        for family, kind in FAMILIES.items()
        if not kind.density_matrix
        for qubits in range(most - 6, most + (family in _FULL) + 1)
        if (family not in _SLOW or qubits <= most - 3) and (qubits % 2 == 0 or not family.startswith(_EVEN))
    ]
    formats = ("qms", "h5", "npz", "json")
    tasks = [(tree, *one, formats[number % len(formats)]) for number, one in enumerate(wanted)]
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(_one_state, tasks):
            pass
    os.sync()


def _one_state(task: tuple[Path, str, int, str]) -> None:
    tree, family, qubits, form = task
    (tree / form).mkdir(exist_ok=True)
    _save(tree / form / f"{family}_{qubits}.{form}", state(family, qubits))


def _save(path: Path, amplitudes: Any) -> None:
    one = qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")
    qm.save(one, path, max_text_bytes=_GIB if path.suffix == ".json" else None)


def _save_anew(path: Path, turn: int) -> None:
    """Save another state of the same size."""
    qubits = int(path.stem.rpartition("_")[2])
    rng = np.random.default_rng([turn, qubits])
    _save(path, rng.normal(size=1 << qubits) + 1j * rng.normal(size=1 << qubits))


def _small(tree: Path, count: int) -> None:
    """Make many small files, which do not shrink, a hundred in each folder."""
    rng = np.random.default_rng(6)
    for number in range(count):
        folder = tree / f"{number // 100:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number % 100:02}.bin").write_bytes(rng.bytes(20 * _KIB))
    os.sync()


def _write_anew(path: Path, turn: int) -> None:
    path.write_bytes(np.random.default_rng([turn, len(path.name)]).bytes(20 * _KIB))


def _size(nbytes: int) -> str:
    return f"{nbytes / _GIB:.3g} GiB" if nbytes >= _GIB // 2 else f"{nbytes / _MIB:.0f} MiB"

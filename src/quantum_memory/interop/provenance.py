"""Where a state comes from: what its maker wants to have said beside it, and nothing that was not asked for."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

from quantum_memory.errors import InvalidStateError, MissingError
from quantum_memory.interop.circuits import distribution, dump_circuit, load_circuit
from quantum_memory.state import adapters
from quantum_memory.state.arrays import worker_count
from quantum_memory.state.memory_state import MemoryState

KEY = "provenance"
"""The key of the metadata under which `circuit_of` looks."""

_GIT_SECONDS = 30.0


def provenance(
    *,
    circuit: Any = None,
    seed: Any = None,
    libraries: bool = True,
    git: str | os.PathLike[str] | None = None,
    host: bool = False,
) -> dict[str, Any]:
    """Return what can be said of how a state was made, for its metadata: ``metadata={"provenance": provenance(...)}``.

    Parameters
    ----------
    circuit
        See `circuits.dump_circuit`.
    seed
        Of the random numbers; plain values.
    libraries
        Whether to name the versions of Python, NumPy, this package, and of those of the simulators that are imported.
    git
        A folder of a git repository: its commit, and whether tracked files were changed since.
    host
        Whether to name the machine: its name, system, processor and cores.

    Raises
    ------
    InvalidStateError
        The circuit is of no kind that is kept; the folder is in no repository with a commit.
    MissingError
        git is not installed.
    """
    said: dict[str, Any] = {}
    if circuit is not None:
        said["circuit"] = dump_circuit(circuit)
    if seed is not None:
        said["seed"] = seed
    if libraries:
        said["libraries"] = _libraries()
    if git is not None:
        said["git"] = _commit(os.fspath(git))
    if host:
        said["host"] = {
            "name": platform.node(),
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": worker_count(),
        }
    return said


def circuit_of(memory: MemoryState) -> Any:
    """Return the circuit that is kept beside a state, as its library reads it; see `circuits.load_circuit`.

    Raises
    ------
    MissingError
        There is none, or its library is not installed.
    InvalidStateError
        The library cannot read it, or this is no memory.
    """
    if not isinstance(memory, MemoryState):
        raise InvalidStateError(
            f"a {type(memory).__name__} is no memory", next_step="give what quantum_memory.load returns"
        )
    said = memory.metadata.get(KEY)
    if not isinstance(said, dict) or not isinstance(said.get("circuit"), dict):
        raise MissingError("the memory has no circuit", next_step="metadata={'provenance': provenance(circuit=...)}")
    return load_circuit(said["circuit"])


def _libraries() -> dict[str, str]:
    packages = {"numpy", "quantum_memory", *(name for one in adapters.all_of_them() for name in one.PACKAGES)}
    found = {name: distribution(name) for name in sorted(packages) if name in sys.modules}
    versions = {name: said.partition(" ")[2] for name, said in found.items() if said}
    return {"python": platform.python_version(), **versions}


def _commit(folder: str) -> dict[str, Any]:
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: str, *arguments: str) -> str:
    command = ["git", "-C", folder, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise MissingError("git is not installed", next_step="leave out git=") from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise InvalidStateError(f"git does not say: {error}", path=folder) from error
    if done.returncode:
        raise InvalidStateError(
            f"git does not say: {done.stderr.strip()!s:.200}", path=folder, next_step="give a folder of a repository"
        )
    return done.stdout.strip()

"""Whose a target is: the folder of backups that was first pushed there, and no other one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantum_memory.errors import ConflictError, IntegrityError, MissingFileError, QuantumMemoryError
from quantum_memory.lifecycle.backups.config import Config, config_of
from quantum_memory.lifecycle.backups.pushed import CLAIM, CONFIGS, MEND, Pushed, read_part
from quantum_memory.lifecycle.repository.signed_json import MAX_BYTES, said_by, signed
from quantum_memory.state.document import well_formed

if TYPE_CHECKING:
    from quantum_memory.lifecycle.backups.targets import Target


def claim_of(folder_id: str) -> bytes:
    """Return what a folder says at a target that is its own."""
    return signed({"id": folder_id})


def owner(target: Target, found: Pushed, problems: list[QuantumMemoryError] | None = None) -> str | None:
    """Return the id of the folder that was pushed to a target; None where nothing was.

    Parameters
    ----------
    problems
        Where what is damaged is noted, and goes on with what says the same; without it, it is raised.

    Raises
    ------
    IntegrityError
        Nothing that is whole says it.
    """
    first: QuantumMemoryError | None = None
    if found.claimed:
        try:
            return _claimed(target)
        except IntegrityError as error:
            first = error
    config, bad = config_at(target, found)
    if config is None and first is None and not bad:
        if not found:
            return None
        first = IntegrityError("nothing says which folder was pushed there", path=target.name, next_step=MEND)
    if first is not None and problems is not None:
        problems.append(first)
    if config is None:
        raise first or bad[0]
    return config.id


def _claimed(target: Target) -> str:
    where = target.where(CLAIM)
    data = target.read(CLAIM, MAX_BYTES)
    with well_formed(where):
        if data is None:
            raise IntegrityError("it is gone", next_step=MEND)
        said = said_by(bytes(data), where, {"id"})
        if not isinstance(said["id"], str):
            raise IntegrityError("its id is none", next_step=MEND)
        return said["id"]


def config_at(target: Target, found: Pushed) -> tuple[Config | None, list[QuantumMemoryError]]:
    """Return the newest config at a target that is whole, and what is wrong with newer ones."""
    good: list[tuple[int, Config]] = []
    bad: list[QuantumMemoryError] = []
    for name in CONFIGS:
        for version in found.versions.get(name, []):
            where = target.where(version.key)
            try:
                text = bytes(read_part(target, version))
                with well_formed(where):
                    config = config_of(said_by(text, where, {"id", "created_at", "cipher", "slots"}))
            except IntegrityError as error:
                bad.append(error)
            else:
                good.append((version.stamp, config))
                break
    return max(good, key=lambda one: one[0])[1] if good else None, bad


def check_owner(target: Target, owned_by: str | None, folder_id: str, path: str) -> None:
    """Refuse to mix two folders.

    Raises
    ------
    ConflictError
        Another folder was pushed there.
    """
    if owned_by not in {None, folder_id}:
        raise ConflictError(
            f"it has the backups of another folder (id {owned_by:.8}), and not those of {path} (id {folder_id:.8})",
            path=target.name,
            next_step="choose another prefix, or the folder that was pushed there",
        )


def check_empty(target: Target, found: Pushed) -> None:
    """Refuse a place where nobody has pushed anything, and something else is.

    Raises
    ------
    ConflictError
    """
    if not found and found.others:
        raise ConflictError(
            f"there is something else, such as {found.others[0]:.80}, and no backups",
            path=target.name,
            next_step="choose a prefix, or a folder, in which there is nothing",
        )


def missing(target: Target) -> MissingFileError:
    """Return the error of a target to which nothing was pushed."""
    return MissingFileError(
        "no backups were pushed there", path=target.name, next_step="check the address; qmem backup push makes a copy"
    )

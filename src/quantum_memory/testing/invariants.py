"""What has to hold after every disturbance, of files, HDF5 stores, and folders of checkpoints or backups.

`quantum_memory.testing.accidents` lists what has to hold; I6 and I8 are of an operation, and not of what is there.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import quantum_memory as qm
from quantum_memory.durability import atomic
from quantum_memory.durability.files import RealFiles
from quantum_memory.errors import QuantumMemoryError
from quantum_memory.formats.reader import read_memory
from quantum_memory.lifecycle.backups.restoring import Restorer
from quantum_memory.testing.operations import open_files, state_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from quantum_memory.encryption.keys import Key
    from quantum_memory.lifecycle.backups.folder import BackupFolder

ANY = "*"
"""In the place of a name that is not known before something is saved under it."""

_CHECKPOINTS = r"lock|refs\.json|log\.jsonl|not-durable|chunks(/[0-9a-f]{32}\.qmpack)?|checkpoints(/.+\.qmcp)?"
_BACKUPS = (
    r"lock|refs\.json|log\.jsonl|not-durable|config(-copy)?\.json|checks\.json|quarantine(/.+)?"
    r"|chunks(/[0-9a-f]{32}\.(qmpack|qmindex))?|backups(/.+\.qmbk)?"
)


def check_store(
    path: str | os.PathLike[str],
    acknowledged: Mapping[str, str],
    *,
    pending: Mapping[str, Collection[str]] | None = None,
    removed: Collection[str] = (),
    key: Key | None = None,
) -> None:
    """See that all is there that was acknowledged, whole, and nothing else. Nothing is written.

    Parameters
    ----------
    path
        A file of any format, an HDF5 store, a folder of checkpoints, or one of backups.
    acknowledged
        What has to be there: contents, as `contents` gives them, by name: ids of states, checkpoints or backups; of a
        file, which holds one thing, the name is "".
    pending
        What was being saved, and may be there as well, or in the place of what had its name before: by name, each of
        the contents that it may have. What gets a name that is not known before has the name `ANY`.
    removed
        Names that were being removed, and may be there or not.
    key
        What opens it, where it is encrypted.

    Raises
    ------
    AssertionError
        Something does not hold; it begins with what: I1 to I5, or I7.
    """
    path, pending = Path(path), pending or {}
    try:
        found = contents(path, key=key)
    except QuantumMemoryError as error:  # nothing of it can be read
        found = dict.fromkeys(acknowledged, error) or {"": error}
    for name, content in acknowledged.items():
        there = found.get(name)
        if there is None:
            assert name in removed, f"I1: {name!r} of {path} was acknowledged, and is gone"
        else:
            assert isinstance(there, str), f"I1: {name!r} of {path} was acknowledged, and is damaged: {there}"
            assert there in {content, *pending.get(name, ())}, f"I4: {name!r} of {path} is neither what it was nor new"
    for name in set(found) - set(acknowledged):
        there = found[name]
        assert isinstance(there, str), f"I2: {name!r} of {path} was not acknowledged, and is there in part: {there}"
        assert there in {*pending.get(name, ()), *pending.get(ANY, ())}, (
            f"I2: {name!r} of {path} is nothing that was saved"
        )
    _check_names(path)
    _check_locks(path)


def contents(path: str | os.PathLike[str], *, key: Key | None = None) -> dict[str, str | QuantumMemoryError]:
    """Read every byte of what is at a path, and return what each thing in it holds, or what is wrong with it.

    Parameters
    ----------
    path, key
        See `check_store`.

    Returns
    -------
    dict
        By name the `content_id`, or, of a backup, the SHA-256 of what it gives back.

    Raises
    ------
    AssertionError
        I3: something can be read that is not what its digest, or a list, says.
    QuantumMemoryError
        None of it can be read.
    """
    path = Path(path)
    if (path / "checkpoints").is_dir():
        return dict(_of_checkpoints(path))
    if (path / "backups").is_dir():
        return dict(_of_backups(path, key))
    if path.suffix == ".h5" and path.exists():
        return dict(_of_states(path))
    return {"": _of_file(path, key)} if path.is_file() else {}


def _same(path: Path, name: str, said: str, read: str) -> str:
    assert said == read, f"I3: {name!r} of {path} is read as {read}, and said to be {said}"
    return read


def _of_file(path: Path, key: Key | None) -> str:
    read = qm.load(path, key=key, allow_pickle=True).content_id
    said = str(qm.verify(path, key=key, allow_pickle=True).content_id)
    if read != said and "certificate" in qm.info(path, key=key)["compression"]:
        return said  # of the form, from which the state is computed
    return _same(path, "", said, read)


def _of_states(path: Path) -> Iterator[tuple[str, str | QuantumMemoryError]]:
    storage = qm.HDF5QuantumStorage(path)
    for one in storage.list_states():
        name = one["id"]
        try:
            yield name, _same(path, name, one["content_id"], storage.load_quantum_state(name).content_id)
        except QuantumMemoryError as error:
            yield name, error


def _of_checkpoints(path: Path) -> Iterator[tuple[str, str | QuantumMemoryError]]:
    with closing(qm.CheckpointManager(path, signals=False)) as manager, manager.held():
        listed, bad = manager.folder.listed()
        yield from bad.items()
        for one in listed:
            try:
                with manager.folder.reading(one.id) as reader:
                    yield one.id, _same(path, one.id, one.content_id, read_memory(reader).content_id)
            except QuantumMemoryError as error:
                yield one.id, error


def _of_backups(path: Path, key: Key | None) -> Iterator[tuple[str, str | QuantumMemoryError]]:
    with closing(qm.BackupManager(path, key=key)) as manager, manager.held():
        for one in manager.folder.ids():
            try:
                yield one, _given_back(manager.folder, one)
            except QuantumMemoryError as error:
                yield one, error


def _given_back(folder: BackupFolder, one: str) -> str:
    digest, made = hashlib.sha256(), folder.manifest(one)
    restorer = Restorer(folder, made)
    for entry in made.entries:
        said = (entry.path, entry.type, entry.mode, entry.modified_ns, entry.size, entry.target)
        digest.update(repr(said).encode(errors="surrogatepass"))
        length = 0
        for raw in restorer.chunks(entry):
            digest.update(raw)
            length += len(raw)
        assert length == entry.size, f"I3: {entry.path} of {one} in {folder.path} has not the length that is said"
    return digest.hexdigest()


def _check_names(path: Path) -> None:
    """I5: what is left over is known by its name."""
    if path.is_dir():
        known = _CHECKPOINTS if (path / "checkpoints").is_dir() else _BACKUPS
        odd = [one for one in state_of(path) if not re.fullmatch(known, one) and not _is_leftover(one)]
    else:
        # Others may have files beside it, but for those that begin as its temporary ones do.
        odd = [one.name for one in path.parent.glob(f".{path.name}.*") if not _is_leftover(one.name)]
    assert not odd, f"I5: nobody knows what is left over at {path}: {odd}"


def _is_leftover(path: str) -> bool:
    return atomic.is_leftover(os.path.basename(path))


def _check_locks(path: Path) -> None:
    """I7: nobody holds a lock on it, and this process has nothing of it open."""
    real, system = os.path.realpath(path), RealFiles()
    opened = [target for target in open_files().values() if target == real or target.startswith(real + "/")]
    assert not opened, f"I7: still open: {opened}"
    for one in [path, *path.rglob("*")]:
        if one.is_file():
            fd = system.open(os.fspath(one), os.O_RDONLY)
            try:
                assert system.try_lock(fd), f"I7: {one} is locked"
            finally:
                system.close(fd)

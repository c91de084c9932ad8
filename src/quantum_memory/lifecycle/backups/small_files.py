"""The small files of a folder that change: config, tags and pins; those that were changed here are not written over."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Literal

from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import ConflictError, IntegrityError, MissingFileError, QuantumMemoryError, UnsafeError
from quantum_memory.lifecycle.backups.config import as_json, config_paths
from quantum_memory.lifecycle.backups.pushed import CONFIGS, REFS, read_part
from quantum_memory.lifecycle.repository.signed_json import SEALED, said_by, signed

if TYPE_CHECKING:
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.pushed import Version
    from quantum_memory.lifecycle.backups.targets import Target

Taken = Literal["taken", "kept", "same", "none"]


def take_refs(
    folder: BackupFolder, target: Target, versions: list[Version], problems: list[QuantumMemoryError]
) -> Taken:
    """Take the newest tags and pins that are whole, where those that are here are an older version of them, or none.

    Parameters
    ----------
    versions
        Those that are there, the newest first.
    problems
        Where what is damaged is noted.
    """
    path = os.path.join(folder.path, REFS)
    own = _digest_of(path)
    for version in versions:
        if version.digest == own:
            return "same"
        try:
            text = bytes(read_part(target, version))
            said_by(text, target.where(version.key), {"tags", "pins"}, {SEALED})
        except (IntegrityError, UnsafeError) as error:
            problems.append(error)
            continue
        if own is not None and own not in {one.digest for one in versions}:
            return "kept"
        try:
            with folder.store.alone():
                if _digest_of(path) != own:
                    return "kept"
                with DurableFile(path, durable=folder.durable, mode=folder.store.file_mode) as sink:
                    sink.write(text)
                    sink.describe(folder.store.file_mode, version.stamp)
        except ConflictError as error:
            error.message = f"tags and pins were not taken: {error.message}"
            problems.append(error)
            return "kept"
        return "taken"
    return "none" if own is None else "kept"


def _digest_of(path: str) -> str | None:
    try:
        with ReadableFile(path) as source:
            return hashlib.sha256(source.read(0, source.size)).hexdigest()
    except MissingFileError:
        return None


def small_here(folder: BackupFolder, name: str) -> tuple[bytes, int]:
    """Return a small file of a folder, and when it was changed, in nanoseconds since 1970.

    Raises
    ------
    MissingFileError
        It is not there.
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    path = os.path.join(folder.path, name)
    if name in CONFIGS:  # both say the same, and one may be damaged
        config = folder.known_config()
        return signed(as_json(config)), max(map(_changed, config_paths(folder.path)))
    with folder.repairable(), ReadableFile(path) as source:
        data = source.read(0, source.size)
        said_by(data, path, {"tags", "pins"}, {SEALED})
    return data, _changed(path)


def _changed(path: str) -> int:
    try:
        with ReadableFile(path) as source:
            return source.facts().st_mtime_ns
    except (MissingFileError, UnsafeError):
        return 0

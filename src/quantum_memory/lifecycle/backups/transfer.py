"""Backups in one file (``.qmb``), to be taken elsewhere: written front to back, and imported whole or not at all.

It is a pack of chunks but for its first bytes: the chunks of the backups, each once and as the folder stores them; then
their manifests, in pieces; and at the end what there is (`export_file`). Of an encrypted folder it is
encrypted with the same keys, which are in it as they are in the folder. ``docs/backup_format.md`` is the specification.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import warnings
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from quantum_memory._version import __version__
from quantum_memory.compression.codecs import NONE
from quantum_memory.compression.cores import on_all_cores
from quantum_memory.durability import pack
from quantum_memory.durability.atomic import DurableFile
from quantum_memory.durability.files import ReadableFile
from quantum_memory.durability.pack_writer import PackFile
from quantum_memory.errors import (
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    UnsafeError,
)
from quantum_memory.lifecycle.backups.config import as_json
from quantum_memory.lifecycle.backups.export_file import CONTENTS, NAMES, SIGNATURE, ExportFile, piece_name
from quantum_memory.lifecycle.backups.keys import current_config
from quantum_memory.lifecycle.repository.chunks import Chunk, checked, name_of, sealed_chunk
from quantum_memory.lifecycle.repository.folder import new_id, now, stamp
from quantum_memory.lifecycle.repository.signed_json import sealed, signed
from quantum_memory.state.arrays import CHUNK_BYTES
from quantum_memory.state.json_text import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quantum_memory.durability.pack import Place
    from quantum_memory.encryption.keys import Key
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.manifest import Backup, BackupManifest

    Path = str | os.PathLike[str]
    Progress = Callable[[int], object]

_PRIVATE = 0o600
_MOST_CHUNKS = pack.MAX_CHUNKS // 2
"""Chunks of the files; of their manifests there are far fewer."""

_FEWER = "export some of them at a time"


@dataclass
class Exported:
    """What was exported.

    Attributes
    ----------
    path
        The file.
    backups
        Ids of what is in it, the oldest first.
    chunks, nbytes
        Chunks of these, and the bytes of the file.
    encrypted
        Whether it takes a key to import it.
    """

    path: str
    backups: list[str]
    chunks: int
    nbytes: int
    encrypted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


def export(
    folder: BackupFolder,
    ids: Iterable[str] | None,
    path: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write backups into one file, durably; every chunk is compared with its name on the way.

    Parameters
    ----------
    ids
        Which; by default all that there are.
    overwrite
        Whether a file that is there may be replaced.
    progress
        Called with the bytes of each chunk that is done.

    Raises
    ------
    MissingError, IntegrityError
        Something of them is gone or damaged; no file is made.
    ConflictError, StorageError
    """
    _ = folder.config
    with folder.store.shared():
        wanted = _wanted(folder, ids)
        needed: set[bytes] = set()
        for one in wanted:
            with _saying_what_can_be_had(folder):
                needed |= folder.manifest(one).chunks()
            if len(needed) > _MOST_CHUNKS:
                raise InvalidStateError("they are more than one file takes", path=path, next_step=_FEWER)
        with DurableFile(path, overwrite=overwrite, durable=folder.durable, mode=_PRIVATE) as sink:
            file = PackFile(sink, SIGNATURE)
            for name, place, stored in _stored(folder, needed):
                file.write(name, stored, check=place.check, codec=place.codec, raw=place.raw)
                if progress is not None:
                    progress(place.raw)
            contents = _contents(folder, [[one, _put_manifest(folder, one, file)] for one in wanted])
            _put(file, CONTENTS, contents)
            if len(contents) > pack.MAX_STORED:
                raise InvalidStateError("they are more than one file takes", path=path, next_step=_FEWER)
            file.end()
    made = Exported(os.path.abspath(path), wanted, len(needed), sink.length, folder.sealer is not None)
    folder.note("exported", backups=wanted, path=made.path)
    return made


def _wanted(folder: BackupFolder, ids: Iterable[str] | None) -> list[str]:
    """Return ids in the order of saving, each once."""
    listed, bad = folder.listed()
    chosen = None if ids is None else set(ids)
    for one, error in bad.items():
        if chosen is None or one in chosen:
            error.next_step = _which_are_whole(folder)
            raise error
    found = [one.id for one in listed if chosen is None or one.id in chosen]
    for gone in (chosen or set()) - set(found):
        raise folder.missing(gone)
    if not found:
        raise MissingError("there is no backup to export", path=folder.path, next_step="create one first")
    return found


def _stored(folder: BackupFolder, names: set[bytes]) -> Iterator[tuple[bytes, Place, memoryview]]:
    """Give chunks as they are stored, in the order in which they stand in their packs."""
    store, sealer = folder.store, folder.sealer

    def read(name: bytes) -> tuple[bytes, Place, memoryview]:
        place = store.place(name)[1]
        stored = memoryview(bytearray(max(place.stored, place.raw)))
        found = store.read_into(name, stored)
        stored = stored[: found.stored]
        checked(name, found, stored, sealer)
        return name, found, stored

    def where(name: bytes) -> tuple[str, int]:
        at, place = store.place(name)
        return at, place.offset

    with _saying_what_can_be_had(folder):
        yield from on_all_cores(read, sorted(names, key=where))


def _which_are_whole(folder: BackupFolder) -> str:
    return folder.command("verify --full  # shows which backups are whole; export these by their ids")


@contextlib.contextmanager
def _saying_what_can_be_had(folder: BackupFolder) -> Iterator[None]:
    try:
        yield
    except (IntegrityError, MissingError) as error:
        error.next_step = _which_are_whole(folder)
        raise error.at(folder.path) from None


def _put_manifest(folder: BackupFolder, one: str, file: PackFile) -> list[str]:
    """Write a manifest as it is, and return the names of its pieces."""
    with folder.opened(one) as source:
        pieces = [source.read(at, min(CHUNK_BYTES, source.size - at)) for at in range(0, source.size, CHUNK_BYTES)]
    for piece in pieces:
        _put(file, piece_name(piece), piece)
    return [piece_name(piece).hex() for piece in pieces]


def _put(file: PackFile, name: bytes, data: bytes) -> None:
    file.write(name, data, check=pack.checksum(data), codec=NONE.id, raw=len(data))


def _contents(folder: BackupFolder, listed: list[list[Any]]) -> bytes:
    refs, there = folder.refs(), {one for one, _ in listed}
    names = {
        "tags": {tag: one for tag, one in sorted(refs.tags.items()) if one in there},
        "pins": sorted(refs.pins & there),
    }
    return signed(
        {
            "created_at": stamp(now()),
            "writer": f"quantum-memory {__version__}",
            "config": None if folder.sealer is None else as_json(current_config(folder)),
            "backups": listed,
            **sealed(names, folder.sealer, NAMES),
        }
    )


def export_history(listed: list[dict[str, Any]], path: Path, *, overwrite: bool = False, durable: bool = True) -> None:
    """Write what is known of backups as JSON, for people and other programs; their sources are in it, as plain text."""
    with DurableFile(path, overwrite=overwrite, durable=durable, mode=_PRIVATE) as sink:
        sink.write(to_json({"exported_at": stamp(now()), "backups": listed}) + b"\n")


def import_(folder: BackupFolder, path: Path, *, key: Key | None = None, progress: Progress | None = None) -> list[str]:
    """Take the backups of a file into a folder, and return the ids that they have there, in the order of saving.

    All that the file says is checked before anything is written, and every chunk is compared with its name before a
    backup is there. What the folder has already is not written again.

    Parameters
    ----------
    key
        What opens the file, where that is not what opens the folder.
    progress
        Called with the bytes of each chunk that is done; where there is no folder yet, also when it was checked.

    Raises
    ------
    WrongKeyError
        The key does not open the file.
    IntegrityError, UnsafeError, UnsupportedVersionError
        It is damaged, or made to do harm. The folder is as it was.
    ConflictError, StorageError
    """
    with ReadableFile(os.fspath(path)) as source:
        file = ExportFile(source, folder.key if key is None else key)
        if key is not None and file.sealer is None:
            raise ConflictError(
                "a key is given, and this file is not encrypted",
                path=path,
                next_step="leave the key out, if it is meant to be so",
            )
        if not folder.is_there:
            file.check_everything(progress)  # so that not even a folder is made for nothing
        folder.make()
        if file.sealer is not None and folder.sealer is None:
            warnings.warn(f"what was encrypted in {os.fspath(path)} is not encrypted in {folder.path}", stacklevel=3)
        with folder.store.shared():
            names = _chunks(folder, file, progress)
            ids = _manifests(folder, file, names)
            folder.settle()
    _name(folder, file, ids)
    folder.note("imported", path=os.path.abspath(path), backups=list(ids.values()))
    return list(ids.values())


def _chunks(folder: BackupFolder, file: ExportFile, progress: Progress | None) -> dict[bytes, bytes]:
    """Write the chunks that are not there, and return the names that they have there."""
    sealer, as_they_are = folder.sealer, _is_sealed_alike(folder, file)
    names: dict[bytes, bytes] = {}

    def translated(name: bytes) -> tuple[bytes, Chunk]:
        place, stored, packed, raw = file.chunk(name)
        if as_they_are:
            return name, Chunk(name, stored, place.check, place.codec, place.raw)
        return name, sealed_chunk(name_of(raw, sealer), packed, place.codec, place.raw, sealer)

    with folder.store.writer() as writer:
        for name, chunk in on_all_cores(translated, file.names):
            if chunk.stored is not None:
                writer.add(chunk.name, chunk.stored, check=chunk.check, codec=chunk.codec, raw=chunk.raw)
            names[name] = chunk.name
            if progress is not None:
                progress(chunk.raw)
    folder.store.settle(set(names.values()), written=writer.chunks > 0)
    return names


def _is_sealed_alike(folder: BackupFolder, file: ExportFile) -> bool:
    """Tell whether a chunk has the same name, and is sealed in the same way, in a folder and in a file."""
    if folder.sealer is None or file.sealer is None or file.config is None:
        return folder.sealer is file.sealer
    return file.config.id == folder.config.id and file.sealer.name(b"") == folder.sealer.name(b"")


def _manifests(folder: BackupFolder, file: ExportFile, names: dict[bytes, bytes]) -> dict[str, str]:
    """Give the backups their names, and return them: the id in the folder for that in the file."""
    ids: dict[str, str] = {}
    numbers = _Numbers(folder.listed()[0])
    there = set(folder.ids())
    for theirs in file.backups:
        made = file.manifest(theirs.id)
        entries = tuple(
            replace(entry, chunks=b"".join(names[name] for name in entry.chunk_names())) for entry in made.entries
        )
        wanted = replace(made, entries=entries)
        one = made.backup.id
        for called in (one, wanted.named()):
            is_there = called in there
            if not is_there or _is_same(folder, called, wanted):
                one = called
                break
        else:
            is_there, one = False, new_id(now())
        number = numbers.of(made.backup)
        if not is_there:
            backup = replace(made.backup, id=one, number=number, imported=True)
            folder.publish_manifest(replace(wanted, backup=backup))
        ids[made.backup.id] = one
    return ids


def _is_same(folder: BackupFolder, one: str, wanted: BackupManifest) -> bool:
    with contextlib.suppress(IntegrityError, UnsafeError):
        return folder.manifest(one).digest() == wanted.digest()
    return False


class _Numbers:
    """Gives imported backups their place in the order of saving: by the time, and among themselves as they were."""

    def __init__(self, listed: list[Backup]) -> None:
        in_time = sorted((one.created_at, one.number) for one in listed)
        self._times = [when for when, _ in in_time]
        self._highest = list(itertools.accumulate((number for _, number in in_time), max, initial=0))
        self._last: tuple[int, str] = (0, "")

    def of(self, backup: Backup) -> int:
        """Return the number of the next one."""
        if not self._times:
            return backup.number
        number = self._highest[bisect.bisect_right(self._times, backup.created_at)]
        last, when = self._last
        # Equal numbers are in the order of the time.
        number = max(number, last if when < backup.created_at else last + 1)
        self._last = number, backup.created_at
        return number


def _name(folder: BackupFolder, file: ExportFile, ids: dict[str, str]) -> None:
    """Give tags and pins; those that the folder has keep what they mean."""
    if not file.tags and not file.pins:
        return
    with folder.store.alone():
        gone = set(ids.values()) - set(folder.ids())
        if gone:
            raise ConflictError(
                f"others have removed {len(gone)} of the backups that were just imported",
                path=folder.path,
                next_step="import them again",
            )
        refs = folder.refs()
        taken = []
        for tag, one in file.tags.items():
            if refs.tags.setdefault(tag, ids[one]) != ids[one]:
                taken.append(tag)
        refs.pins |= {ids[one] for one in file.pins}
        folder.write_refs(refs)
    if taken:
        named = ", ".join(taken[:5])
        warnings.warn(f"{len(taken)} tags mean another backup here, and still do: {named:.200}", stacklevel=4)

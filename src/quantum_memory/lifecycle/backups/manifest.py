"""The manifest of a backup (`repository.manifest_file`).

The text lists what the backup holds, and what could not be read; the names of the chunks of the files follow in the
order of the entries. With a key, head and text are sealed, each under the id of the backup, so that neither names nor
times of files are seen. The text has the SHA-256 of the names of the chunks, so that nobody without the key gives a
file the chunks of another one. ``docs/backup_format.md`` is the specification.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from quantum_memory.errors import RESTORE, IntegrityError, UnsafeError
from quantum_memory.lifecycle.repository import manifest_file
from quantum_memory.lifecycle.repository.folder import ID
from quantum_memory.lifecycle.repository.manifest_file import DIGEST_BYTES, Kind, most_values
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import from_json, max_nodes, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Readable
    from quantum_memory.encryption.sealing import Sealer

KIND = Kind(b"\x89QMB\r\n\x1a\n", "backup")
Type = Literal["file", "folder", "link"]
FILE: Type = "file"
FOLDER: Type = "folder"
LINK: Type = "link"
MODE_BITS = 0o777
_HEAD, _TEXT = b"head of a backup", b"text of a backup"
_LONGEST_PATH = 1 << 15
_TIMES = (-(1 << 63) * 10**9, (1 << 63) * 10**9)  # those of some file systems have seconds of 64 bits
_RANGES = ((0, MODE_BITS + 1), _TIMES, (0, 1 << 63), (0, 1 << 63), (0, 1 << 64), _TIMES)
LOST = "the list of its chunks was damaged"
"""What is wrong with files that a repair could not give back."""
_OF_THE_FOLDER = {"id", "number", "new_bytes", "imported"}
_RENAMED = re.compile(r"-[0-9a-f]{8}\Z")


@dataclass(frozen=True)
class Backup:
    """What a list shows of a backup.

    Attributes
    ----------
    id
        Its name in the folder.
    number
        Its place in the order of saving, which is the order even where clocks jump.
    source
        The file or folder that it is a copy of, from the root on.
    created_at
        When it was begun, ISO 8601, UTC.
    description
        What somebody said of it.
    automatic
        Whether nobody asked for it by name.
    is_folder
        Whether it is of a folder.
    files, folders, links
        How many it has.
    raw_bytes
        Bytes of its files.
    new_bytes
        Bytes of the chunks that were written for it.
    problems
        How many files could not be read, or changed while they were.
    imported
        Whether it was made elsewhere, and came in a file.
    writer
        The release that wrote it.
    """

    id: str
    number: int
    source: str
    created_at: str
    description: str
    automatic: bool
    is_folder: bool
    files: int
    folders: int
    links: int
    raw_bytes: int
    new_bytes: int
    problems: int
    imported: bool
    writer: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return dict(vars(self))


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or symbolic link in a backup.

    Attributes
    ----------
    path
        From the source on, with slashes; empty for the source itself.
    type
        "file", "folder" or "link".
    mode
        Permission bits.
    modified_ns
        Time of its last modification, in nanoseconds from 1970 on.
    size
        Bytes of a file.
    chunks
        Names of its chunks, one after another.
    target
        Where a link leads.
    inode, changed_ns
        What else tells whether the file was touched since: its number, and the time of its last change of any kind.
    """

    path: str
    type: Type
    mode: int = 0
    modified_ns: int = 0
    size: int = 0
    chunks: bytes = b""
    target: str = ""
    inode: int = 0
    changed_ns: int = 0

    @property
    def count(self) -> int:
        """How many chunks it has."""
        return len(self.chunks) // DIGEST_BYTES

    def chunk(self, index: int) -> bytes:
        """Return the name of a chunk."""
        return self.chunks[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]

    def chunk_names(self) -> list[bytes]:
        """Return the names of all its chunks."""
        return [self.chunk(index) for index in range(self.count)]


@dataclass(frozen=True)
class BackupManifest:
    """A backup.

    Attributes
    ----------
    backup
        What is said of it.
    entries
        What it holds, in the order of the paths.
    problems
        Which paths could not be read, and why.
    skipped
        Paths of what is never copied: pipes, sockets, devices, and the folder of the backups themselves.
    """

    backup: Backup
    entries: tuple[Entry, ...]
    problems: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()

    def chunks(self) -> set[bytes]:
        """Return the names of all chunks that it needs."""
        return {name for entry in self.entries for name in entry.chunk_names()}

    def chunk_bytes(self) -> bytes:
        """Return the names of the chunks of all files, one after another."""
        return b"".join(entry.chunks for entry in self.entries)

    def digest(self) -> str:
        """Return the SHA-256 of what it is, whatever it is called, in whichever place, and however it came here."""
        said = {name: fact for name, fact in self.backup.to_dict().items() if name not in _OF_THE_FOLDER}
        return hashlib.sha256(to_json(said, canonical=True) + _text(self, self.chunk_bytes())).hexdigest()

    def named(self) -> str:
        """Return an id that follows from the present one and from what it is, for one that cannot keep its own."""
        return f"{_RENAMED.sub('', self.backup.id)[:118]}-{self.digest()[:8]}"


def written(manifest: BackupManifest, sealer: Sealer | None = None) -> bytes:
    """Return the bytes of a manifest.

    Raises
    ------
    InvalidStateError
        It is of more files than one backup takes.
    """
    name = manifest.backup.id.encode()
    chunks = manifest.chunk_bytes()
    text = _text(manifest, chunks)
    head, packed = to_json(manifest.backup.to_dict()), manifest_file.packed_text(text)
    if sealer is not None:
        head, packed = sealer.seal(head, _HEAD, name), sealer.seal(packed, _TEXT, name)
    return manifest_file.written(KIND, head, packed, len(text), chunks)


def _text(manifest: BackupManifest, chunks: bytes) -> bytes:
    return to_json(
        {
            "chunks": hashlib.sha256(chunks).hexdigest(),
            "entries": [_listed(one) for one in manifest.entries],
            "problems": [*map(list, manifest.problems)],
            "skipped": list(manifest.skipped),
        }
    )


def read_backup(source: Readable, one: str, sealer: Sealer | None = None) -> Backup:
    """Return what a list shows of the backup `one`; of the rest of the file only the length is looked at.

    Raises
    ------
    IntegrityError, UnsupportedVersionError, StorageError
    """
    with well_formed(source.name):
        return _backup(_opened(manifest_file.read_head(source, KIND), _HEAD, one, sealer))


def read_manifest(source: Readable, one: str, sealer: Sealer | None = None) -> BackupManifest:
    """Return the manifest of the backup `one`, every byte of it checked; whether its chunks are there is not looked at.

    No path of one that passes leads out of the folder that it is restored into, nor through a link.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """
    head, body = manifest_file.read_whole(source, KIND)
    with well_formed(source.name):
        made, digest = _manifest(head, body, one, sealer)
        if hashlib.sha256(body.chunks).hexdigest() != digest:
            raise IntegrityError("its files have other chunks than they were saved with")
        return made


def read_damaged_backup(source: Readable, one: str, sealer: Sealer | None) -> Backup:
    """Return what a list shows of a backup of which the manifest may be damaged behind that; see `read_backup`."""
    with well_formed(source.name):
        return _backup(_opened(manifest_file.read_damaged(source, KIND)[0], _HEAD, one, sealer))


def salvaged_manifest(
    source: Readable, one: str, sealer: Sealer | None, is_whole: Callable[[Entry], bool]
) -> BackupManifest | None:
    """Return what can be had of the damaged manifest of a folder: the files that are whole; None for none.

    Parameters
    ----------
    is_whole
        Tells of a file whether its chunks are there. A name that is damaged is that of none.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
        What it says of its files cannot be read, or what is wrong with it is no accident.
    """
    with contextlib.suppress(IntegrityError):
        manifest_file.read_whole(source, KIND)
        raise UnsafeError("it was changed by somebody", path=source.name, next_step=RESTORE)
    head, body = manifest_file.read_damaged(source, KIND)
    with well_formed(source.name):
        made, _ = _manifest(head, body, one, sealer)
    lost = {entry.path for entry in made.entries if entry.type == FILE and not is_whole(entry)}
    kept = tuple(entry for entry in made.entries if entry.path not in lost)
    files = [entry.size for entry in kept if entry.type == FILE]
    if not files or not made.backup.is_folder:
        return None
    problems = tuple(sorted([*made.problems, *((path, LOST) for path in lost)]))
    backup = replace(made.backup, files=len(files), raw_bytes=sum(files), problems=len(problems))
    return replace(made, backup=backup, entries=kept, problems=problems)


def _manifest(head: bytes, body: manifest_file.Body, one: str, sealer: Sealer | None) -> tuple[BackupManifest, str]:
    """Return a manifest, and the SHA-256 that the names of its chunks should have."""
    backup = _backup(_opened(head, _HEAD, one, sealer))
    packed = _opened(bytes(body.packed), _TEXT, one, sealer)
    text = manifest_file.unpacked_text(packed, body.text_bytes)
    content = from_json(text, max_nodes=most_values(len(packed)))
    entries = _entries(content["entries"], bytes(body.chunks))
    problems = tuple((path, why) for path, why in content["problems"])
    skipped = tuple(content["skipped"])
    if not all(isinstance(part, str) for part in (*skipped, *(part for problem in problems for part in problem))):
        raise IntegrityError("its problems are not well formed")
    if entries[0].type != (FOLDER if backup.is_folder else FILE):
        raise IntegrityError("it is of another kind than it says")
    return BackupManifest(backup, entries, problems, skipped), content["chunks"]


def _opened(stored: bytes, kind: bytes, one: str, sealer: Sealer | None) -> bytes:
    return stored if sealer is None else sealer.open(stored, kind, one.encode())


def _listed(entry: Entry) -> list[Any]:
    common = [entry.path, entry.type, entry.mode, entry.modified_ns]
    if entry.type == LINK:
        return [*common, entry.target]
    if entry.type == FOLDER:
        return common
    return [*common, entry.size, entry.count, entry.inode, entry.changed_ns]


def _entries(listed: list[list[Any]], chunks: bytes) -> tuple[Entry, ...]:
    made: list[Entry] = []
    folders: set[str] = set()
    position = 0
    for path, kind, *facts in listed:
        if not isinstance(path, str) or ((path or made) and not _is_inside(path)):
            raise UnsafeError(
                f"it has a path that leads elsewhere: {path!r:.80}",
                next_step="do not trust this backup: no release makes one like it",
            )
        if made and (path <= made[-1].path or path.rpartition("/")[0] not in folders):
            raise IntegrityError(f"its path {path!r:.80} is out of place")
        count = 0
        if kind == FILE:
            mode, modified, size, count, inode, changed = _whole(facts, 6)
            names = chunks[position : position + count * DIGEST_BYTES]
            entry = Entry(path, FILE, mode, modified, size, names, inode=inode, changed_ns=changed)
            if entry.count != count or (count == 0) != (size == 0):
                raise IntegrityError("its files do not fit its chunks")
        elif kind == FOLDER:
            mode, modified = _whole(facts, 2)
            entry = Entry(path, FOLDER, mode, modified)
            folders.add(path)
        elif kind == LINK and made:
            *numbers, target = facts
            mode, modified = _whole(numbers, 2)
            if not isinstance(target, str) or not 0 < len(target) <= _LONGEST_PATH or "\0" in target:
                raise IntegrityError("it has a link that leads nowhere")
            entry = Entry(path, LINK, mode, modified, target=target)
        else:
            raise IntegrityError(f"it has an entry of no kind that there is: {kind!r:.40}")
        position += count * DIGEST_BYTES
        made.append(entry)
    if not made or made[0].path or (made[0].type == FILE and len(made) > 1) or position != len(chunks):
        raise IntegrityError("its entries are not well formed")
    return tuple(made)


def _is_inside(path: str) -> bool:
    """Tell whether a path can be that of something in a folder."""
    parts = path.split("/")
    return "\0" not in path and len(path) <= _LONGEST_PATH and not any(part in {"", ".", ".."} for part in parts)


def _whole(facts: list[Any], count: int) -> list[int]:
    """Return the numbers of an entry: mode, time, and of a file its size, its chunks, its number and another time."""
    if len(facts) != count or not all(type(one) is int for one in facts):
        raise IntegrityError("an entry is not well formed")
    if any(not least <= one < end for one, (least, end) in zip(facts, _RANGES, strict=False)):
        raise IntegrityError("an entry has a mode, a time or a size that there is not")
    return facts


_TYPES = {"str": str, "int": int, "bool": bool}


def _backup(text: bytes) -> Backup:
    said = from_json(text, max_nodes=max_nodes(len(text)))
    names = {one.name: _TYPES[str(one.type)] for one in fields(Backup)}
    if not isinstance(said, dict) or said.keys() != names.keys():
        raise IntegrityError("its head is not well formed")
    for name, expected in names.items():
        if type(said[name]) is not expected or (expected is int and not 0 <= said[name] < 1 << 63):
            raise IntegrityError(f"in its head, {name} is none that there can be")
    if not ID.fullmatch(said["id"]):
        raise IntegrityError("its head has no id that there can be")
    if datetime.datetime.fromisoformat(said["created_at"]).utcoffset() != datetime.timedelta():
        raise IntegrityError("its time is not in UTC")
    return Backup(**said)

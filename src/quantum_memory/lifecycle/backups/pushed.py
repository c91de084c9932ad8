"""What a pushed folder of backups is made of: the files of the folder, each in parts that are named for what they are.

::

    folder.json                                                     the id of the folder
    chunks/HEX32.qmpack/LENGTH-EDITION/PART-SHA256                  each 8 MiB of a pack
    chunks/HEX32.qmindex/..., backups/ID.qmbk/...                   copies of lists, manifests, in the same way
    config.json/STAMP-SHA256, config-copy.json/..., refs.json/...   the small files that change, each as it was

The name of an object says what its bytes are to be: so a list, which costs a request for a thousand objects, tells all
that is there, two who push the same write the same objects, and no object is ever changed. ``docs/backup_format.md`` is
the specification.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import IntegrityError
from quantum_memory.lifecycle.repository.signed_json import MAX_BYTES

if TYPE_CHECKING:
    from quantum_memory.durability.files import Buffer
    from quantum_memory.lifecycle.backups.targets import Target

PART_BYTES = 8 << 20
CLAIM, CONFIGS, REFS = "folder.json", ("config.json", "config-copy.json"), "refs.json"
OURS = "quantum-memory/"
"""What begins so is of those who are at work, and nothing that was pushed."""

MEND = "push once more with verify=True (--verify), from where the backups are whole; or pull what is not damaged"
"""The next step when an object is damaged."""

_MANIFEST = re.compile(r"backups/([a-z0-9][a-z0-9._-]{0,127})\.qmbk")
_PART = re.compile(
    r"(chunks/[0-9a-f]{32}\.(?:qmpack|qmindex)|backups/[a-z0-9][a-z0-9._-]{0,127}\.qmbk)"
    r"/([0-9]{16})-([0-9a-f]{16})/([0-9]{8})-([0-9a-f]{64})"
)
_VERSION = re.compile(r"((?:config|config-copy|refs)\.json)/([0-9]{20})-([0-9a-f]{64})")
_ENDS = 128, 64
_MOST_STAMP = 10**20 - 1


@dataclass(frozen=True, order=True)
class Edition:
    """A file as it is at one time; those that are never changed have one only.

    Attributes
    ----------
    length
        How many bytes.
    mark
        16 digits of the SHA-256 of its first 128 and its last 64 bytes, in which our files say what they hold.
    """

    length: int
    mark: str

    @property
    def parts(self) -> int:
        """How many parts it has."""
        return -(-self.length // PART_BYTES)

    def part_length(self, index: int) -> int:
        """Return how many bytes a part has."""
        return min(PART_BYTES, self.length - index * PART_BYTES)

    def key(self, name: str, index: int, digest: str) -> str:
        """Return the key of a part of a file."""
        return f"{name}/{self.length:016d}-{self.mark}/{index:08d}-{digest}"


def edition_of(path: str) -> Edition:
    """Return which edition a file is.

    Raises
    ------
    MissingFileError, StorageError, IntegrityError
    """
    with ReadableFile(path) as source:
        first, last = (min(source.size, count) for count in _ENDS)
        ends = source.read(0, first) + source.read(source.size - last, last)
        return Edition(source.size, hashlib.sha256(ends).hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class Part:
    """An object with a part of a file."""

    key: str
    index: int
    nbytes: int

    @property
    def digest(self) -> str:
        """The SHA-256 of its bytes, in hexadecimal, as its name says it."""
        return self.key[-64:]


@dataclass(frozen=True, slots=True)
class Version:
    """An object with a small file, as it was when it was last changed at `stamp`, nanoseconds since 1970."""

    key: str
    stamp: int
    nbytes: int

    @property
    def digest(self) -> str:
        """As of `Part`."""
        return self.key[-64:]


@dataclass
class Pushed:
    """What is at a target.

    Attributes
    ----------
    parts
        Of each file, by edition and number.
    versions
        Of the small files that change, the newest first.
    claimed
        Whether a folder has said that the target is its own.
    others
        Keys of what was put there by others.
    """

    parts: dict[str, dict[Edition, dict[int, Part]]] = field(default_factory=dict)
    versions: dict[str, list[Version]] = field(default_factory=dict)
    claimed: bool = False
    others: list[str] = field(default_factory=list)
    _times: dict[tuple[str, Edition], float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.claimed or bool(self.parts) or bool(self.versions)

    def has(self, name: str, edition: Edition) -> bool:
        """Tell whether a file is there, every part of it."""
        found = self.parts.get(name, {}).get(edition, {})
        return len(found) == edition.parts and all(
            part.nbytes == edition.part_length(part.index) for part in found.values()
        )

    def whole(self, name: str) -> tuple[Edition, list[Part]] | None:
        """Return the newest edition of a file of which every part is there; None where there is none."""
        found = [edition for edition in self.parts.get(name, {}) if self.has(name, edition)]
        if not found:
            return None
        newest = max(found, key=lambda edition: (self._times[name, edition], edition))
        return newest, [self.parts[name][newest][index] for index in range(newest.parts)]

    def keys(self, name: str, without: Edition | None = None) -> list[str]:
        """Return the keys of the parts of a file; of all its editions but one."""
        every = self.parts.get(name, {}).items()
        return [part.key for edition, parts in every if edition != without for part in parts.values()]

    def backups(self) -> list[str]:
        """Return the ids of the backups of which there is any part, the last one first."""
        return sorted((found[1] for name in self.parts if (found := _MANIFEST.fullmatch(name))), reverse=True)

    def packs(self) -> list[str]:
        """Return the names of the packs of which there is any part."""
        return sorted(
            name.removeprefix("chunks/") for name in self.parts if name.startswith("chunks/") and name.endswith("k")
        )

    def add(self, key: str, nbytes: int, when: float) -> None:
        """Take note of an object."""
        if found := _PART.fullmatch(key):
            name, edition = found[1], Edition(int(found[2]), found[3])
            index = int(found[4])
            if index < edition.parts:
                part = Part(key, index, nbytes)
                self.parts.setdefault(name, {}).setdefault(edition, {})[index] = part
                self._times[name, edition] = max(when, self._times.get((name, edition), when))
                return
        elif found := _VERSION.fullmatch(key):
            self.versions.setdefault(found[1], []).append(Version(key, int(found[2]), nbytes))
            return
        elif key == CLAIM:
            self.claimed = True
            return
        if not key.startswith(OURS):
            self.others.append(key)


def pushed_at(target: Target) -> Pushed:
    """Return what is at a target.

    Raises
    ------
    StorageError
        It cannot be reached, or refuses.
    """
    made = Pushed()
    for key, nbytes, when in target.listed():
        made.add(key, nbytes, when)
    for versions in made.versions.values():
        versions.sort(key=lambda one: (one.stamp, one.digest), reverse=True)
    return made


def part_of(key: str) -> tuple[str, int] | None:
    """Return of which file an object has a part, and which; None where it has none."""
    found = _PART.fullmatch(key)
    return (found[1], int(found[4])) if found else None


def version_of(key: str) -> str | None:
    """Return which small file an object is a version of; None where it is none."""
    found = _VERSION.fullmatch(key)
    return found[1] if found else None


def version_key(name: str, stamp: int, data: bytes) -> str:
    """Return the key of a small file that was last changed at a time, in nanoseconds since 1970."""
    return f"{name}/{min(max(stamp, 0), _MOST_STAMP):020d}-{hashlib.sha256(data).hexdigest()}"


def read_part(target: Target, part: Part | Version) -> Buffer:
    """Return an object, compared with what its name says.

    Raises
    ------
    IntegrityError
        It is damaged, or gone.
    """
    most = PART_BYTES if isinstance(part, Part) else MAX_BYTES
    data = target.read(part.key, most)
    what = None
    if data is None:
        what = "it is gone"
    elif len(data) != part.nbytes:
        what = f"it has {len(data)} bytes, and had {part.nbytes} when they were listed"
    elif hashlib.sha256(data).hexdigest() != part.digest:
        what = "it is damaged: its bytes do not match the SHA-256 in its name"
    if data is None or what is not None:
        raise IntegrityError(what or "", path=target.where(part.key), next_step=MEND)
    return data

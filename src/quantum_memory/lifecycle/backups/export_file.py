"""A file of exported backups (``.qmb``), read: what it says is checked before anything of it is given out."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from quantum_memory.compression.codecs import NONE
from quantum_memory.compression.cores import on_all_cores
from quantum_memory.durability import pack
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import IntegrityError, QuantumMemoryError, UnsafeError
from quantum_memory.lifecycle.backups import manifest as manifests
from quantum_memory.lifecycle.backups.config import config_of
from quantum_memory.lifecycle.repository.chunks import checked
from quantum_memory.lifecycle.repository.folder import ID
from quantum_memory.lifecycle.repository.signed_json import SEALED, said_by, unsealed
from quantum_memory.state.document import well_formed

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Buffer, ReadableFile
    from quantum_memory.durability.pack import Place
    from quantum_memory.encryption.keys import Key
    from quantum_memory.encryption.sealing import Sealer
    from quantum_memory.lifecycle.backups.config import Config
    from quantum_memory.lifecycle.backups.manifest import Backup, BackupManifest

SIGNATURE = b"\x89QMX\r\n\x1a\n"
CONTENTS = bytes(32)
"""Name of the chunk that says what there is."""

NAMES = b"tags and pins of exported backups"
"""What these are sealed as."""

_KEYS = {"created_at", "writer", "config", "backups"}
_PLAIN = _KEYS | {"tags", "pins"}


def piece_name(piece: Buffer) -> bytes:
    """Return the name of a piece of a manifest, which no chunk of a file can have."""
    return hashlib.sha256(b"manifest" + piece).digest()


class Contents:
    """What a file of backups says of itself, which takes no key.

    Parameters
    ----------
    source
        The file.

    Attributes
    ----------
    config
        What holds for the folder that it comes from, where that is encrypted.

    Raises
    ------
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """

    def __init__(self, source: ReadableFile) -> None:
        self._source = source
        self._chunks = pack.check_frame(source, SIGNATURE)
        if next(reversed(self._chunks), None) != CONTENTS:
            raise self._damaged("it does not say what is in it")
        self._said = said_by(self._read(CONTENTS), source.name, _PLAIN, _KEYS | {SEALED})
        with well_formed(source.name):
            said = self._said["config"]
            self.config: Config | None = None if said is None else config_of(said)
            if self.config is not None and self.config.cipher is None:
                raise self._damaged("it has keys, and is not encrypted")

    def _read(self, name: bytes) -> bytes:
        """Return the stored bytes of something that is stored as it is."""
        place = self._chunks[name]
        if place.codec != NONE.id or place.raw != place.stored:
            raise self._damaged("what it says of its backups is packed in a way that none is")
        return bytes(self._stored(place))

    def _stored(self, place: Place) -> memoryview:
        stored = memoryview(bytearray(place.stored))
        self._source.read_into(stored, place.offset)
        if pack.checksum(stored) != place.check:
            raise pack.damaged_chunk(self._source.name, place)
        return stored

    def _damaged(self, what: str) -> IntegrityError:
        return IntegrityError(what, path=self._source.name, next_step="export the backups again, or use another copy")


class ExportFile(Contents):
    """A file of backups that is open; all but the bytes of its chunks was checked.

    Parameters
    ----------
    source
        The file.
    key
        What opens it, where it is encrypted.

    Attributes
    ----------
    backups
        What is in it, in the order of saving.
    tags, pins
        Names that people have given to these.
    sealer
        What opens the chunks; None where they are not sealed.

    Raises
    ------
    WrongKeyError
        The key does not open it.
    IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
    """

    def __init__(self, source: ReadableFile, key: Key | None) -> None:
        super().__init__(source)
        said = self._said
        self.sealer: Sealer | None = None if self.config is None else self.config.sealer(key, source.name)
        with well_formed(source.name):
            listed = [(str(one), [bytes.fromhex(name) for name in names]) for one, names in said["backups"]]
            refs = unsealed({name: said[name] for name in said.keys() - _KEYS}, self.sealer, NAMES)
            self.tags = {str(tag): str(one) for tag, one in refs["tags"].items()}
            self.pins = {str(one) for one in refs["pins"]}
        pieces = [name for _, names in listed for name in names]
        self._check_names(listed, pieces)
        others = {CONTENTS, *pieces}
        self.names = [name for name in self._chunks if name not in others]
        self._pieces = dict(listed)
        self.backups = self._checked()

    def _check_names(self, listed: list[tuple[str, list[bytes]]], pieces: list[bytes]) -> None:
        ids = {one for one, _ in listed}
        refs = {*self.tags.values(), *self.pins}
        fit = len(ids) == len(listed) > 0 and refs <= ids
        if not fit or not all(ID.fullmatch(tag.lower()) for tag in self.tags):
            raise self._damaged("its backups, tags and pins do not fit together")
        # Each once: the file bounds what they take in memory.
        if len(set(pieces)) != len(pieces) or not set(pieces) < self._chunks.keys():
            raise self._damaged("its manifests are not all there")

    def manifest(self, one: str) -> BackupManifest:
        """Return what the manifest of a backup says; all of them may be too much for the memory."""
        names = self._pieces[one]
        pieces = [self._read(name) for name in names]
        for name, piece in zip(names, pieces, strict=True):
            if piece_name(piece) != name:
                raise self._damaged(f"the manifest of {one:.80} is not what its name says")
        called = f"{self._source.name}, in it {one:.80}"
        made = manifests.read_manifest(ReadableBytes(b"".join(pieces), called), one, self.sealer)
        source = made.backup.source
        if made.backup.id != one:
            raise self._damaged(f"the manifest of {one:.80} is that of {made.backup.id}")
        if not os.path.isabs(source) or "\0" in source:
            raise UnsafeError(
                f"it has a backup of no file that there can be: {source!r:.80}",
                path=self._source.name,
                next_step="do not trust this file: no release makes one like it",
            )
        return made

    def _checked(self) -> list[Backup]:
        """Return what the manifests say first, all of each compared with the chunks that there are."""
        there, needed = set(self.names), set[bytes]()
        backups = []
        for one in self._pieces:
            made = self.manifest(one)
            backups.append(made.backup)
            for entry in made.entries:
                names = entry.chunk_names()
                needed.update(names)
                if not there.issuperset(names) or sum(self._chunks[name].raw for name in names) != entry.size:
                    raise self._damaged(f"a file of the backup {made.backup.id} does not fit its chunks")
        if needed != there:
            raise self._damaged("it has chunks that no backup needs")
        return backups

    def chunk(self, name: bytes) -> tuple[Place, memoryview, Buffer, Buffer]:
        """Return where a chunk is, and its bytes: as stored, as packed, and as they are, compared with its name.

        Raises
        ------
        IntegrityError, UnsupportedVersionError, StorageError
        """
        place = self._chunks[name]
        stored = self._stored(place)
        try:
            packed, raw = checked(name, place, stored, self.sealer)
        except QuantumMemoryError as error:
            raise error.at(self._source.name) from None
        return place, stored, packed, raw

    def check_everything(self, progress: Callable[[int], object] | None = None) -> None:
        """Read every chunk, and compare it with its name.

        Parameters
        ----------
        progress
            Called with the bytes of each.
        """
        for place in on_all_cores(lambda name: self.chunk(name)[0], self.names):
            if progress is not None:
                progress(place.raw)

    @property
    def raw_bytes(self) -> int:
        """Bytes of all chunks, unpacked."""
        return sum(self._chunks[name].raw for name in self.names)

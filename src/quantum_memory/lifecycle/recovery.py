"""Where to look for a memory whose file cannot be read any more: backups, then checkpoints, then files elsewhere."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar

from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import InvalidStateError, MissingError, QuantumMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from typing import TypeAlias

    from quantum_memory.durability.files import Buffer
    from quantum_memory.encryption.keys import Key, OneKey
    from quantum_memory.formats.reader import Reader
    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.backups.folder import BackupFolder
    from quantum_memory.lifecycle.backups.manifest import BackupManifest, Entry
    from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
    from quantum_memory.lifecycle.checkpoints.home import CheckpointHome

    AnyPath = str | os.PathLike[str]

T = TypeVar("T")
if TYPE_CHECKING:
    Attempts: TypeAlias = Generator[tuple[str, Callable[[], T]]]
    """What there is on a level: the words that name it, and what loads it."""

_MEMORIES = ("memory", "quantum")


@dataclass(frozen=True)
class Ladder:
    """The levels on which ``load(path, fallback=...)`` looks, in this order, when the file itself cannot be read.

    What is loaded from one of them may be older than the file was: a warning says where it is from, and what was wrong
    with the file and with the levels above. Nothing is changed anywhere, and the file stays as it is.

    Parameters
    ----------
    backups
        A `BackupManager`, or the folder of one: the newest backup of the file, or of a folder that it is in, and then
        older ones.
    checkpoints
        A `CheckpointManager`, or the folder of one: the newest checkpoint of a memory or state, and then older ones.
    exports
        Files that are tried one after another: memories in any format, and exported backups (``.qmb``).
    key
        What opens a folder of backups, or exported ones, that are encrypted. By default the key of the file.

    Examples
    --------
    >>> ladder = Ladder(backups="backups/", checkpoints="run/", exports=["/mnt/usb/ghz.qms"])
    >>> memory = load("ghz.qms", fallback=ladder)  # doctest: +SKIP
    """

    backups: BackupManager | AnyPath | None = None
    checkpoints: CheckpointManager | AnyPath | None = None
    exports: Sequence[AnyPath] = ()
    key: OneKey | None = None

    @classmethod
    def of(cls, said: object) -> Ladder:
        """Return the ladder that somebody means: one, or "backup" for the backups that are made by default.

        Raises
        ------
        InvalidStateError
            He means none.
        """
        if isinstance(said, cls):
            return said
        if said != "backup":
            raise InvalidStateError(
                f"{said!r:.80} is no way to recover a file", next_step='give fallback="backup", or a Ladder'
            )
        from quantum_memory.lifecycle.backups.folder import default_folder  # noqa: PLC0415 - few files are lost

        return cls(backups=default_folder())

    def recover(
        self,
        path: AnyPath,
        error: QuantumMemoryError,
        load: Callable[[AnyPath], T],
        read: Callable[[Reader], T],
        key: OneKey | None = None,
    ) -> T:
        """Return what the first level has that can be read; when none has anything, raise what was wrong with the file.

        Parameters
        ----------
        path
            The file that cannot be read.
        error
            Why.
        load, read
            What makes the wanted of another file, and of a reader.
        key
            What opens the file.
        """
        failed: list[str] = []
        key = key if self.key is None else self.key
        wanted = os.path.abspath(path)  # noqa: PTH100 - as the user says it: links and all
        levels: list[tuple[str, Attempts[T]]] = [
            ("backup", self._in_backups(wanted, load, key)),
            ("checkpoint", self._in_checkpoints(read)),
            *(("export", _in_export(one, wanted, load, key)) for one in self.exports),
        ]
        for level, attempts in levels:
            try:
                with closing(attempts):
                    for where, attempt in attempts:
                        try:
                            found = attempt()
                        except QuantumMemoryError as failure:
                            failed.append(f"{where}: {failure}")
                            continue
                        wrong = "; ".join([str(error), *failed])
                        warnings.warn(
                            f"{os.fspath(path)} cannot be read. This is from the level {level!r}: {where}, and may be "
                            f"older. What was wrong: {wrong}",
                            stacklevel=3,
                        )
                        return found
            except QuantumMemoryError as failure:  # nobody knows what is there
                failed.append(f"{level}: {failure}")
        for one in failed or ["there is nothing else that holds it"]:
            error.add_note(one)
        raise error

    def _in_backups(self, wanted: str, load: Callable[[AnyPath], T], key: OneKey | None) -> Attempts[T]:
        if self.backups is None:
            return
        with ExitStack() as held:
            manager = self.backups
            if isinstance(manager, str | os.PathLike):
                manager = _manager(manager, key)
                held.callback(manager.close)
            folder = manager.folder
            held.enter_context(manager.held())
            listed, bad = folder.listed()
            for one, error in bad.items():  # nobody knows of what
                yield f"backup {one}", partial(_fail, error)
            for head in reversed(listed):
                if _inside(head.source, wanted) is not None:
                    where = f"backup {head.id} of {head.created_at}"
                    yield where, partial(_load_from_backup, folder, head.id, wanted, load)

    def _in_checkpoints(self, read: Callable[[Reader], T]) -> Attempts[T]:
        if self.checkpoints is None:
            return
        if isinstance(self.checkpoints, str | os.PathLike):
            from quantum_memory.lifecycle.checkpoints.home import home_of  # noqa: PLC0415 - as above

            folder = home_of(self.checkpoints)
        else:
            folder = self.checkpoints.folder
        listed, bad = folder.listed()
        for one, error in bad.items():
            yield f"checkpoint {one}", partial(_fail, error)
        for head in reversed(listed):
            if head.kind in _MEMORIES:
                yield f"checkpoint {head.id} of {head.created_at}", partial(_read_checkpoint, folder, head.id, read)


def _in_export(exported: AnyPath, wanted: str, load: Callable[[AnyPath], T], key: OneKey | None) -> Attempts[T]:
    from quantum_memory.lifecycle.backups.export_file import SIGNATURE, ExportFile  # noqa: PLC0415 - as above

    with ReadableFile(os.fspath(exported)) as source:
        if source.read(0, min(len(SIGNATURE), source.size)) != SIGNATURE:
            yield f"file {os.fspath(exported)}", partial(load, exported)
            return
        file = ExportFile(source, _key(key))
        for head in reversed(file.backups):
            if _inside(head.source, wanted) is None:
                continue
            made = file.manifest(head.id)
            if (entry := _file_in(made, wanted)) is not None:
                chunks = (file.chunk(name)[3] for name in entry.chunk_names())
                yield (
                    f"backup {head.id} in {os.fspath(exported)}",
                    partial(_load_copy, chunks, entry, wanted, load),
                )


def _manager(path: AnyPath, key: OneKey | None) -> BackupManager:
    from quantum_memory.lifecycle.backup_manager import BackupManager  # noqa: PLC0415 - as above
    from quantum_memory.lifecycle.backups.config import read_config  # noqa: PLC0415

    config = read_config(os.fspath(path))
    return BackupManager(path, key=None if config is None or config.cipher is None else _key(key))


def _key(given: OneKey | None) -> Key | None:
    from quantum_memory.encryption.keys import key_of  # noqa: PLC0415 - as above

    return key_of(given)


def _inside(source: str, wanted: str) -> str | None:
    """Return the path of a file from the source of a backup on; None where it is not in that."""
    if wanted == source:
        return ""
    above = source.rstrip("/") + "/"
    return wanted.removeprefix(above) if wanted.startswith(above) else None


def _file_in(made: BackupManifest, wanted: str) -> Entry | None:
    path = _inside(made.backup.source, wanted)
    return next((entry for entry in made.entries if entry.path == path and entry.type == "file"), None)


def _fail(error: QuantumMemoryError) -> Never:
    raise error


def _load_from_backup(folder: BackupFolder, one: str, wanted: str, load: Callable[[AnyPath], T]) -> T:
    from quantum_memory.lifecycle.backups.restoring import Restorer  # noqa: PLC0415 - as above

    made = folder.manifest(one)
    entry = _file_in(made, wanted)
    if entry is None:
        raise MissingError("it is not in that backup")
    return _load_copy(Restorer(folder, made).chunks(entry), entry, wanted, load)


def _load_copy(chunks: Iterable[Buffer], entry: Entry, wanted: str, load: Callable[[AnyPath], T]) -> T:
    """Load a file of which there are chunks; what is mapped of it stays when its name is gone."""
    from quantum_memory.lifecycle.backups.copies import copied  # noqa: PLC0415 - as above

    with copied(chunks, Path(wanted).name, entry.size) as path:
        try:
            return load(path)
        except QuantumMemoryError as error:
            if error.path == path:
                error.path = None  # nobody finds it there
            raise


def _read_checkpoint(folder: CheckpointHome, one: str, read: Callable[[Reader], T]) -> T:
    with folder.reading(one) as reader:
        return read(reader)

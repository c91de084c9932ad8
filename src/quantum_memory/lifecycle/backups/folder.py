"""A folder of backups: `Repository`, with manifests of files and folders, and perhaps a key."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from quantum_memory.durability.chunk_collection import WASTE
from quantum_memory.durability.folders import make_folder
from quantum_memory.errors import (
    RESTORE,
    ConflictError,
    IntegrityError,
    MissingFileError,
    QuantumMemoryError,
    shell_word,
)
from quantum_memory.lifecycle.backups import manifest as manifests
from quantum_memory.lifecycle.backups.config import (
    Config,
    a_copy_is_gone,
    complete_config,
    new_config,
    read_config,
    write_config,
)
from quantum_memory.lifecycle.backups.manifest import Backup, BackupManifest
from quantum_memory.lifecycle.backups.quarantine import names_set_aside
from quantum_memory.lifecycle.repository.folder import Repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quantum_memory.durability.chunk_collection import Collected
    from quantum_memory.durability.files import Readable
    from quantum_memory.encryption.keys import Key
    from quantum_memory.encryption.sealing import Sealer
    from quantum_memory.lifecycle.repository.folder import Refs

_VARIABLE = "QMEM_BACKUPS"


def default_folder() -> str:
    """Return where backups go when nobody says: ``$QMEM_BACKUPS``, or a folder among the data of this user."""
    said = os.environ.get(_VARIABLE)
    data = os.environ.get("XDG_DATA_HOME") or str(Path("~/.local/share").expanduser())
    return os.path.abspath(said or os.path.join(data, "quantum-memory", "backups"))


class BackupFolder(Repository[Backup]):
    """A folder of backups on disk.

    Parameters
    ----------
    path
        The folder; it is made when something is first saved.
    key
        What opens it, where it is encrypted; what is made with a key is.
    durable
        Whether to ``fsync``.

    Attributes
    ----------
    key
        As above.
    key_options
        Those that open it on the command line, for the commands that come next.
    """

    kind = manifests.KIND
    suffix = ".qmbk"
    private = True
    index_copies = True

    def __init__(self, path: str | os.PathLike[str], *, key: Key | None = None, durable: bool = True) -> None:
        super().__init__(path, durable=durable)
        self.key = key
        self.key_options: tuple[str, ...] = ()
        self._config: Config | None = None
        self._sealer: Sealer | None = None

    @property
    def config(self) -> Config:
        """What holds for it as a whole.

        Raises
        ------
        MissingFileError
            There is no such folder of backups.
        IntegrityError
            What holds for it is gone, and backups are there.
        WrongKeyError, ConflictError
            The key is not the one.
        """
        if self._config is None:
            found = self.known_config()
            self.use(found)
            return found
        return self._config

    def known_config(self) -> Config:
        """Return what holds for it as a whole, for what is done without a key.

        Raises
        ------
        MissingFileError, IntegrityError
            As of `config`.
        """
        with self.repairable():
            found = read_config(self.path)
        if found is None:
            self._check_new()
            raise MissingFileError(
                "this is no folder of backups", path=self.path, next_step="check the path, or create a backup"
            )
        return found

    def begin(self, config: Config) -> None:
        """Make the folder, or what lacks of it, as that of which somebody else has the config; no key is needed."""
        make_folder(self.path, durable=True, mode=0o700)
        if read_config(self.path) is None:
            write_config(self.path, config)
        super().make()

    def use(self, config: Config | None) -> None:
        """Take this for what holds for it as a whole, whatever its files say; None: look into them again.

        Raises
        ------
        WrongKeyError, ConflictError
            The key is not the one.
        """
        self._sealer = None if config is None else config.sealer(self.key, self.path)
        self._config = config

    @property
    def sealer(self) -> Sealer | None:
        """What seals and opens; None where nothing is sealed. See `config` for what is raised."""
        return self._sealer if self.config.cipher else None

    def command(self, verb: str) -> str:
        """Return a verb of ``qmem backup``, perhaps with a comment behind it, as it is typed for this folder."""
        where = () if self.path == default_folder() else ("-C", self.path)
        typed, comment, why = verb.partition("  # ")
        said = ["qmem backup", *map(shell_word, where), typed, *map(shell_word, self.key_options)]
        return " ".join(said) + comment + why

    @property
    def list_hint(self) -> str:
        return self.command("list  # shows those that there are")

    def make(self) -> None:
        super().make()
        if self._config is None and read_config(self.path) is None:  # otherwise nobody has to wait for those who save
            with self.store.alone():
                if read_config(self.path) is None:
                    self._check_new()
                    write_config(self.path, new_config(self.key))
        _ = self.config  # first: with another key nothing is written
        if a_copy_is_gone(self.path):
            self._complete()

    def _complete(self) -> None:
        """Write what holds for it where one of the two files is gone, as when who was making the folder was killed."""
        with (
            contextlib.suppress(ConflictError),
            self.store.alone(timeout=0),
        ):  # if others are at work, the next one does
            if a_copy_is_gone(self.path) and (found := read_config(self.path)) is not None:
                self.use(found)
                complete_config(self.path, found)

    def _check_new(self) -> None:
        """Refuse to begin anew where backups are: whoever took away what holds for them may want the next ones open."""
        if self.ids():
            raise IntegrityError(
                "its config.json is gone, and backups are there",
                path=self.path,
                next_step=self.command("repair  # finds out what can be; or restore config.json or config-copy.json"),
            )

    def change_config(self, config: Config) -> None:
        """Replace what holds for it as a whole; the store has to be held alone."""
        write_config(self.path, config)
        self._config = config

    def listed(self) -> tuple[list[Backup], dict[str, QuantumMemoryError]]:
        if self.ids():
            _ = self.config  # with another key, every one of them would look damaged
        return super().listed()

    def read_head(self, source: Readable, one: str) -> Backup:
        with self.repairable():
            return manifests.read_backup(source, one, self.sealer)

    def manifest(self, backup: str) -> BackupManifest:
        """Return a manifest, every byte of it checked.

        Raises
        ------
        MissingError
            There is no such backup.
        IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
        """
        with self.opened(backup) as source, self.repairable():
            made = manifests.read_manifest(source, backup, self.sealer)
            self.check_id(made.backup, source.name)
        return made

    def refs(self) -> Refs:
        with self.repairable():
            return super().refs()

    @contextlib.contextmanager
    def repairable(self) -> Iterator[None]:
        """Have what is raised of a damaged file say what mends it."""
        try:
            yield
        except IntegrityError as error:
            if error.next_step in {None, RESTORE}:
                error.next_step = self.command("repair  # saves what can be read of it")
            raise

    def publish_manifest(self, made: BackupManifest, *, overwrite: bool = False) -> None:
        """Give a manifest its name; see `publish`."""
        self.publish(made.backup, manifests.written(made, self.sealer), overwrite=overwrite)

    def needed(self, without: Iterable[str] = ()) -> set[bytes]:
        try:
            return super().needed(without)
        except QuantumMemoryError as error:
            error.message += ": nobody knows which chunks it needs, and none is removed"
            error.next_step = self.command("repair  # saves what can be read of it, and sets it aside")
            raise

    def collect(self, waste: float = WASTE, *, needed: set[bytes] | None = None) -> Collected:
        # What a damaged manifest names that was set aside: it may yet be read by somebody who knows more.
        kept = names_set_aside(self.path, self.store.known)
        return super().collect(waste, needed=(self.needed() if needed is None else needed) | kept)

    def remove(self, ids: list[str]) -> None:
        super().remove(ids)
        for one in ids:
            with contextlib.suppress(KeyError):
                del self._heads[one]

"""What the verbs of ``qmem backup`` share: which folder, which key, which backup, and which command comes next."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quantum_memory.cli.folders import as_json_option, check_folder, meant
from quantum_memory.cli.keys import beginning_folder, key_options, opening_folder
from quantum_memory.cli.output import plain
from quantum_memory.errors import ConflictError, MissingError, QuantumMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantum_memory.encryption.keys import Key
    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.backups.config import Config

F = TypeVar("F", bound="Callable[..., Any]")

folder_option = click.option(
    "-C", "--folder", metavar="DIR", help="The folder of backups; by default $QMEM_BACKUPS, or one among your data."
)


def backup_options(command: F) -> F:
    """Add ``-C``, the options of `key_options` and ``--json``; `opened` takes all but the last."""
    return folder_option(key_options(as_json_option(command)))


def opened(
    *,
    folder: str | None,
    key_file: str | None,
    passphrase_file: str | None,
    may_be_new: bool = False,
    encrypt: bool = False,
    damaged: bool = False,
    named: bool = True,
    new_key: Key | None = None,
    **options: Any,
) -> BackupManager:
    """Return a manager of a folder, in which nothing was made, and which its key opens.

    Parameters
    ----------
    folder
        As it was given to the verb; None for that of the group.
    key_file, passphrase_file
        What `key_options` gives.
    may_be_new
        Whether it may be a folder that is not there, or empty. It is encrypted where there is a key.
    encrypt
        Whether a key is asked for, where it is new and none is given.
    damaged
        Whether it may be a folder of which it cannot be read what holds for it as a whole.
    named
        See `opening_folder`.
    new_key
        The key of a folder that is new, where none is given.
    options
        See `BackupManager`.

    Raises
    ------
    MissingError, WrongKeyError, ConflictError, IntegrityError
    """
    from quantum_memory.lifecycle.backup_manager import BackupManager
    from quantum_memory.lifecycle.backups.folder import default_folder

    path = os.path.abspath(meant(folder) or default_folder())  # noqa: PTH100 - as it is said: links and all
    config = _config(path, damaged=damaged)
    given: dict[str, Any] = {"key_file": key_file, "passphrase_file": passphrase_file}
    key: Key | None
    if config is None and may_be_new:
        key = beginning_folder(ask=encrypt, **given) or new_key
    else:
        if encrypt and config is not None and config.cipher is None:
            raise ConflictError(
                "these backups are not encrypted",
                path=path,
                next_step="leave out --encrypt, or begin another folder with it: -C DIR",
            )
        key = opening_folder(path, sealed=config is not None and config.cipher is not None, named=named, **given)
    manager = BackupManager(path, key=key, **options)
    manager.folder.key_options = tuple(
        part
        for name, said in given.items()
        if said
        for part in (f"--{name.replace('_', '-')}", os.path.abspath(said))  # noqa: PTH100
    )
    if not (damaged and Path(path).is_dir()):
        new = manager.folder.command("create PATH  # makes one; or say -C DIR")
        check_folder(manager.folder, may_be_new=may_be_new, new=new)
    if config is not None:
        _ = manager.folder.config  # a wrong key is that, and not damage of each backup
    return manager


def _config(path: str, *, damaged: bool) -> Config | None:
    from quantum_memory.lifecycle.backups.config import read_config
    from quantum_memory.lifecycle.backups.folder import BackupFolder

    try:
        with BackupFolder(path).repairable():
            return read_config(path)
    except QuantumMemoryError:
        if damaged:
            return None
        raise


def resolved(manager: BackupManager, said: str) -> str:
    """Return the id that is meant: by an id, the beginning of one, a tag, or a path, of which it is the newest."""
    if os.sep not in said:
        return manager.resolve(said)
    newest = manager.get_latest_backup(said)
    if newest is None:
        raise MissingError("no backup of it is there", path=said, next_step=manager.folder.list_hint)
    return str(newest["id"])


def to_read(manager: BackupManager, ids: list[str] | None, share: float = 1.0) -> int | None:
    """Return how many bytes the chunks of some backups have, or of all, where a bar is shown; None otherwise."""
    if not sys.stderr.isatty():
        return None
    folder = manager.folder
    with suppress(QuantumMemoryError), folder.store.shared():  # whatever is wrong, the work itself says it
        names = folder.needed() if ids is None else {name for one in ids for name in folder.manifest(one).chunks()}
        return int(share * sum(folder.store.place(name)[1].raw for name in names if name in folder.store.known))
    return None


def raw_bytes(manager: BackupManager, one: str | None) -> int | None:
    """Return how many bytes the files of a backup have; None where it is not known which one, or not there."""
    return next((known.raw_bytes for known in manager.folder.listed()[0] if known.id == one), None)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Give a list of the sentences of the warnings that a block gives, which are said by the verb."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield said
        finally:
            said += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


def complain_of(warned: list[str]) -> None:
    """Say warnings on standard error."""
    for one in warned:
        click.echo(click.style("qmem: ", fg="yellow") + plain(one), err=True)

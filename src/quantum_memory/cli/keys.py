"""The keys of encrypted files: from options, from the environment, or asked for. Never from the command line itself."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from quantum_memory.errors import InvalidStateError, QuantumMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.encryption.keys import Key

F = TypeVar("F", bound="Callable[..., Any]")

_FILE, _PASSPHRASE = "QMEM_KEY_FILE", "QMEM_PASSPHRASE"
_LONGEST = 1 << 16


def key_options(command: F) -> F:
    """Add ``--key-file`` and ``--passphrase-file``; `opening` makes of them what the library is given."""
    key_file = click.option("--key-file", metavar="FILE", help=f"The key of what is encrypted; also {_FILE}.")
    passphrase = click.option(
        "--passphrase-file", metavar="FILE", help=f"A file with the passphrase; also {_PASSPHRASE}, the passphrase."
    )
    return key_file(passphrase(command))


def opening(path: str, reading: dict[str, Any]) -> dict[str, Any]:
    """Return the options with which a file is read, with its key in the place of those that say where that is.

    A key that is named by an option is for every file, and refused where one is not encrypted; one of the environment,
    or of whoever sits at the terminal, for those that are.
    """
    from quantum_memory.formats.registry import is_sealed

    rest, named = _split(reading)
    key = named_key(**named)
    if key is None and is_sealed(path):
        key = _found(path)
    return rest | {"key": key}


def opening_either(path: str, reading: dict[str, Any]) -> dict[str, Any]:
    """Do the same for one of several files, of which some are encrypted and some are not."""
    from quantum_memory.formats.registry import is_sealed

    return opening(path, reading) if is_sealed(path) else _split(reading)[0]


def opening_folder(path: str, *, sealed: bool, named: bool = True, **reading: str | None) -> Key | None:
    """Return the key of a folder, found as `opening` finds that of a file.

    Parameters
    ----------
    sealed
        Whether the folder is encrypted.
    named
        False: a key that is named by an option is not for a folder that is not encrypted, as `opening_either` has it.
    reading
        What `key_options` gives.
    """
    key = named_key(**_split(reading)[1]) if sealed or named else None
    return key or (_found(path) if sealed else None)


def beginning_folder(*, ask: bool, **reading: str | None) -> Key | None:
    """Return the key that a new folder is encrypted with: any that is given, or, where that is wanted, asked for."""
    if ask:
        return sealing(reading)
    return named_key(**_split(reading)[1]) or _of_environment()


def named_key(key_file: str | None, passphrase_file: str | None, prefix: str = "") -> Key | None:
    """Return the key that two options name, which begin with ``--PREFIX``; None where they do not."""
    if key_file is not None and passphrase_file is not None:
        raise click.UsageError(f"--{prefix}key-file and --{prefix}passphrase-file exclude each other")
    if key_file is not None:
        return _once(("file", key_file), _of_file)
    return None if passphrase_file is None else _once(("passphrase", passphrase_file), _of_passphrase_file)


def another_key(key_file: str | None, passphrase_file: str | None) -> Key:
    """Return a key that is to open what another one opens already; the environment has that one.

    Raises
    ------
    UsageError
        There is none.
    """
    key = named_key(key_file, passphrase_file, "new-") or _asked("New passphrase", confirm=True, which="another")
    if key is None:
        raise click.UsageError("say which key: --new-key-file or --new-passphrase-file")
    return key


def sealing(reading: dict[str, Any]) -> Key:
    """Return the key that a new file is encrypted with.

    Raises
    ------
    UsageError
        There is none.
    """
    key = named_key(**_split(reading)[1]) or _of_environment() or _asked("New passphrase", confirm=True)
    if key is None:
        raise click.UsageError("say with which key: --key-file, --passphrase-file, or by the environment")
    return key


def _split(reading: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    named = {name: reading.get(name) for name in ("key_file", "passphrase_file")}
    return {name: value for name, value in reading.items() if name not in named}, named


def _of_environment() -> Key | None:
    if path := os.environ.get(_FILE):
        return _once(("file", path), _of_file)
    passphrase = os.environ.get(_PASSPHRASE)
    return _once(("text", passphrase), _of_text) if passphrase else None


def _found(path: str) -> Key | None:
    key = _of_environment()
    if key is None and _takes_passphrase(path):
        return _asked(f"Passphrase of {click.format_filename(path)}", confirm=False)
    return key


def _takes_passphrase(path: str) -> bool:
    """Tell whether a passphrase may open a file or folder; what is wrong with it, opening it says."""
    from quantum_memory.durability.files import ReadableFile
    from quantum_memory.encryption.envelope import read_slots
    from quantum_memory.encryption.keys import takes_passphrase
    from quantum_memory.formats.registry import is_sealed
    from quantum_memory.formats.urls import local_path
    from quantum_memory.lifecycle.backups.config import read_config
    from quantum_memory.lifecycle.backups.export_file import Contents

    with suppress(QuantumMemoryError):
        path = str(local_path(path))
        if Path(path).is_dir():
            config = read_config(path)
        else:
            with ReadableFile(path) as source:
                if is_sealed(path):
                    return takes_passphrase(read_slots(source))
                config = Contents(source).config
        return config is None or takes_passphrase(config.slots)
    return True


def _asked(question: str, *, confirm: bool, which: str = "") -> Key | None:
    """Ask once for all files; None where nobody is there."""
    if not sys.stdin.isatty():
        return None
    prompt = partial(click.prompt, question, hide_input=True, confirmation_prompt=confirm, err=True)
    return _once(("asked", which), lambda _: _of_text(prompt()))


def _once(where: tuple[str, str], make: Callable[[str], Key]) -> Key:
    """Return the key that is made of something, which happens once: trying a passphrase takes a second."""
    made: dict[tuple[str, str], Key] = click.get_current_context().meta.setdefault(__name__, {})
    if where not in made:
        made[where] = make(where[1])
    return made[where]


def _of_file(path: str) -> Key:
    from quantum_memory.encryption.keys import Key

    return Key.from_file(path)


def _of_text(passphrase: str) -> Key:
    from quantum_memory.encryption.keys import Key

    return Key.from_passphrase(passphrase)


def _of_passphrase_file(path: str) -> Key:
    from quantum_memory.durability.files import ReadableFile

    with ReadableFile(path) as source:
        if source.size > _LONGEST:
            raise InvalidStateError("it is too long for a passphrase", path=path, next_step="check the path")
        data = source.read(0, source.size)
    try:
        return _of_text(data.decode().rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise InvalidStateError("it is not text in UTF-8", path=path, next_step="check the path") from error
    except InvalidStateError as error:
        raise error.at(path) from None

"""Write a saved memory in another format, and check what was written before it gets its name."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from quantum_memory.durability.files import current
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, StorageError
from quantum_memory.formats.form_reader import lossy_arrays
from quantum_memory.formats.names import named_in
from quantum_memory.formats.naming import FileFacts, before_naming, refuse_existing
from quantum_memory.formats.prepared import Fidelity, Prepared
from quantum_memory.formats.reader import identities
from quantum_memory.formats.registry import OpenOptions, Saved, SaveOptions, format_of_suffix, open_reader
from quantum_memory.formats.stored_amplitudes import Source
from quantum_memory.formats.urls import URL, is_url, local_path, storage
from quantum_memory.formats.verbs import write
from quantum_memory.formats.verify_all import verify
from quantum_memory.state.document import content_id, well_formed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quantum_memory.encryption.envelope import Lock
    from quantum_memory.encryption.keys import Key, Keys, OneKey
    from quantum_memory.formats.reader import Reader
    from quantum_memory.formats.registry import Path, Progress
    from quantum_memory.formats.verify import VerifyReport


@dataclass(frozen=True)
class Converted:
    """What `convert` did.

    Attributes
    ----------
    source, source_format, source_bytes
        What was read.
    path, format, bytes
        What was written.
    content_id
        Of what was written, which is that of what was read where nothing was lost.
    notes
        What is odd about the source, which was read all the same.
    """

    source: str
    source_format: str
    source_bytes: int
    path: str
    format: str
    bytes: int
    content_id: str
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


def convert(
    source: Path,
    target: Path,
    *,
    compression: str = "auto",
    overwrite: bool = False,
    durable: bool = True,
    progress: Progress | None = None,
    check_progress: Progress | None = None,
    max_bytes: int | None = None,
    max_text_bytes: int | None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
    encrypt: Keys | None = None,
    decrypt: bool = False,
    fidelity: float | None = None,
    executor: Any = None,
) -> Converted:
    """Write a saved memory to another file, in the format that its suffix says, or to an address.

    The new file is checked byte by byte, and gets its name only when its content is that of the source, bit for bit.
    Whatever goes wrong before leaves the target as it was. The source is only read; what of it is stored as it is is
    mapped, so that a state may be larger than the memory of the machine. A state that was saved with loss goes over in
    the form that it has, with its certificate.

    Parameters
    ----------
    source, target
        From where, as `quantum_memory.load` takes it, and where to, as `quantum_memory.save` does.
    overwrite
        Whether a target that exists is replaced; at an address it stays, as an older version.
    progress
        Called with the raw bytes of each chunk that was read, and again with those of each that was written.
    check_progress
        Called with the raw bytes of each chunk of the new file that was checked.
    max_bytes, allow_pickle, state_id, key
        See `quantum_memory.load`, for the source; what is mapped does not count.
    compression, durable, max_text_bytes, encrypt
        See `quantum_memory.save`, for the target. Where the source is encrypted and other keys are not given, the
        target opens with the same keys.
    decrypt
        Whether the target of a source that is encrypted is not to be so.
    fidelity
        Pack the state with loss, as `quantum_memory.save` does; `recompress` has more to say about how.
    executor
        A `concurrent.futures.Executor`, or a client of Dask, whose tasks copy the amplitudes of a state vector to an
        address, and check what was written. Each opens the source by itself, which must be there for it as well, and
        reads what it writes; of a source that is in one piece, or encrypted, it is given what it writes.

    Raises
    ------
    IntegrityError
        The source is damaged; or what was written is not what was read, and was removed.
    ConflictError
        The target exists, and `overwrite` is False.
    InvalidStateError
        The target cannot hold the memory, or is the source; or the source is encrypted, and the target cannot be; or it
        was packed with loss already, and is to be once more.
    BudgetError, MissingError, MissingFileError, StorageError, UnsafeError, UnsupportedVersionError
    """
    name = os.fspath(local_path(target))
    _check_name(name)  # before anything is read
    if executor is not None and not is_url(name):
        raise InvalidStateError(
            "a file is written by one process", path=name, next_step="leave the executor out, or convert to an address"
        )
    keys = _Keys.given(key, encrypt)
    asked = Fidelity.asked(fidelity, None, None)
    with closing(open_reader(source, OpenOptions(max_bytes, allow_pickle, state_id, keys.old))) as reader:
        _check_target(source, name, overwrite=overwrite)
        keys = keys.for_target(reader.name, name, decrypt=decrypt)
        if asked is not None:
            _check_not_lossy(reader)
        others = None
        if executor is not None and keys.old is None:  # no key is handed out
            others = Source.of(source, state_id, allow_pickle=allow_pickle)
        memory = Prepared.of_reader(reader, max_bytes, progress, source=others)
        options = SaveOptions(
            compression, overwrite, durable, progress, max_text_bytes, encrypt=keys.lock, executor=executor
        )
        lossy = asked is not None and asked.infidelity > 0
        return _written(
            reader,
            memory,
            name,
            options,
            asked=asked,
            check_key=keys.new,
            check_progress=check_progress,
            lossy=lossy,
        )


def recompress(
    path: Path,
    target: Path | None = None,
    *,
    fidelity: float | None = None,
    max_bytes: int | None = None,
    effort: str = "max",
    overwrite: bool = False,
    durable: bool = True,
    progress: Progress | None = None,
    check_progress: Progress | None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
) -> Converted:
    """Look for a smaller form of a saved memory, and write it in its place, or to another file.

    Without `fidelity` or `max_bytes` every bit is kept, and so is the `content_id`. The new file is checked byte by
    byte before it gets its name. Where it would not be smaller than the old one, that stays; so does one that somebody
    else writes meanwhile, but for a write that falls between the last look at it and the rename.

    Parameters
    ----------
    path
        The file, or what `quantum_memory.load` takes in its place; that is not replaced, and has a `target`.
    target
        Where to, a file or an address; by default in place. What is packed with loss goes to another file, unless
        `overwrite` says that the original is to be lost.
    fidelity, max_bytes, effort
        See `quantum_memory.save`.
    overwrite
        Replace a `target` that exists, or the original by a form with loss.
    durable, progress, check_progress, allow_pickle, state_id, key
        See `convert`. What is encrypted stays so, and opens with the same keys.

    Raises
    ------
    InvalidStateError
        It was packed with loss already: what is left of it cannot be packed again; it does not fit; or it is a legacy
        file or holds what others have put there, and is to be replaced.
    ConflictError
        The target exists, or the original would be lost, and `overwrite` is False.
    IntegrityError, MissingError, MissingFileError, StorageError, UnsafeError, UnsupportedVersionError
    """
    name = os.fspath(local_path(path if target is None else target))
    if target is None:
        _check_in_place(name)
    _check_name(name)
    asked = Fidelity.asked(fidelity, max_bytes, effort)
    lossy = fidelity not in {None, 1} or max_bytes is not None
    if target is None and lossy and not overwrite:
        raise ConflictError(
            "the original would be lost",
            path=name,
            next_step="give a target (--output), or say that it is to be replaced (--overwrite)",
        )
    facts = _facts_of(name) if target is None else None
    keys = _Keys.given(key)
    with closing(open_reader(path, OpenOptions(None, allow_pickle, state_id, keys.old))) as reader:
        keys = keys.for_target(reader.name, name)
        if target is not None:
            _check_target(path, name, overwrite=overwrite)
        elif reader.format.startswith("legacy") or (reader.format == "h5" and _has_foreign(name)):
            raise InvalidStateError(
                "it is a file of the first implementation"
                if reader.format.startswith("legacy")
                else "others have put something into it, which would be lost",
                path=reader.name,
                next_step="give a target (--output)",
            )
        _check_not_lossy(reader)
        memory = Prepared.of_reader(reader, None, progress)
        options = SaveOptions("auto", overwrite or target is None, durable, progress, encrypt=keys.lock)
        return _written(
            reader,
            memory,
            name,
            options,
            asked=asked,
            check_key=keys.new,
            check_progress=check_progress,
            lossy=lossy,
            replaced=facts,
        )


class _Keys(NamedTuple):
    """What opens the file that is read, and what the one that is written is sealed with, and opened to be checked."""

    old: Key | None
    new: Key | None = None
    lock: Sequence[Key] | Lock | None = None

    @classmethod
    def given(cls, key: OneKey | None, encrypt: Keys | None = None) -> _Keys:
        """Return keys as they were given; a passphrase becomes a key here, so that it is tried once."""
        if key is None and encrypt is None:
            return cls(None)
        from quantum_memory.encryption.keys import key_of, keys_of  # noqa: PLC0415 - few states are encrypted

        if encrypt is None:
            return cls(key_of(key))
        several = keys_of(encrypt)
        return cls(key_of(key), several[0], several)

    def for_target(self, source: str, target: str, *, decrypt: bool = False) -> _Keys:
        """Say how the target is sealed, where that was not given: as the source is."""
        if decrypt and self.lock is not None:
            raise InvalidStateError("encrypt and decrypt exclude each other", path=target, next_step="leave one out")
        if self.lock is not None or self.old is None or decrypt:
            return self
        kind = None if is_url(target) else format_of_suffix(target)
        if kind is None or not kind.handler.encrypts:
            raise InvalidStateError(
                f"it is encrypted, and {'a version there' if kind is None else f'a .{kind.name} file'} cannot be",
                path=source,
                next_step="write a .qms file, or convert it with decrypt=True (qmem convert --decrypt)",
            )
        from quantum_memory.encryption.sealed_file import lock_of  # noqa: PLC0415 - as above

        return _Keys(self.old, self.old, lock_of(source, self.old))


class _NotSmaller(Exception):  # noqa: N818 - no error
    """The new file is not smaller than the old one."""


def _written(
    reader: Reader,
    memory: Prepared,
    target: str,
    options: SaveOptions,
    *,
    asked: Fidelity | None = None,
    check_key: Key | None = None,
    check_progress: Progress | None = None,
    lossy: bool = False,
    replaced: FileFacts | None = None,
) -> Converted:
    """Write what a reader has read, and check it before it gets its name."""
    with well_formed(reader.name):
        content = content_id(reader.document, identities(reader))

    def check(written: str) -> None:
        if replaced is not None and current().stat(written).st_size >= reader.size:
            raise _NotSmaller
        seen = partial(verify, progress=check_progress, allow_pickle=True, key=check_key, executor=options.executor)
        _check(seen, written, target, None if lossy else content)
        if replaced is not None and _facts_of(target) != replaced:
            raise ConflictError(
                "somebody else has written it meanwhile", path=target, next_step="look at it, and try again"
            )

    try:
        if is_url(target):
            saved = storage().save(URL.parse(target), memory, options, asked, check)
        else:
            with before_naming(check):
                saved = write(memory, target, options, asked)
    except _NotSmaller:
        saved = Saved(reader.name, reader.format, reader.size, content, memory.raw_bytes)
    return Converted(
        reader.name,
        reader.format,
        reader.size,
        saved.path,
        saved.format,
        saved.bytes,
        saved.content_id,
        reader.notes,
    )


def _check_not_lossy(reader: Reader) -> None:
    """Refuse to pack once more what was packed with loss.

    Raises
    ------
    InvalidStateError
    """
    if lossy_arrays(reader):
        raise InvalidStateError(
            "it was packed with loss already, and every loss adds to the one before",
            path=reader.name,
            next_step="pack the original, or convert this file to keep it as it is",
        )


def _check_name(target: str) -> None:
    """Refuse a target whose name says no format, and is no address."""
    if is_url(target):
        URL.parse(target)
    else:
        format_of_suffix(target)


def _check_in_place(name: str) -> None:
    """Refuse what is no file of its own, and is not replaced.

    Raises
    ------
    InvalidStateError
    """
    if is_url(name):
        raise InvalidStateError(
            "a version is never replaced",
            path=name,
            next_step="give a target (--output); with overwrite (--overwrite) it may be a newer version there",
        )
    if named_in(name) is not None:
        raise InvalidStateError(
            "one of several is not replaced in place", path=name, next_step="give a target (--output)"
        )


def _has_foreign(path: str) -> bool:
    from quantum_memory.formats.hdf5_store import has_foreign  # noqa: PLC0415 - only for HDF5

    return has_foreign(path)


def _facts_of(path: str) -> FileFacts | None:
    """Return what is to be the same when a file is replaced; None where there is none, which reading it says."""
    try:
        return FileFacts.of(path)
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise StorageError.from_os_error(error, "look at the file that is to be replaced", path) from error


def _check_target(source: Path, target: str, *, overwrite: bool) -> None:
    """Refuse a target that must not be replaced before the work begins; saving decides it once more."""
    if is_url(target):
        return  # saving says it before it writes anything, and what is there stays as an older version
    named = None if is_url(source) else named_in(local_path(source))
    here = os.fspath(local_path(source)) if named is None else named.path
    try:
        same = os.path.samestat(current().stat(here), current().stat(target))
    except (OSError, ValueError):
        same = False  # one of them does not exist, or saving says what is wrong with it
    if same:
        raise InvalidStateError(
            "it is the file that is to be converted", path=target, next_step="give another name for the new one"
        )
    if not overwrite:
        refuse_existing(target)


def _check(seen: Callable[[str], VerifyReport], written: str, target: str, content: str | None) -> None:
    """Refuse a file that was written when it is not whole, or has another content than is stated, if one is."""
    try:
        found: str | None = seen(written).content_id
    except IntegrityError:
        found = None
    if found is None or (content is not None and found != content):
        raise IntegrityError(
            "what was written is not what was read, and was removed",
            path=target,
            next_step="check the memory and the disk of this machine, and convert again",
        )

"""The verbs: save, load, open and describe a memory, whatever the format of its file."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from quantum_memory.durability.files import current
from quantum_memory.errors import (
    BudgetError,
    IntegrityError,
    InvalidStateError,
    MissingFileError,
    StorageError,
    UnsafeError,
)
from quantum_memory.formats import info as facts
from quantum_memory.formats.lazy import StateFile
from quantum_memory.formats.names import named_in
from quantum_memory.formats.naming import before_naming, refuse_existing
from quantum_memory.formats.prepared import Fidelity, Prepared
from quantum_memory.formats.progress import Once
from quantum_memory.formats.reader import AMPLITUDES, check_verify, read_memory
from quantum_memory.formats.registry import (
    Format,
    OpenOptions,
    Saved,
    SaveOptions,
    format_of_suffix,
    open_reader,
    opened,
)
from quantum_memory.formats.stored_amplitudes import left_there
from quantum_memory.formats.urls import URL, is_url, local_path, storage
from quantum_memory.state.memory_state import MemoryState, as_memory_state

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from quantum_memory.encryption.keys import Key, Keys, OneKey
    from quantum_memory.errors import QuantumMemoryError
    from quantum_memory.formats.reader import Reader, Verify

    Path = str | os.PathLike[str]
    Progress = Callable[[int], object]

__all__ = ["Saved", "info", "load", "open", "save"]

T = TypeVar("T")
_ATTEMPTS, _LONGER = 6, 64

_GROWTH = {"json": 4 / 3, "b64": 4 / 3}
"""How many bytes a byte of the state takes in text."""


def save(
    state: object,
    path: Path,
    *,
    compression: str = "auto",
    overwrite: bool = True,
    durable: bool = True,
    progress: Progress | None = None,
    max_text_bytes: int | None = None,
    readable: bool = False,
    fidelity: float | None = None,
    max_bytes: int | None = None,
    effort: str | None = None,
    encrypt: Keys | None = None,
    executor: Any = None,
) -> Saved:
    """Save a state so that it survives a kill or a power cut from the moment this returns.

    Parameters
    ----------
    state
        A `StateVector`, `DensityMatrix`, `MatrixProductState`, `MemoryState`, array or dict (see `as_memory_state`).
        It is streamed: beside it, a few MiB of memory are needed.
    path
        Where to: an address (``s3://bucket/prefix@tag``, ``icechunk+file:///folder@tag``), at which a new version is
        made, or a file, whose suffix says the format: ``.qms``, ``.h5``, ``.json``, ``.json.zlib``, ``.msgpack``,
        ``.npz``, ``.pkl`` or ``.b64``.
    compression
        "none", "auto" for what pays, or the name of one that the format has; ``.qms`` has "lz4", "zlib", "zstd" and
        "pcodec". All are lossless.
    overwrite
        False: a file that is there already is a `ConflictError`.
    durable
        False leaves out the ``fsync``: still all or nothing against a kill, not against a power cut.
    progress
        Called with the raw bytes of each chunk that is done.
    max_text_bytes
        How long JSON text may become; by default 16 MiB. It is made in one piece, several times over.
    readable
        For JSON of state vectors of up to 10 qubits: write the amplitudes as numbers, too.
    fidelity
        Save a state vector or a density matrix in the smallest form that keeps at least this fidelity,
        F = |<a|b>|^2 / (<a|a> <b|b>), or that of Uhlmann for density matrices. What is certified is computed from what
        will be loaded, and written into the file. By default every bit is kept. Everything else always is.
    max_bytes
        Save it in the most faithful form with which the file has at most so many bytes.
    effort
        How long to look for the smallest form: "fast" (about as long as writing takes), "balanced" or "max". Given with
        neither `fidelity` nor `max_bytes`, forms that keep every bit. ``.qms`` looks for them without being asked, with
        "fast"; the other formats store arrays as they are, for programs that read them without this package, unless
        one of the three is given.
    encrypt
        Keys (see `Key`) or passphrases, each of which then opens the file. Only ``.qms`` is encrypted; a new file is
        one that its owner alone can read.
    executor
        A `concurrent.futures.Executor`, or a client of Dask, whose tasks write the amplitudes of a state vector to an
        address. They read a `ShardedStateVector` where it is; of others each gets the amplitudes that it writes. With
        `fidelity` they quantise them, and look for no other form.

    Raises
    ------
    InvalidStateError
        It cannot be kept exactly, or is to be lossy and is zero or not finite, or does not fit; nothing is written.
    StorageError
        The operating system refused; what was there before is untouched.
    """
    memory = as_memory_state(state)
    asked = Fidelity.asked(fidelity, max_bytes, effort)
    keys = None if encrypt is None else _keys(encrypt)
    options = SaveOptions(
        compression, overwrite, durable, progress, max_text_bytes, readable, encrypt=keys, executor=executor
    )
    prepared = Prepared.plain(memory)
    if executor is not None and is_url(path) and AMPLITUDES not in prepared.arrays:
        raise InvalidStateError(
            "an executor writes the amplitudes of a state vector, and there is none",
            path=path,
            next_step="leave the executor out",
        )
    return write(prepared, path, options, asked)


def _keys(given: Keys) -> tuple[Key, ...]:
    from quantum_memory.encryption.keys import keys_of  # noqa: PLC0415 - few states are encrypted

    return keys_of(given)


def write(memory: Prepared, path: Path, options: SaveOptions, asked: Fidelity | None) -> Saved:
    """Write a memory that was taken apart; see `save`.

    Parameters
    ----------
    asked
        How to pack its quantum state; None where nobody has asked, and it is as the format has it by default.
    """
    if is_url(path):
        return storage().save(URL.parse(path), memory, options, asked)
    path = local_path(path)
    if options.executor is not None:
        raise InvalidStateError(
            "a file is written by one process", path=path, next_step="leave the executor out, or save to an address"
        )
    kind = format_of_suffix(path)
    handler = kind.handler
    if options.compression not in handler.compressions:
        raise InvalidStateError(
            f"a .{kind.name} file has no compression {options.compression!r:.40}",
            path=path,
            next_step=f"use one of {', '.join(sorted(handler.compressions))}",
        )
    if options.encrypt is not None and not handler.encrypts:
        raise InvalidStateError(
            f"a .{kind.name} file cannot be encrypted", path=path, next_step="save it as .qms, or without a key"
        )
    if asked is not None and options.compression != "auto":
        raise InvalidStateError(
            f"compression={options.compression!r} says how it is packed, and so do fidelity, max_bytes and effort",
            path=path,
            next_step="leave compression out",
        )
    if asked is not None and options.readable:
        raise InvalidStateError(
            "readable writes the amplitudes as they are, and fidelity, max_bytes and effort pack them",
            path=path,
            next_step="leave one of them out",
        )
    if asked is None and not (handler.packs and options.compression == "auto" and memory.is_worth_packing):
        return _saved(kind, path, memory, options)
    from quantum_memory.formats.packing import packed  # noqa: PLC0415 - small states do without

    if not options.overwrite:
        refuse_existing(path)
    asked = asked or Fidelity()
    options = replace(options, effort=asked.effort)
    if asked.max_bytes is None:
        return _saved(kind, path, packed(memory, asked, options.progress), options)
    return _fitted(kind, path, memory, options, asked)


class _TooLong(Exception):  # noqa: N818 - no error
    """A file that was written has more bytes than were asked for."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


def _fitted(kind: Format, path: Path, memory: Prepared, options: SaveOptions, asked: Fidelity) -> Saved:
    """Save a memory in at most so many bytes: how many a file needs besides the state is seen by writing it."""

    def check(written: str) -> None:
        length = current().stat(written).st_size
        if length > most:
            raise _TooLong(length)

    from quantum_memory.formats.packing import packed, state_bytes  # noqa: PLC0415 - as above

    most = left = asked.max_bytes or 0
    progress = Once(options.progress)
    for attempt in range(_ATTEMPTS):
        options = replace(options, progress=progress.again())
        prepared = packed(memory, replace(asked, max_bytes=left), options.progress)
        try:
            with before_naming(check):
                return _saved(kind, path, prepared, options)
        except _TooLong as error:
            # What is said of the next one may be a little longer.
            excess = (error.length - most) / _GROWTH.get(kind.name, 1)
            left = math.floor(state_bytes(prepared) - excess) - attempt * _LONGER
    raise InvalidStateError(f"it does not fit into {most} bytes", path=path, next_step="allow more bytes")


def _saved(kind: Format, path: Path, memory: Prepared, options: SaveOptions) -> Saved:
    name, length, content = kind.handler.save(path, memory, options)
    return Saved(name, kind.name, length, content, memory.raw_bytes, memory.forms.infidelity)


@overload
def load(
    path: Path,
    *,
    out: Any = None,
    verify: Verify = "fast",
    max_bytes: int | None = None,
    progress: Progress | None = None,
    mmap: bool = False,
    only: None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
    fallback: Literal["backup"] | Fallback | None = None,
) -> MemoryState: ...
@overload
def load(
    path: Path,
    *,
    verify: Verify = "fast",
    max_bytes: int | None = None,
    progress: Progress | None = None,
    only: str,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
    fallback: Literal["backup"] | Fallback | None = None,
) -> dict[str, Any]: ...
def load(
    path: Path,
    *,
    out: Any = None,
    verify: Verify = "fast",
    max_bytes: int | None = None,
    progress: Progress | None = None,
    mmap: bool = False,
    only: str | None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
    fallback: Literal["backup"] | Fallback | None = None,
) -> MemoryState | dict[str, Any]:
    """Load a memory, checking every byte of its file.

    Parameters
    ----------
    path
        The file, whose first bytes say the format; an address (``s3://bucket/prefix@name``,
        ``icechunk+file:///folder@name``), where the name is that of a tag, a branch or a version, and without one the
        newest is meant; or what stands for a file: ``folder@name``, a checkpoint by its id, tag, name or branch, and
        ``store.h5@id``, a state of a store.
    out
        Memory for the amplitudes of the state vector, which the loaded state then uses: an array of their dtype and
        shape, or any writable buffer of their length. When loading fails, what is in it is undefined.
    verify
        "fast": every stored byte against its checksum, and the checksums against a SHA-256. "full": the SHA-256 of the
        raw bytes as well.
    max_bytes
        What its arrays may take in memory, those that `out` is for left out; by default all the memory of the machine.
        A short file can hold long arrays of zeros. For JSON, which is read up to 16 MiB of text: how long it may be.
    progress
        Called with the raw bytes of each chunk that is done.
    mmap
        Map what is stored as it is into memory instead of copying it (``.qms`` and ``.h5`` without compression). The
        arrays can be written to; the file never changes. What is encrypted is read instead.
    only
        A pattern of names, such as ``encoder.layer.3.*``: only what matches is read and checked, and returned as a dict
        by name. Names are the keys on the way to a leaf of the classical part, joined by dots; those of the other parts
        begin with ``quantum.``, ``emotion.`` or ``metadata.``.
    allow_pickle
        Read pickles. They are read with a list of what they may name, and run no code; still, say that you mean it.
    state_id
        Which state of an HDF5 store, where it holds several.
    key
        What opens an encrypted file: a `Key`, or a passphrase. A file that is not encrypted is refused then.
    fallback
        Where else to look when the file is damaged, gone or cannot be read: a `Ladder`, or "backup" for the backups
        that `BackupManager` makes by default. What is found there is checked in full, may be older, and comes with a
        warning that says where it is from.

    Raises
    ------
    IntegrityError
        The file is damaged. It says where.
    WrongKeyError
        It is encrypted, and not with this key, or none was given.
    BudgetError
        Its arrays need more than `max_bytes`; nothing has been allocated for them.
    MissingError
        Nothing matches `only`, or there is no state `state_id`.
    UnsupportedVersionError, MissingFileError, StorageError, UnsafeError
    """
    check_verify(verify)
    if only is not None and (mmap or out is not None):
        raise InvalidStateError("only= excludes out= and mmap=True", path=path, next_step="leave one of them out")
    path = local_path(path)
    options = OpenOptions(max_bytes, allow_pickle, state_id, key)

    def wanted(reader: Reader, verify: Verify = "full") -> MemoryState | dict[str, Any]:
        if only is not None:
            return StateFile(reader).select(only, verify=verify, max_bytes=max_bytes, progress=progress)
        leave = left_there if is_url(path) and out is None and not mmap else None
        return read_memory(
            reader, out=out, verify=verify, max_bytes=max_bytes, mmap=mmap, progress=progress, leave=leave
        )

    def loaded(path: Path, verify: Verify = "full") -> MemoryState | dict[str, Any]:
        with closing(open_reader(path, options)) as reader:
            return wanted(reader, verify)

    if fallback is None:
        return loaded(path, verify)
    ladder = _ladder(fallback)
    if not is_url(path) and (named := named_in(path)) is not None and not named.in_folder and state_id is None:
        path, options = named.path, replace(options, state_id=named.name)  # copies of the store have it as well
    try:
        return loaded(path, verify)
    except (IntegrityError, MissingFileError, StorageError, UnsafeError) as error:
        if isinstance(error, BudgetError):
            raise
        return ladder.recover(path, error, loaded, wanted, key)


class Fallback(Protocol):
    """Knows where else there may be what a file held (`quantum_memory.Ladder`)."""

    def recover(
        self,
        path: Path,
        error: QuantumMemoryError,
        load: Callable[[Path], T],
        read: Callable[[Reader], T],
        key: OneKey | None,
    ) -> T:
        """Return what is found there, by loading another file or from a reader; else raise `error`."""


_FALLBACKS = ("quantum_memory.lifecycle.recovery", "Ladder")
"""Where those are which have a name. It is above this: it knows all formats, and no format knows it."""


def _ladder(said: Literal["backup"] | Fallback) -> Fallback:
    module, name = _FALLBACKS
    made: Fallback = getattr(import_module(module), name).of(said)
    return made


def open(  # noqa: A001 - the field's word
    path: Path,
    *,
    max_bytes: int | None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
) -> StateFile:
    """Open a file without reading its data: parts are read, and checked, when they are touched.

    Files of other formats than ``.qms`` and ``.h5`` are in one piece, and are read when they are opened. The arguments
    are those of `load`; the path may be an address, or the name of a checkpoint or of a state, as it may there. Nothing
    is removed from a folder of checkpoints while one of them is open.

    Examples
    --------
    >>> with open("big.qms") as f:  # doctest: +SKIP
    ...     f.amplitudes[2**20 : 2**20 + 8]
    """
    reader = open_reader(path, OpenOptions(max_bytes, allow_pickle, state_id, key))
    reader.share()
    return StateFile(reader)


def info(
    path: Path,
    *,
    max_bytes: int | None = None,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
) -> dict[str, Any]:
    """Return what a file says of itself; for ``.qms`` and ``.h5`` this does not read its data.

    The arguments are those of `load`. Of an HDF5 store of several states, or with time series, its lists: ``states``,
    newest first, and ``time_series``. Of a version ``address``, which has its id and always means this one.

    Metadata are as the document has them: what JSON cannot say is an object such as ``{"$tuple": [...]}`` there. Of an
    encrypted file ``encrypted`` says the cipher, and how many keys open it.
    """
    options = OpenOptions(max_bytes, allow_pickle, state_id, key)
    source, handler = opened(path, options)
    with closing(source):
        listed = None if state_id is not None else handler.contents(source)
        if listed is not None:
            return listed
        with closing(handler.open(source, options)) as reader:
            found = facts.of_reader(reader)
    return found if key is None else found | {"encrypted": _encryption(source.name, key)}


def _encryption(path: str, key: OneKey) -> dict[str, Any]:
    from quantum_memory.encryption.keys import key_of  # noqa: PLC0415 - few states are encrypted
    from quantum_memory.encryption.sealed_file import lock_of  # noqa: PLC0415

    lock = lock_of(path, key_of(key))
    return {"cipher": lock.cipher, "keys": len(lock.slots)}

"""What the engines below raise, as errors of this package."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

import icechunk
from obstore.exceptions import BaseError

from quantum_memory.errors import (
    UPGRADE,
    ConflictError,
    IntegrityError,
    InvalidStateError,
    QuantumMemoryError,
    StorageError,
    UnsupportedVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENGINES = (
    icechunk.IcechunkError, BaseError, OSError, ArithmeticError, AssertionError, AttributeError, LookupError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip
_PANICS = {"PanicException", "RustPanic"}
"""What pyo3 makes of a panic: classes that it does not give out, one of which is no `Exception`."""

_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403 Forbidden", "Unauthorized")
_NO_KEYS = ("credentials", "Ec2InstanceMetadata", "ImdsCredentialsError")
_NO_ROOM = ("No space left on device", "Disk quota exceeded", "File too large")
_GONE = ("NoSuchKey", "InvalidRange", "Requested range was invalid", "snapshot not found", "Object at location")
"""An object is not there, or shorter than it was."""

_UNREADABLE = (
    "I/O error", "Invalid Icechunk metadata file", "invalid magic numbers", "Icechunk cannot read", "cannot serialize",
    "cannot deserialize", "deserialization", "manifest information cannot be found",
)  # fmt: skip
"""An object is there, and is not what Icechunk writes. It calls what it cannot unpack an I/O error."""

_MORE_MODERN = "written with a more modern version"
NO_ANSWER = "error sending request"
_LONGEST = 300
_used_by: list[int] = []
"""The process that has used the engines: from then on it has threads, and a fork of it does not."""


@contextlib.contextmanager
def told(where: object, doing: str) -> Iterator[None]:
    """Raise what the engines raise as one of our errors, with the address it is of.

    Raises
    ------
    ConflictError
        Somebody else was quicker.
    IntegrityError
        An object is missing or damaged.
    InvalidStateError
        This process was forked from one that uses the engines, whose threads it does not have: it would wait for ever.
    StorageError
        The storage cannot be reached, or refuses.
    UnsupportedVersionError
        A later release of Icechunk has written it.
    """
    if not _used_by:
        _used_by.append(os.getpid())
    if _used_by[0] != os.getpid():
        raise InvalidStateError(
            "this process was forked from one that uses object storage, and cannot use it",
            path=str(where),
            next_step='start workers with multiprocessing.get_context("spawn"), as '
            'ProcessPoolExecutor(mp_context=get_context("spawn"))',
        )
    try:
        yield
    except QuantumMemoryError as error:
        raise error.at(str(where))  # noqa: B904 - it is the same error
    except icechunk.ConflictError as error:
        raise ConflictError(
            f"somebody else has changed it meanwhile, so that it was not possible to {doing}",
            path=str(where),
            next_step="try again from its newest version",
        ) from error
    except _ENGINES as error:
        raise _as_ours(error, str(where), doing) from error
    except BaseException as error:
        if type(error).__name__ not in _PANICS:
            raise
        raise _as_ours(error, str(where), doing) from error


def _as_ours(error: BaseException, where: str, doing: str) -> QuantumMemoryError:
    whole, text = str(error), _said(error)
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError.from_os_error(error, doing, where)
    if any(word in whole for word in _DENIED):
        return StorageError(
            f"the storage refused to {doing}: {text}",
            path=where,
            next_step="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the rights of that key",
        )
    if any(word in whole for word in _NO_ROOM):
        return StorageError(
            f"could not {doing}: {text}",
            path=where,
            next_step="free some space and save again; the previous version is untouched",
        )
    if _MORE_MODERN in whole:
        return UnsupportedVersionError(f"could not {doing}: {text}", path=where, next_step=UPGRADE)
    if _is_damage(error, whole, text):
        return IntegrityError(
            f"could not {doing}: {text}", path=where, next_step="load an older version, or restore it from a copy"
        )
    what = "check the address, the endpoint and the network"
    if any(word in whole for word in _NO_KEYS):
        what = "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and check the address and the network"
    return StorageError(f"could not {doing}: {text}", path=where, next_step=what)


def _is_damage(error: BaseException, whole: str, text: str) -> bool:
    """Tell whether the storage answered, and what it gave is not what was written."""
    if isinstance(error, icechunk.IcechunkError):
        if any(sign in whole for sign in _GONE):
            return True
        return any(sign in whole for sign in _UNREADABLE) and "(os error" not in text
    if isinstance(error, (BaseError, OSError)):
        return False
    return "(os error" not in whole  # what Zarr says of its own documents, or that Icechunk could not go on


def _said(error: BaseException) -> str:
    """Return the deepest cause that an error names, without the engine's own functions; in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line[3:].strip() for line in lines if line.startswith(("|->", "`->"))]
    found = causes[-1] if causes else (lines or [type(error).__name__])[0].removeprefix("x ")
    # As S3 says it, in XML.
    if said := re.search(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>", str(error)):
        found = f"{said[2].rstrip('.')} ({said[1]})"
    # As Icechunk says that: Error { code: "NoSuchBucket", message: "The specified bucket does not exist", ... }
    if said := re.match(r'Error \{ code: "([^"]*)", message: "([^"]*)"', found):
        found = f"{said[2]} ({said[1]})"
    elif said := re.search(r"Error performing \w+ (\S+) in .*? - (.*)", found):
        what = "nobody answers" if NO_ANSWER in said[2] else said[2].rstrip(": .")
        found = f"{what} ({said[1]})"
    return found[:_LONGEST].rstrip(".")


def quiet() -> None:
    """Keep Icechunk from writing its log to the standard output, where nobody has asked for it."""
    if "ICECHUNK_LOG" not in os.environ:
        icechunk.set_logs_filter("off")


def moved() -> ConflictError:
    """Return what is said to who comes second."""
    return ConflictError("somebody else has written a newer version meanwhile")


def branch_exists(name: str) -> ConflictError:
    """Return what is said of a branch that cannot be made."""
    return ConflictError(f"there is a tag or a branch {name!r} already", next_step="choose another name")


def tag_exists(name: str) -> ConflictError:
    """Return what is said of a tag that cannot be made."""
    return ConflictError(
        f"there is a tag {name!r} already, or there has been one", next_step="tags stay; choose another name"
    )

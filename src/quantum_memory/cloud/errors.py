"""What the engines below raise, as errors of this package."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import icechunk
from obstore.exceptions import BaseError

from quantum_memory.errors import ConflictError, IntegrityError, QuantumMemoryError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_GONE = "object store error Object at location"
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403 Forbidden", "Unauthorized")


@contextlib.contextmanager
def told(where: object, doing: str) -> Iterator[None]:
    """Raise what the engines raise as one of our errors, with the address it is of.

    Raises
    ------
    ConflictError
        Somebody else was quicker.
    IntegrityError
        An object is missing or damaged.
    StorageError
        The storage cannot be reached, or refuses.
    """
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
    except (icechunk.IcechunkError, BaseError, OSError, ValueError, KeyError, TypeError) as error:
        raise _as_ours(error, str(where), doing) from error


def _as_ours(error: Exception, where: str, doing: str) -> QuantumMemoryError:
    text = _first_line(error)
    if any(word in str(error) for word in _DENIED):
        return StorageError(
            f"the storage refused to {doing}: {text}",
            path=where,
            next_step="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the rights of that key",
        )
    if _is_damage(error):
        return IntegrityError(
            f"could not {doing}: {text}", path=where, next_step="load an older version, or restore it from a copy"
        )
    return StorageError(
        f"could not {doing}: {text}", path=where, next_step="check the address, the endpoint and the network"
    )


def _is_damage(error: Exception) -> bool:
    """Tell whether the storage answered, and what it gave is not what was written."""
    if isinstance(error, (ValueError, KeyError, TypeError)) and not isinstance(error, OSError):
        return True
    text = str(error)
    return any(
        sign in text
        for sign in (
            "not found",
            "NoSuchKey",
            "NotFound",
            "deserializ",
            "Flatbuffer",
            "flatbuffer",
            "invalid",
            "decompress",
            "magic",
        )
    )


def _first_line(error: Exception) -> str:
    """Return what an error says without its trace of the engine's own functions."""
    lines = [line.strip(" |`->x") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)[:300]

"""What to do about a file of a version that this release does not read: the same sentence and advice in all formats."""

from __future__ import annotations

import re

from quantum_memory.errors import UPGRADE, IntegrityError, UnsupportedVersionError

_VERSION = re.compile(r"(\d{1,6})(?:\.(\d{1,6}))?", re.ASCII)
_ELSEWHERE = "read it with the program that wrote it"


def check_version(stated: object, read: str, path: str | None = None) -> None:
    """Refuse a file that does not state the version that is read.

    Parameters
    ----------
    stated
        What the file says, whose bytes are known to be whole.
    read
        What this release reads.
    path
        Of the file, where it is known.

    Raises
    ------
    UnsupportedVersionError
        It is of a later version, or of an earlier one that no release has written.
    IntegrityError
        It states something that is no version.
    """
    if stated == read:
        return
    number = _number(stated)
    if number is None:
        shown = repr(stated if isinstance(stated, str) else type(stated).__name__)
        raise IntegrityError(
            f"the version that it states is none: {shown:.40}; this release reads version {read}",
            path=path,
            next_step=_ELSEWHERE,
        )
    if number > (_number(read) or (0, 0)):
        raise UnsupportedVersionError(
            f"it is of version {stated} and needs a release that reads version {stated}; this one reads version {read}",
            path=path,
            next_step=UPGRADE,
        )
    raise UnsupportedVersionError(
        f"it is of version {stated}, which this release does not know; it reads version {read}",
        path=path,
        next_step=_ELSEWHERE,
    )


def _number(version: object) -> tuple[int, int] | None:
    found = _VERSION.fullmatch(version) if isinstance(version, str) else None
    return None if found is None else (int(found[1]), int(found[2] or 0))

"""What a file is that is not one of ours, as far as its first bytes show it."""

from __future__ import annotations

from quantum_memory.errors import RESTORE, IntegrityError


def foreign(head: bytes) -> IntegrityError | None:
    """Return the error for a file that begins with `head`, or None when that shows nothing we know."""
    text = head.lstrip().lower()
    if not head:
        return IntegrityError("it is empty", next_step=RESTORE)
    if text.startswith(b"version https://git-lfs"):
        return IntegrityError("it is a git-LFS pointer and not the file itself", next_step="git lfs pull")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return IntegrityError("it is a web page, probably saved in the place of a download", next_step=RESTORE)
    return None

"""What `BackupManager` is given, looked at before anything is done with it: what is none is an error of ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, get_args

from quantum_memory.errors import InvalidStateError
from quantum_memory.lifecycle.backups.checking import Depth
from quantum_memory.lifecycle.policy import whole
from quantum_memory.lifecycle.retention import KeepAll, KeepLast, KeepPolicy, KeepWithin

if TYPE_CHECKING:
    from quantum_memory.encryption.keys import Key, OneKey

    AnyPath = str | os.PathLike[str]

_COMPRESSIONS = ("zstd", "zlib", "lz4", "none")


def codec_of(compression: bool | str) -> str:
    """Return the name of the codec that somebody means."""
    name = compression if isinstance(compression, str) else "zstd" if compression else "none"
    if name not in _COMPRESSIONS:
        raise InvalidStateError(
            f"backups have no compression {name!r:.40}",
            next_step=f"use True, False, or one of {', '.join(_COMPRESSIONS)}",
        )
    return name


def key_of(given: OneKey) -> Key:
    """Return the key that somebody means; text is a passphrase."""
    from quantum_memory.encryption.keys import keys_of  # noqa: PLC0415 - few need it

    return keys_of([given])[0]


def policy_of(keep: KeepPolicy) -> KeepPolicy:
    """Return a policy that somebody gives, or say that it is none."""
    if not isinstance(keep, KeepPolicy):
        raise InvalidStateError(
            f"keep is {keep!r:.40}, which is no policy",
            next_step="give one such as KeepLast(3) | KeepDaily(7), or max_backups and max_age_days",
        )
    return keep


def depth_of(depth: Depth) -> Depth:
    """Return how deep somebody wants to look, or say that there is no such depth."""
    if depth not in get_args(Depth):
        known = ", ".join(map(repr, get_args(Depth)))
        raise InvalidStateError(f"no check has the depth {depth!r:.40}", next_step=f"use one of {known}")
    return depth


def absolute(path: AnyPath) -> str:
    """Return a path as the user says it, links and all, from the root on."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InvalidStateError(f"{path!r:.40} is no path", next_step="give one as text, or a Path")
    if not os.fspath(path):  # as a variable that is not set; not the folder that one happens to be in
        raise InvalidStateError("the path is empty", next_step="give one, or . for the folder that you are in")
    return os.path.abspath(path)


def policy_of_numbers(most: int | None, days: float | None) -> KeepPolicy:
    """Return what keeps so many, and none so much older than the newest."""
    parts: list[KeepPolicy] = []
    if most is not None:
        parts.append(KeepLast(whole(most, "max_backups")))
    if days is not None:
        if not isinstance(days, int | float):
            raise InvalidStateError(f"max_age_days is {days!r:.40}", next_step="give a number of days, or None")
        parts.append(KeepWithin(days * 86400))
    policy: KeepPolicy = KeepAll()
    for part in parts:
        policy = part if isinstance(policy, KeepAll) else policy & part
    return policy

"""What was found of backups when, and for how long that counts (``checks.json``); it is no harm to lose it."""

from __future__ import annotations

import contextlib
import datetime
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantum_memory.durability.files import current
from quantum_memory.durability.locks import locked_folder
from quantum_memory.durability.store_lock import LOCK_TIMEOUT
from quantum_memory.errors import ConflictError, IntegrityError, StorageError, UnsafeError, UnsupportedVersionError
from quantum_memory.lifecycle.repository.folder import now, stamp
from quantum_memory.lifecycle.repository.signed_json import read_signed, write_signed
from quantum_memory.state.document import well_formed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quantum_memory.lifecycle.backups.folder import BackupFolder

READ_BACK_HOLDS = datetime.timedelta(days=1)
"""For so long it counts that a backup was read back, where others are given up for it."""


@dataclass
class Checks:
    """What was found when.

    Attributes
    ----------
    verified
        When each backup was last read whole, every byte of it, and found good.
    bad
        Names of chunks that were found damaged, and have not been written anew.
    cursor
        The last chunk of the part that was checked last; the next part begins after it.
    round_begun
        When the round was begun that checks all parts, one after another; empty before the first.
    rounds
        When the last rounds were finished.
    """

    verified: dict[str, str] = field(default_factory=dict)
    bad: set[bytes] = field(default_factory=set)
    cursor: bytes = b""
    round_begun: str = ""
    rounds: list[str] = field(default_factory=list)


class CheckRecord:
    """What is remembered of the backups of a folder.

    Parameters
    ----------
    folder
        The folder.
    """

    def __init__(self, folder: BackupFolder) -> None:
        self.folder = folder
        self._path = os.path.join(folder.path, "checks.json")

    def remembered(self) -> Checks:
        """Return what was found before; nothing where that cannot be read."""
        try:
            return self.read_checks()
        except (IntegrityError, UnsafeError, UnsupportedVersionError):
            return Checks()

    def read_checks(self) -> Checks:
        """Return what was found before.

        Raises
        ------
        IntegrityError, UnsafeError, UnsupportedVersionError, StorageError
        """
        said = read_signed(self._path, {"verified", "bad", "cursor", "round_begun", "rounds"})
        if said is None:
            return Checks()
        with well_formed(self._path):
            return Checks(
                {str(one): str(when) for one, when in said["verified"].items()},
                {bytes.fromhex(name) for name in said["bad"]},
                bytes.fromhex(said["cursor"]),
                str(said["round_begun"]),
                [str(when) for when in said["rounds"]],
            )

    def remember(self, change: Callable[[Checks], object]) -> None:
        """Change what is remembered, with others who do so shut out meanwhile.

        Raises
        ------
        ConflictError, StorageError
        """
        folder = self.folder
        with locked_folder(current(), folder.path, self._path, timeout=LOCK_TIMEOUT):
            checks = self.remembered()
            change(checks)
            there = set(folder.ids())
            write_signed(
                self._path,
                {
                    "verified": {one: when for one, when in sorted(checks.verified.items()) if one in there},
                    "bad": sorted(name.hex() for name in checks.bad),
                    "cursor": checks.cursor.hex(),
                    "round_begun": checks.round_begun,
                    "rounds": checks.rounds[-10:],
                },
                durable=folder.durable,
                mode=folder.store.file_mode,
            )

    def read_whole(self, one: str) -> None:
        """Remember that a backup was read whole just now, and found good."""
        with contextlib.suppress(ConflictError, StorageError):  # such as of a disk that is only read
            self.remember(lambda checks: checks.verified.__setitem__(one, stamp(now())))

    def written_anew(self, chunks: Iterable[bytes]) -> None:
        """Remember that chunks which were found damaged have been written anew."""
        if healed := set(chunks):
            with contextlib.suppress(ConflictError, StorageError):  # then they are written once more
                self.remember(lambda checks: checks.bad.difference_update(healed))

    def verified(self) -> set[str]:
        """Return the ids of the backups that were read whole, and found good the last time."""
        return set(self.remembered().verified)

    def lately_verified(self) -> set[str]:
        """Return those of `verified` that were read within `READ_BACK_HOLDS`: what is on a disk does not stay good.

        What a clock says that was put back since, a time that is yet to come, does not count.
        """
        this = now()
        return {
            one
            for one, when in self.remembered().verified.items()
            if datetime.timedelta(0) <= this - _time(when) <= READ_BACK_HOLDS
        }


def _time(when: str) -> datetime.datetime:
    """Return a time that was noted; one that is long past for what is none."""
    try:
        return datetime.datetime.fromisoformat(when).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return datetime.datetime.min.replace(tzinfo=datetime.UTC)

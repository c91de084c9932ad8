"""A repair of a folder of backups: what it is of, what was found, and what comes next."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from quantum_memory.errors import (
    RESTORE,
    IntegrityError,
    MissingFileError,
    StorageError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.lifecycle.backups.quarantine import Quarantine

if TYPE_CHECKING:
    from quantum_memory.errors import QuantumMemoryError
    from quantum_memory.lifecycle.backups.folder import BackupFolder

DAMAGE = (IntegrityError, UnsafeError)
"""What is damaged."""

UNREAD = (StorageError, UnsupportedVersionError, MissingFileError)
"""What is perhaps not, and cannot be read here and now."""


@dataclass
class Repaired:
    """What was wrong with a folder of backups, and what was done; it is true when nothing is lost.

    Attributes
    ----------
    dry_run
        Whether this is only what would be done.
    problems
        What is wrong, by path in the folder.
    mended
        What was done about it, by path.
    left
        What nothing could be done about, by path, and why.
    quarantined
        Paths of the files that were moved to ``quarantine/``, or copied where a new one has their name.
    chunks_saved, bytes_saved
        How many chunks were copied into a new pack, and their bytes there.
    chunks_lost
        How many chunks that backups need can be read nowhere.
    lost
        Of each backup that has lost files, their paths.
    manifests
        What is known of each backup of which the manifest is in ``quarantine/``.
    next_steps
        Commands, the first one first.
    """

    dry_run: bool = False
    problems: dict[str, str] = field(default_factory=dict)
    mended: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)
    chunks_saved: int = 0
    bytes_saved: int = 0
    chunks_lost: int = 0
    lost: dict[str, list[str]] = field(default_factory=dict)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    next_steps: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not (self.lost or self.manifests or self.left)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a plain dict."""
        return asdict(self)


class Repair:
    """A repair that is going on.

    Parameters
    ----------
    folder
        What it is of.
    dry_run
        Whether nothing is written.

    Attributes
    ----------
    folder, dry_run
        As above.
    aside
        Where damaged files go.
    done
        What was found and done.
    """

    def __init__(self, folder: BackupFolder, *, dry_run: bool) -> None:
        self.folder = folder
        self.dry_run = dry_run
        self.aside = Quarantine(folder)
        self.done = Repaired(dry_run)
        self._steps: dict[str, list[str]] = {"disk": [], "create": [], "verify": [], "salvage": [], "unpin": []}

    def mended(self, path: str, wrong: str, how: str) -> None:
        """Note what was wrong with a file, and what was done about it."""
        self.done.problems[path] = wrong
        self.done.mended[path] = how

    def left(self, path: str, error: QuantumMemoryError) -> None:
        """Note what is wrong with a file, and that nothing could be done."""
        self.done.problems[path] = self.done.left[path] = error.message
        self._steps["disk"].append(error.next_step or RESTORE)

    def set_aside(self, path: str, *, moved: bool) -> None:
        """Move a file to the quarantine, or a copy of it where another is about to have its name."""
        self.done.quarantined.append(path)
        if not self.dry_run:
            (self.aside.move if moved else self.aside.copy)(path)

    def then(self, what: Literal["create", "verify", "salvage", "unpin"], verb: str) -> None:
        """Note a verb of ``qmem backup`` that comes next."""
        self._steps[what].append(self.folder.command(verb))

    def next_steps(self) -> list[str]:
        """Return what comes next, the first one first, each once."""
        return list(dict.fromkeys(step for steps in self._steps.values() for step in steps))

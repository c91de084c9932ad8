"""What a plan says of one file, and the check of it: a plan may come from anybody."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from quantum_memory.errors import InvalidStateError, UnsafeError
from quantum_memory.formats.legacy.interface import SIDECAR
from quantum_memory.lifecycle.migration.names import target_of

Action = Literal["migrate", "leave", "damaged"]

WORKPLACE = ".qmem-migration"
"""Name of the folder in which a migration keeps originals and notes."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DISTRUST = "do not apply this plan: no release writes one like it"


@dataclass(frozen=True)
class Source:
    """A file as it was when the plan was made.

    Attributes
    ----------
    path
        Relative to the folder, with ``/`` between names.
    sha256, bytes, mtime_ns
        Of its content; its length; when it was last changed, in nanoseconds since 1970.
    """

    path: str
    sha256: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Entry:
    """A file in a plan.

    Attributes
    ----------
    path
        Relative to the folder, with ``/`` between names.
    action
        "migrate"; "leave": `reason` says why; "damaged": `reason` says what is wrong with it.
    reason
        A sentence; "" for a file to be migrated.
    kind, version
        Which format of the first implementation, and which version of it; None where that has no version.
    source
        The file itself; None where it is not to be migrated.
    sidecars
        Archives of tensors that belong to it.
    target
        The format of the new file, by its suffix.
    expected_bytes
        About how long the new file will be: at most so much is set aside for it.
    steps
        What is going to be done, in words.
    warnings
        What somebody should know before.
    """

    path: str
    action: Action
    reason: str = ""
    kind: str = ""
    version: str | None = None
    source: Source | None = None
    sidecars: tuple[Source, ...] = ()
    target: str = ""
    expected_bytes: int = 0
    steps: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[Source, ...]:
        """The file and what belongs to it."""
        return () if self.source is None else (self.source, *self.sidecars)

    def to_json(self) -> dict[str, Any]:
        """Return it as a line of a plan has it: what is empty is left out."""
        made = {name: value for name, value in asdict(self).items() if value not in ("", None, (), 0)}
        if self.source is not None:
            made |= {"source": _facts(self.source)}
        if self.sidecars:
            made |= {"sidecars": [asdict(one) for one in self.sidecars]}
        return made

    @classmethod
    def from_json(cls, node: Any) -> Entry:
        """Check a line of a plan, and return what it says.

        Raises
        ------
        UnsafeError
            It is none that a release writes; or it leads out of the folder.
        """
        try:
            return _entry(node)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, UnsafeError):
                raise
            raise UnsafeError(f"a line of the plan is not well formed: {error!s:.200}", next_step=_DISTRUST) from error


def left(path: str, reason: str, kind: str = "", *warnings: str) -> Entry:
    """Return the entry of a file that is left alone."""
    return Entry(path, "leave", reason, kind, warnings=warnings)


def sidecar_of(path: str) -> str | None:
    """Return where the archive of tensors is that belongs to a state; None where it cannot have one."""
    pure = PurePosixPath(path)
    return str(pure.with_name(pure.name.replace(".json", SIDECAR))) if ".json" in pure.name else None


def state_of(path: str) -> str | None:
    """Return which state an archive of tensors would belong to, by its name."""
    pure = PurePosixPath(path)
    return str(pure.with_name(pure.name.replace(SIDECAR, ".json"))) if SIDECAR in pure.name else None


def checked_path(path: Any) -> str:
    """Return a path that stays in the folder.

    Raises
    ------
    UnsafeError
    """
    parts = path.split("/") if isinstance(path, str) else [""]
    if any(part in {"", ".", "..", WORKPLACE} for part in parts) or "\0" in path:
        raise UnsafeError(f"the plan has the path {path!r:.200}, which leads out of the folder", next_step=_DISTRUST)
    return str(path)


def _facts(source: Source) -> dict[str, Any]:
    return {name: value for name, value in asdict(source).items() if name != "path"}


def _entry(node: dict[str, Any]) -> Entry:
    fields = dict(node)
    path = checked_path(fields["path"])
    if fields["action"] not in get_args(Action):
        raise ValueError(f"there is no action {fields['action']!r:.40}")
    if fields["action"] == "migrate":
        fields["source"] = _source({"path": path, **fields["source"]})
        sidecars = tuple(_source(one) for one in fields.pop("sidecars", ()))
        if [one.path for one in sidecars] not in ([], [sidecar_of(path)]):
            raise ValueError("it has archives that do not belong to it")
        fields["sidecars"] = sidecars
        try:
            named = target_of(path)
        except InvalidStateError as error:
            raise ValueError(error.message) from None
        if fields["target"] != named:
            raise ValueError("its target is not the format that its name says")
    elif {"source", "sidecars", "target"} & set(fields):
        raise ValueError("it has a source, and is not to be migrated")
    entry = Entry(**fields)
    texts = (entry.reason, entry.kind, entry.version or "", *entry.steps, *entry.warnings)
    if not all(isinstance(text, str) for text in texts) or not _is_count(entry.expected_bytes):
        raise TypeError("a field has another type than it should have")
    return replace(entry, steps=tuple(entry.steps), warnings=tuple(entry.warnings))


def _source(node: dict[str, Any]) -> Source:
    made = Source(**node)
    checked_path(made.path)
    if not _DIGEST.fullmatch(made.sha256) or not _is_count(made.bytes) or type(made.mtime_ns) is not int:
        raise ValueError("a digest, length or time is none")
    return made


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0

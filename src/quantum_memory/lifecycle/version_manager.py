"""`VersionManager`: which version a document has, how it gets to another, and whether it did so without loss."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, ClassVar

from quantum_memory._version import __version__
from quantum_memory.errors import InvalidStateError, UnsupportedVersionError
from quantum_memory.formats.legacy.interface import stated_version
from quantum_memory.formats.legacy.lists import refuse_lists
from quantum_memory.formats.seal import FORMAT, VERSION, check_format
from quantum_memory.lifecycle.steps import STEPS
from quantum_memory.lifecycle.steps.upgrade_1_0_to_2_0 import HISTORY
from quantum_memory.lifecycle.versions.registry import Registry, number_of
from quantum_memory.lifecycle.versions.report import compared
from quantum_memory.lifecycle.versions.tree import copied, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.lifecycle.versions.report import MigrationReport
    from quantum_memory.lifecycle.versions.step import Loss, Step
    from quantum_memory.lifecycle.versions.tree import Document


_SIGNED = ("migration_date", "migrated_by")
"""What is noted of a migration that does not follow from what was migrated."""


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class VersionManager:
    """Versions of documents, and the steps between them.

    A document is a dict: what ``json.load`` gives of a file of the interface of the first implementation (version 1.0
    or 2.0), or of a ``.json`` file of ours. Ours are of the current version, and no steps lead from there.
    `migrate` and `validate_migration` do not change what they are given.

    Parameters
    ----------
    clock
        Returns the time that is noted of a migration, with a time zone. By default that of the machine.

    Examples
    --------
    >>> vm = VersionManager()
    >>> old = {"interface_config": {"n_qubits": 27}, "measurement_cache": []}
    >>> vm.get_version(old), vm.needs_migration(old), vm.get_migration_path("1.0", "2.0")
    ('1.0', True, ['1.0', '2.0'])
    >>> new = vm.migrate(old)
    >>> vm.get_version(new), bool(vm.validate_migration(old, new))
    ('2.0', True)
    """

    CURRENT_VERSION: ClassVar[str] = VERSION
    """The version that this release writes."""

    def __init__(self, *, clock: Callable[[], datetime.datetime] = _now) -> None:
        self._clock = clock
        self._registry = Registry(STEPS)

    def register(self, step: Step) -> None:
        """Add a step to this manager, which then knows its versions.

        Raises
        ------
        InvalidStateError
            There is such a step, it leads nowhere, or its versions are no numbers with points between them.
        """
        self._registry.add(step)

    def get_version(self, data: Document) -> str:
        """Return the version of a document: what it states, 1.0 for a state of the interface that states none.

        Raises
        ------
        UnsupportedVersionError
            No step leads from or to the version that it states: it is too new, or nobody wrote it.
        IntegrityError
            What it states is no version, or it states two.
        InvalidStateError
            It is no document, or none of a state.
        """
        if not isinstance(data, dict):
            raise InvalidStateError(
                f"a document is a dict, not a {type(data).__name__}", next_step="give what json.load returns of a file"
            )
        if _is_ours(data):
            check_format(data["format"], data.get("version"))
            return str(data["version"])
        refuse_lists(data)
        return self._known(stated_version(data))

    def needs_migration(self, data: Document) -> bool:
        """Tell whether a document is of an older version than the current one; it raises what `get_version` raises."""
        return number_of(self.get_version(data)) < number_of(self.CURRENT_VERSION)

    def get_migration_path(self, from_version: str, to_version: str) -> list[str]:
        """Return the versions on the way from one to another, both included.

        Of all ways it is the one with fewest steps that lose something, and then with fewest steps.

        Raises
        ------
        UnsupportedVersionError
            There is no such version here, or no way.
        """
        steps = self._registry.way(self._known(from_version), self._known(to_version))
        return [from_version, *(step.target for step in steps)]

    def migrate(
        self, data: Document, target_version: str | None = None, *, when: datetime.datetime | None = None
    ) -> Document:
        """Return a document of another version with what `data` holds.

        What was done is in ``metadata.migration_info`` of the result: ``migrated_from``, ``migration_date``,
        ``migrated_to``, ``migrated_by``, ``path``, ``source_sha256`` (of the canonical JSON of `data`), ``losses``
        where there are any, and ``previous``, the same of the migration before. A document that is of the target
        version already is returned as it is, as a copy.

        Parameters
        ----------
        data
            The document.
        target_version
            By default the current one. A downgrade may lose something, and lists it.
        when
            The time that is noted, with a time zone; by default that of the clock.

        Raises
        ------
        UnsupportedVersionError, IntegrityError, InvalidStateError, UnsafeError
        """
        source, target = self.get_version(data), target_version or self.CURRENT_VERSION
        if _is_ours(data) and source != target:
            raise InvalidStateError(
                f"it is a memory of version {source}, from which no steps lead to version {target!s:.40}",
                next_step="migrate states of the interface of the first implementation; load and save memories",
            )
        way = self._registry.way(source, self._known(target))
        result, losses = self._along(way, copied(data))
        if way:
            signed = (_text(self._clock() if when is None else when), f"quantum-memory {__version__}")
            _note(result, _record(data, way, losses, dict(zip(_SIGNED, signed, strict=True))))
        return copied(result)  # parts of it may be there twice, and those of steps of others belong to them

    def validate_migration(self, original: Document, migrated: Document) -> MigrationReport:
        """Compare a document with what it was migrated to, value for value, and with what the steps make of it.

        Every value counts, to the bit and with its type; the order of keys does not, as objects have none in JSON.
        Of what is noted of the migration, time and release are taken as they are.

        Raises
        ------
        UnsupportedVersionError, IntegrityError, InvalidStateError, UnsafeError
            As of `get_version`, of the original; of the migrated where it does not say what it was migrated to.
        """
        source, result = self.get_version(original), copied(migrated)
        if _is_ours(original) != _is_ours(result):
            raise InvalidStateError(
                "one is a memory, the other a state of the first implementation", next_step="give two of one kind"
            )
        info = _history(result)
        target = info.get("migrated_to")
        if _is_ours(result) or not isinstance(target, str) or target not in self._registry.versions:
            target = self.get_version(result)
        way = self._registry.way(source, target)
        expected, losses = self._along(way, copied(original))
        if way:
            # Nothing but the record itself knows these two.
            signed = {key: info[key] if isinstance(info.get(key), str) else "" for key in _SIGNED}
            _note(expected, _record(original, way, losses, signed))
        return compared([source, *(step.target for step in way)], original, result, expected, losses)

    def _along(self, way: list[Step], document: Document) -> tuple[Document, list[Loss]]:
        """Return what steps make of a document, and what they lose."""
        losses: list[Loss] = []
        for step in way:
            losses += step.losses(copied(document))
            document = copied(step.apply(document))
            if self.get_version(document) != step.target or not isinstance(document.get("metadata", {}), dict):
                raise InvalidStateError(
                    f"the step {step} gives a document that is not of version {step.target}",
                    next_step="correct the function of the step",
                )
        return document, losses

    def _known(self, version: str) -> str:
        """Return a version that is known here, and refuse another."""
        versions = self._registry.versions
        if version in versions:
            return version
        known = ", ".join(versions)
        try:
            newer = number_of(version) > number_of(versions[-1])
        except ValueError:
            newer = False
        if newer:
            raise UnsupportedVersionError(
                f"it is of version {version} and needs a release that knows version {version}; this one knows {known}",
                next_step="pip install --upgrade quantum-memory",
            )
        raise UnsupportedVersionError(
            f"there is no version {version!s:.40}; this release knows {known}",
            next_step="read it with the program that wrote it, or register a step that leads from it",
        )


def _is_ours(data: Document) -> bool:
    return data.get("format") == FORMAT


def _text(when: datetime.datetime) -> str:
    if when.tzinfo is None:
        raise InvalidStateError("the time of a migration has no time zone", next_step="give one of UTC")
    return when.astimezone(datetime.UTC).isoformat()


def _history(document: Document) -> Document:
    """Return what is noted of the last migration of a document; nothing where there is nothing well formed."""
    metadata = document.get("metadata")
    info = metadata.get(HISTORY) if isinstance(metadata, dict) else None
    return info if isinstance(info, dict) else {}


def _record(source: Document, way: list[Step], losses: list[Loss], signed: dict[str, str]) -> Document:
    """Return what is noted of a migration."""
    record: Document = {
        "migrated_from": way[0].source,
        **signed,
        "migrated_to": way[-1].target,
        "path": [way[0].source, *(step.target for step in way)],
        "source_sha256": sha256_of(source),
    }
    return record | {"losses": [one.to_json() for one in losses]} if losses else record


def _note(result: Document, record: Document) -> None:
    """Note a migration in its result, before those that came earlier."""
    metadata = result.setdefault("metadata", {})
    metadata[HISTORY] = record | {"previous": metadata[HISTORY]} if HISTORY in metadata else record

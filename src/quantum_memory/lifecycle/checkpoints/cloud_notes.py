"""Tags and pins of checkpoints at an address, and the log of what was done there: small notes beside the repository."""

from __future__ import annotations

import contextlib
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from quantum_memory.errors import IntegrityError
from quantum_memory.lifecycle.repository.folder import Refs, now, stamp
from quantum_memory.lifecycle.repository.signed_json import said_by, signed
from quantum_memory.state.document import well_formed
from quantum_memory.state.json_text import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.cloud.notes import Notes

_LOG = "log"
_MOST_LINES = 10_000
_LOOKUPS = 16


def refs_in(text: bytes | None, where: str) -> Refs:
    """Return the tags and pins that a note says; None where there is no note.

    Raises
    ------
    IntegrityError, UnsupportedVersionError
    """
    if text is None:
        return Refs()
    said = said_by(text, where, {"tags", "pins"})
    with well_formed(where):
        if not all(isinstance(name, str) for name in (*said["tags"].values(), *said["pins"])):
            raise IntegrityError("its tags and pins are no ids")
        return Refs(dict(said["tags"]), set(said["pins"]))


def changed_refs(text: bytes | None, where: str, change: Callable[[Refs], object]) -> bytes:
    """Return the note that takes the place of one."""
    refs = refs_in(text, where)
    change(refs)
    return signed({"tags": dict(sorted(refs.tags.items())), "pins": sorted(refs.pins)})


class CloudLog:
    """What was done, each a note of its own, whose name begins with the time.

    Parameters
    ----------
    notes
        Beside the repository.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def add(self, action: str, facts: dict[str, Any]) -> None:
        """Take down what was done."""
        when = stamp(now())
        line = {"when": when, "action": action, **{name: fact for name, fact in facts.items() if fact is not None}}
        self._notes.write(f"{_LOG}/{when.replace(':', '')}-{secrets.token_hex(4)}", to_json(line), durable=False)

    def lines(self) -> list[dict[str, Any]]:
        """Return what was done, the oldest first, up to the last 10,000; what is damaged is left out."""
        names = self._notes.names(_LOG)[-_MOST_LINES:]
        with ThreadPoolExecutor(_LOOKUPS) as pool:
            texts = list(pool.map(self._notes.read, names))
        made = []
        for text in texts:
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                if isinstance(one := json.loads(text or b""), dict):
                    made.append(one)
        return made

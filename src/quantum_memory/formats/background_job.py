"""One file that is compressed in the background: what is told of it, and what its worker needs."""

from __future__ import annotations

import contextvars
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quantum_memory.durability.atomic import real_path
from quantum_memory.formats.naming import FileFacts

if TYPE_CHECKING:
    from quantum_memory.errors import QuantumMemoryError

State = Literal["waiting", "running", "done", "failed", "skipped"]

ENDING = "the interpreter is ending"
"""Why a job stops that nobody has stopped."""


@dataclass(frozen=True)
class Job:
    """How far the compression of a file is, at the moment when this was made.

    Attributes
    ----------
    path
        The file, as it was given.
    state
        "waiting" and "running"; "done": the smaller file has replaced the other, or there was none; "failed": see
        `error`; "skipped": see `reason`. The file is whole in each of them.
    bytes_before, bytes_after
        Of the file. `bytes_after` is None until the job is done, and the same where nothing smaller was found.
    fraction
        About how much of the work is done, from 0 to 1. It is counted in bytes that are read, written and checked;
        while a form is looked for it stands still.
    reason
        Why the file was left as it is; otherwise "".
    error
        What went wrong; otherwise None.
    """

    path: str
    state: State
    bytes_before: int
    bytes_after: int | None = None
    fraction: float = 0.0
    reason: str = ""
    error: QuantumMemoryError | None = None


class Task:
    """A job, with what its worker needs.

    Attributes
    ----------
    job
        What is told of it; replaced as a whole.
    path, target
        The file, wherever the process goes; and past all symbolic links.
    stop
        Why it is to stop; "" while it is not.
    telling
        Held while progress is reported, which several threads do.
    """

    def __init__(self, path: str, facts: FileFacts, options: dict[str, Any]) -> None:
        self.job = Job(path, "waiting", facts.length)
        self.path = str(Path(path).absolute())
        self.target = real_path(path)
        self.options = options
        self.context = contextvars.copy_context()  # with the operating system that is in force
        self.stop = ""
        self.telling = threading.Lock()
        self.total = self.reported = 0
        self._facts = facts

    def check(self) -> None:
        """Leave the file as it is when it is another one by now, or the job is to stop."""
        self.check_stop()
        try:
            facts = FileFacts.of(self.path)
        except FileNotFoundError:
            raise Left("it was removed meanwhile") from None
        if facts != self._facts:
            raise Left("it was replaced or changed meanwhile")

    def check_stop(self) -> None:
        """Leave the file as it is when the job is to stop."""
        # Once the main thread has ended no pool takes work any more, and that must not look like a failure.
        reason = self.stop or ("" if threading.main_thread().is_alive() else ENDING)
        if reason:
            raise Left(reason)


class Left(Exception):  # noqa: N818 - no error
    """The file is left as it is."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

"""Save a large state as it is, at once, and look for its smaller form in the background.

A raw save takes as long as the disk; finding the smallest form takes several times that. `BackgroundCompressor` saves
first, durably, and lets threads of low priority do the rest, one file after another. Each works as `recompress` does:
the smaller file is written beside the raw one, checked, and takes its name by a rename. A kill or a power cut at any
time leaves one of the two, whole.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from collections import deque
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from quantum_memory.durability.atomic import real_path
from quantum_memory.durability.interrupts import holding
from quantum_memory.errors import ConflictError, InvalidStateError, MissingFileError, QuantumMemoryError, StorageError
from quantum_memory.formats.background_job import ENDING, Job, Left, Task
from quantum_memory.formats.convert import recompress
from quantum_memory.formats.naming import FileFacts, before_naming
from quantum_memory.formats.prepared import Fidelity
from quantum_memory.formats.registry import OpenOptions, format_of_suffix, open_reader
from quantum_memory.formats.verbs import save

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from quantum_memory.formats.registry import Path, Progress, Saved

_REMEMBERED = 1024
"""How many jobs that have ended are listed: a long run saves any number of states."""

_PASSES = 3
"""How often the bytes of a state are reported: when they are read, written, and checked."""

_ALMOST = 0.99
"""The fraction of a job that has reported everything and has not ended."""

_NICER = 10
_NICEST = 19
"""How much lower the priority of a worker is than that of who started it, and the lowest there is."""

_EXIT_SECONDS = 2.0
"""How long the interpreter waits for a worker when it ends. Without a chunk to stop at, the thread ends with it."""


class BackgroundCompressor:
    """Saves states as they are, and compresses their files in the background; use it as a context manager.

    Leaving the block waits for all jobs; after an interrupt from the keyboard it cancels them, which is safe: the raw
    files are durable. When the interpreter ends without that, what has not begun is given up, and what runs stops.

    A job that fails leaves its file whole. Its error names the file, and is raised once: by the next call of a method,
    which has done what it was asked for all the same, so that no state is lost to the error of another.

    A file that somebody else replaced, changed or removed since it was saved here (or since `compress`) is left alone:
    its device, inode, length and time of change are compared right before the rename. Saves through the same compressor
    are locked out from there to the end of the rename; somebody else's that falls between the two calls of the
    operating system is replaced by what was there before it. Writers of ``.h5`` lock each other out, and so they cannot
    write to a file that is worked on.

    All methods may be called from any thread. A process that was forked from the one that made the compressor needs
    one of its own.

    Parameters
    ----------
    effort
        How long to look for the smallest form: see `quantum_memory.save`.
    fidelity, max_bytes
        Replace what `save` has saved by a form with loss: see `quantum_memory.save`. By default every bit is kept.
    workers
        How many files are worked on at a time. One is enough to keep several cores busy with a large one.
    progress
        Called with the `Job` when it begins, after each chunk, and when it ends, by threads of the compressor: one call
        at a time for each job. What it raises fails the job. It must not wait for the compressor.
    on_error
        Called with the `Job` and its error, by the worker, as soon as it has failed.

    Raises
    ------
    InvalidStateError
        These options cannot be asked for.

    Examples
    --------
    >>> with BackgroundCompressor() as background:  # doctest: +SKIP
    ...     for step, state in enumerate(simulation):
    ...         background.save(state, f"step-{step}.qms")
    """

    def __init__(
        self,
        *,
        effort: str = "balanced",
        fidelity: float | None = None,
        max_bytes: int | None = None,
        workers: int = 1,
        progress: Callable[[Job], object] | None = None,
        on_error: Callable[[Job, QuantumMemoryError], object] | None = None,
    ) -> None:
        asked = Fidelity.asked(fidelity, max_bytes, effort) or Fidelity()
        if type(workers) is not int or workers < 1:
            raise InvalidStateError(f"workers is {workers!r:.40}", next_step="give a number of threads, 1 or more")
        self._options: dict[str, Any] = {"effort": asked.effort, "fidelity": fidelity, "max_bytes": max_bytes}
        self._lossy = asked.infidelity > 0 or asked.max_bytes is not None
        self._workers = workers
        self._progress = progress
        self._on_error = on_error
        self._pid = os.getpid()
        self._lock = threading.RLock()  # guards what follows; its holder waits for no other lock
        self._changed = threading.Condition(self._lock)  # not entered itself: an interrupt would leave it locked
        self._closed = False
        self._waiting: deque[Task] = deque()
        self._running: list[Task] = []
        self._ended: deque[Job] = deque(maxlen=_REMEMBERED)
        self._errors: deque[QuantumMemoryError] = deque()
        self._threads: set[threading.Thread] = set()  # none when nothing waits or runs, callbacks included
        self._naming = threading.RLock()  # held while a file gets its name
        _alive.add(self)

    def save(
        self,
        state: object,
        path: Path,
        *,
        overwrite: bool = True,
        durable: bool = True,
        progress: Progress | None = None,
    ) -> Saved:
        """Save a state as it is, and have its file compressed; when this returns, the raw file is durable.

        A job for the same file that was asked for before is given up, even while it runs. The state may be changed as
        soon as this returns: it is the file that is compressed.

        Parameters
        ----------
        state, path, overwrite, durable, progress
            See `quantum_memory.save`. `durable` goes for the smaller file as well.

        Returns
        -------
        Saved
            Of the raw file. The `content_id` is that of the smaller one, too, unless it is packed with loss.

        Raises
        ------
        QuantumMemoryError
            What `quantum_memory.save` raises: then nothing is queued. Or the error of an earlier job, which names
            another file: then the state is saved and queued all the same.
        ConflictError
            The compressor is closed, or belongs to another process.
        """
        self._check_open()
        name = os.fspath(path)
        plain = "none" if "none" in format_of_suffix(name).handler.compressions else "auto"
        facts = []
        with ExitStack() as held:

            def note(written: str) -> None:
                # The lock is kept until older jobs know: none can put its file over this one.
                held.enter_context(holding(self._naming))
                facts.append(FileFacts.of(written))

            with before_naming(note):
                saved = save(state, name, compression=plain, overwrite=overwrite, durable=durable, progress=progress)
            self._give_up("it was saved again meanwhile", of=real_path(name))
        # We wrote it, and reading it runs no code.
        self._put(Task(name, facts[0], self._options | {"durable": durable, "allow_pickle": True}))
        self._raise_next()
        return saved

    def compress(self, path: Path, *, overwrite: bool = False, allow_pickle: bool = False) -> None:
        """Have a file compressed that is there already. A job that waits for the same file is given up.

        Parameters
        ----------
        path
            The file.
        overwrite
            Where the compressor packs with loss: replace the original, which is lost.
        allow_pickle
            See `quantum_memory.load`.

        Raises
        ------
        MissingFileError, StorageError
            There is no such file, or it cannot be looked at.
        ConflictError
            The original would be lost, and `overwrite` is False; the compressor is closed, or belongs to another
            process.
        InvalidStateError
            Its suffix does not say a format.
        QuantumMemoryError
            The error of an earlier job, which names another file: the file is queued all the same.
        """
        self._check_open()
        name = os.fspath(path)
        format_of_suffix(name)
        target = real_path(name)
        if self._lossy and not overwrite:
            raise ConflictError(
                "the original would be lost", path=name, next_step="say that it is to be replaced (overwrite=True)"
            )
        try:
            facts = FileFacts.of(target)
        except FileNotFoundError as error:
            raise MissingFileError("there is no such file", path=name, next_step="check the path") from error
        except OSError as error:
            raise StorageError.from_os_error(error, "look at it", name) from error
        self._give_up("it was asked for again", of=target, running=False)
        self._put(Task(name, facts, self._options | {"allow_pickle": allow_pickle}))
        self._raise_next()

    @property
    def pending(self) -> tuple[Job, ...]:
        """The jobs that run, and those that wait, in the order in which they will begin."""
        with self._lock:
            return tuple(task.job for task in (*self._running, *self._waiting))

    @property
    def done(self) -> tuple[Job, ...]:
        """The jobs that have ended, however they did, in that order: the last 1024."""
        with self._lock:
            return tuple(self._ended)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no job is left, and tell whether that is so.

        Parameters
        ----------
        timeout
            After how many seconds to return nevertheless; None for never.

        Raises
        ------
        QuantumMemoryError
            The first error of a job that was not raised yet.
        ConflictError
            The compressor belongs to another process.
        """
        self._check_process()
        idle = self._wait(timeout)
        self._raise_next()
        return idle

    def close(self, *, cancel: bool = False) -> None:
        """Wait until no job is left, and take no more of them.

        Parameters
        ----------
        cancel
            Give up what has not begun, and stop what runs at the next chunk. The files stay as they are.

        Raises
        ------
        QuantumMemoryError
            The first error of a job that was not raised yet; the others are its notes.
        """
        if os.getpid() != self._pid:
            return  # the jobs are those of the other process, and so is the lock
        with self._lock:
            self._closed = True
        if cancel:
            self._give_up("it was cancelled")
        self._wait(None)
        with self._lock:
            errors = list(self._errors)
            self._errors.clear()
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"and {other}")
            raise errors[0]

    def __enter__(self) -> BackgroundCompressor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Who wants to get out is not made to wait, and loses nothing but space on the disk.
            self.close(cancel=error is not None and not isinstance(error, Exception))
        except QuantumMemoryError as late:
            if error is None:
                raise
            for note in (str(late), *getattr(late, "__notes__", ())):
                error.add_note(note)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ConflictError(
                "this compressor belongs to the process that this one was forked from",
                next_step="make another one here",
            )

    def _check_open(self) -> None:
        self._check_process()
        with self._lock:
            if self._closed:
                raise ConflictError("this compressor has been closed", next_step="make another one")

    def _wait(self, timeout: float | None) -> bool:
        with self._lock:
            return self._changed.wait_for(lambda: not self._threads, timeout)

    def _raise_next(self) -> None:
        with self._lock:
            error = self._errors.popleft() if self._errors else None
        if error is not None:
            raise error

    def _give_up(self, reason: str, *, of: str | None = None, running: bool = True) -> None:
        """End the jobs of one file, or of all, that wait, and have those that run stop."""
        with self._lock:
            chosen = [task for task in self._waiting if of in {None, task.target}]
            self._waiting = deque(task for task in self._waiting if of not in {None, task.target})
            self._ended.extend(replace(task.job, state="skipped", reason=reason) for task in chosen)
            for task in self._running if running else ():
                if of in {None, task.target}:
                    task.stop = task.stop or reason

    def _put(self, task: Task) -> None:
        with self._lock:
            self._waiting.append(task)
            if len(self._threads) == self._workers:
                return
            # No threads are kept for what may come: the search for a form takes much longer than starting one. They are
            # daemons, so that the interpreter does not wait for them before `_stop_all` has stopped them.
            thread = threading.Thread(target=self._work, name="qm-compress", daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except BaseException as error:  # there are too many, or the interpreter is ending, or an interrupt
                if thread.ident is not None:
                    raise  # it has begun
                self._threads.discard(thread)
                if not self._threads:
                    self._waiting.remove(task)
                    self._note_end(task, state="failed", error=_ours(error, task.job.path))
                if not isinstance(error, RuntimeError):
                    raise

    def _work(self) -> None:
        _step_back()
        while (task := self._next()) is not None:
            self._run(task)

    def _next(self) -> Task | None:
        with self._lock:
            if not self._waiting:
                self._threads.discard(threading.current_thread())
                self._changed.notify_all()
                return None
            self._running.append(self._waiting.popleft())
            return self._running[-1]

    def _run(self, task: Task) -> None:
        """Do a job, whatever happens, and say how it has ended."""
        failure: QuantumMemoryError | None = None
        try:
            made = task.context.run(self._compress, task)
            ended: dict[str, Any] = {"state": "done", "bytes_after": made, "fraction": 1.0}
            if made == task.job.bytes_before:
                ended["reason"] = "nothing smaller was found"
        except Left as left:
            ended = {"state": "skipped", "reason": left.reason}
        except BaseException as error:  # what the code of a codec panics with is no Exception
            failure = _ours(error, task.job.path)
            ended = {"state": "failed", "error": failure}
        self._note_end(task, **ended)
        try:
            if failure is not None and self._on_error is not None:
                self._on_error(task.job, failure)
            if self._progress is not None:
                self._progress(task.job)
        except BaseException as error:  # it must not end the thread, on which the queue depends
            with self._lock:
                self._errors.append(_ours(error, task.job.path))

    def _note_end(self, task: Task, **changes: Any) -> None:
        with self._lock:
            task.job = replace(task.job, **changes)
            if task in self._running:
                self._running.remove(task)
            self._ended.append(task.job)
            if task.job.error is not None:
                self._errors.append(task.job.error)

    def _compress(self, task: Task) -> int:
        """Compress a file, and return how many bytes it has then."""
        passed = []
        with ExitStack() as held:

            def check(_: str) -> None:
                held.enter_context(holding(self._naming))
                task.check()
                passed.append(True)

            try:
                task.check()
                self._tell(task, 0)
                with closing(open_reader(task.path, OpenOptions(allow_pickle=task.options["allow_pickle"]))) as reader:
                    task.total = _PASSES * sum(entry.nbytes for entry in reader.entries.values())
                with before_naming(check):
                    made = recompress(
                        task.path,
                        overwrite=True,
                        progress=lambda count: self._tell(task, count),
                        check_progress=lambda count: self._tell(task, count),
                        **task.options,
                    )
                    if not passed:
                        raise _Kept  # since the block would be faulted for having named no file
            except _Kept:
                return task.job.bytes_before
            except Exception:
                if not passed:
                    task.check()  # a file that was replaced or removed while it was read looks damaged
                raise
        return made.bytes

    def _tell(self, task: Task, count: int) -> None:
        """Take note of bytes that were read, written or checked, and stop here if the job is to."""
        with task.telling:
            task.check_stop()
            task.reported += count
            fraction = min(task.reported / task.total, _ALMOST) if task.total else 0.0
            task.job = replace(task.job, state="running", fraction=fraction)
            if self._progress is not None:
                self._progress(task.job)

    def _stop(self) -> None:
        """Leave what can be left to the end of the interpreter: see `_stop_all`."""
        if os.getpid() == self._pid:
            self._give_up(ENDING)
            self._wait(_EXIT_SECONDS)


class _Kept(Exception):  # noqa: N818 - no error
    """Nothing smaller was found."""


_alive: WeakSet[BackgroundCompressor] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """Stop what runs, so that it leaves no temporary file; what goes on past the wait ends with the interpreter."""
    for one in list(_alive):
        one._stop()


def _ours(error: BaseException, path: str) -> QuantumMemoryError:
    """Return an error of ours for whatever went wrong with a file, without what the calls that led to it held."""
    traceback.clear_frames(error.__traceback__)
    if isinstance(error, QuantumMemoryError):
        error.add_note("It was being compressed in the background.")
        return error.at(path)
    if isinstance(error, OSError):
        made: QuantumMemoryError = StorageError.from_os_error(error, "compress it in the background", path)
    else:
        made = QuantumMemoryError(
            f"compressing it in the background failed: {type(error).__name__}: {error}",
            path=path,
            next_step="the file is as it was; save it with less effort, or report this",
        )
    made.__cause__ = error
    return made


def _step_back() -> None:
    """Lower the priority of this thread, and of those that it starts, where a thread has one of its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            me = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, me, min(_NICEST, os.getpriority(os.PRIO_PROCESS, me) + _NICER))

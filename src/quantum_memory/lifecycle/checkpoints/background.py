"""One thread that saves while the run goes on, one save at a time; what goes wrong in it comes out in the caller."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - see the end
import contextvars
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class _Job:
    """Something that is being done.

    Its lock is held until it is done. It is not a condition: those are written in Python, so that an interrupt from the
    keyboard may come when they have their lock and nobody knows yet, and then it is never released.
    """

    def __init__(self) -> None:
        self.begun = False
        self.undone = threading.Lock()
        self.undone.acquire()


_all: weakref.WeakSet[Background] = weakref.WeakSet()


class Background:
    """A thread for one job at a time.

    The thread is there while there is a job, and a little longer; a process that was forked has none of the jobs of the
    one that forked it.

    Parameters
    ----------
    name
        Of the thread.
    on_error
        Called with what went wrong, in the thread.
    """

    def __init__(self, name: str, on_error: Callable[[BaseException], object] | None = None) -> None:
        self._name = name
        self._on_error = on_error
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._job: _Job | None = None
        self._failure: BaseException | None = None

    def _here(self) -> None:
        if self._pid != os.getpid():  # forked: the thread has stayed with the parent, and so has what it did
            self._begin()

    @property
    def busy(self) -> bool:
        """Whether a job is being done."""
        self._here()
        return self._job is not None

    def start(self, work: Callable[[], object]) -> bool:
        """Do a job in the thread, unless one is being done; tell whether it was begun.

        What went wrong before is kept for `check`.
        """
        self._here()
        job = _Job()
        try:
            with self._guard:
                if self._job is not None:
                    return False
                self._job = job
            context = contextvars.copy_context()  # with the files that are in force here
            threading.Thread(target=context.run, args=(self._do, job, work), name=self._name, daemon=False).start()
        except BaseException:  # no more threads, or an interrupt, before or after there is one
            with self._guard:
                if self._job is job and not job.begun:
                    self._end(job)
            raise
        return True

    def _do(self, job: _Job, work: Callable[[], object]) -> None:
        with self._guard:
            if self._job is not job:
                return  # given up before it began
            job.begun = True
        try:
            work()
        except BaseException as error:
            self.failed(error)
        finally:
            with self._guard:
                self._end(job)

    def _end(self, job: _Job) -> None:
        self._job = None
        job.undone.release()

    def failed(self, failure: BaseException) -> None:
        """Say what went wrong: now to `on_error`, and to whoever calls next."""
        if self._on_error is not None:
            try:
                self._on_error(failure)
            except BaseException as error:
                error.__context__ = failure
                failure = error
        with self._guard:
            if self._failure is None:
                self._failure = failure
            else:
                self._failure.add_note(f"and after that: {failure!r:.300}")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being done, and tell whether that is so.

        Raises
        ------
        BaseException
            What went wrong in a job since this was last asked.
        """
        done = self.rest(timeout)
        self.check()
        return done

    def rest(self, timeout: float | None = None) -> bool:
        """Wait, and leave what went wrong for later; see `wait`."""
        self._here()
        job = self._job
        done = job is None or job.undone.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        if job is not None and done:
            job.undone.release()  # for others who wait
        return done

    def check(self) -> None:
        """Raise what went wrong in a job since this was last asked."""
        failure = self.failure()
        if failure is not None:
            raise failure

    def failure(self) -> BaseException | None:
        """Return what went wrong in a job since this was last asked; None for nothing."""
        self._here()
        with self._guard:
            failure, self._failure = self._failure, None
        return failure


def _finish() -> None:
    """Wait, when the program has ended, for what is being saved, and say what nobody has asked about."""
    for one in list(_all):
        try:
            one.wait()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)


# Before `concurrent.futures`, registered above, takes away the threads that saving needs. `atexit` would be too late.
getattr(threading, "_register_atexit", lambda _: None)(_finish)

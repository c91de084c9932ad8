"""Making durable what other libraries write to a file system, of which nobody knows the files.

The kernel tells of data that it could not write back only who had the file system open by then, and of what nobody has
been told yet, who opens it next. Who opens it when all is written may come after somebody else has been told, and hears
that all is well (Linux, ``errseq_t``). So it is opened before.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from quantum_memory.durability.files import syncfs
from quantum_memory.durability.interrupts import holding

if TYPE_CHECKING:
    from typing import Self

_EACH = 32 << 20
"""Bytes after which the disk is given something to do. Less is written back at the end in no more time."""


class WriteBack:
    """Makes durable what is written to the file system of a folder while this is open, by whomever.

    Parameters
    ----------
    folder
        Which is there.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._waiting = 0
        self._running: threading.Thread | None = None
        self._error: OSError | None = None
        self._fds: list[int] = []
        self._fds.extend(map(os.open, [folder], [os.O_RDONLY]))  # noted as it is opened, whatever interrupts this

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self._close()

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def more(self, nbytes: int) -> None:
        """Take note that so many bytes more are written, and have them written back meanwhile, if they are many."""
        with holding(self._lock):
            self._waiting += nbytes
            if self._waiting < _EACH or (self._running is not None and self._running.is_alive()):
                return
            self._waiting = 0
            self._running = threading.Thread(target=self._sync, name="write back", daemon=True)
            self._running.start()

    def finish(self) -> None:
        """Make everything durable that was written until now.

        Raises
        ------
        OSError
            As the system does, of anything that was written since this was opened.
        """
        self._wait()
        self._sync()
        if self._error is not None:
            raise self._error

    def _wait(self) -> None:
        with holding(self._lock):
            running, self._running = self._running, None
        if running is not None:
            running.join()

    def _sync(self) -> None:
        """Write back what there is; of an error the kernel tells once, and so it is kept."""
        try:
            syncfs(self._fds[0], self._folder)
        except OSError as error:
            self._error = self._error or error


def sync_file_system(folder: str) -> None:
    """Make everything durable that was written to the file system of a folder just now, by whomever.

    Raises
    ------
    OSError
        As the system does.
    """
    with WriteBack(folder) as back:
        back.finish()

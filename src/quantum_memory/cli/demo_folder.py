"""The folder of a demo: what was made in it is removed when it ends, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from quantum_memory.errors import ConflictError, MissingFileError, StorageError

if TYPE_CHECKING:
    from types import TracebackType

_DEFAULT = "qmem-demo"


class DemoFolder:
    """A folder for the files of a demo; use it as a context manager.

    Parameters
    ----------
    path
        The folder: made when it is not there, refused when something is in it. None makes a new one in the current
        folder: ``qmem-demo``, or the first of ``qmem-demo-2``, ... that is not there.
    keep
        Leave everything where it is.

    Raises
    ------
    ConflictError
        There is something in it.
    MissingFileError, StorageError
        It cannot be made.
    """

    def __init__(self, path: str | None, *, keep: bool) -> None:
        self._keep = keep
        self._made: list[Path] = []
        self._made_folder = False
        try:
            self.path = self._fresh() if path is None else self._given(Path(path))
        except FileNotFoundError:
            raise MissingFileError(
                "the folder above it does not exist", path=path, next_step="make that one first"
            ) from None
        except OSError as error:
            if isinstance(error, ConflictError):
                raise
            raise StorageError.from_os_error(error, "make or read the folder", path or _DEFAULT) from error

    def file(self, name: str) -> str:
        """Return the path of a file to make in the folder; it goes when the folder goes."""
        path = self.path / name
        self._made.append(path)
        return str(path)

    def free_bytes(self) -> int:
        """Return how much the disk of the folder has left."""
        return shutil.disk_usage(self.path).free

    def __enter__(self) -> DemoFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keep:
            return
        for path in self._made:
            with contextlib.suppress(OSError):
                path.unlink()
        if self._made_folder:
            with contextlib.suppress(OSError):  # somebody else has put something into it
                self.path.rmdir()

    def _fresh(self) -> Path:
        for number in count(1):
            path = Path(_DEFAULT if number == 1 else f"{_DEFAULT}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                self._made_folder = True
                return path
        raise AssertionError("unreachable")

    def _given(self, path: Path) -> Path:
        if not os.path.lexists(path):
            path.mkdir()
            self._made_folder = True
        elif not path.is_dir() or any(path.iterdir()):
            raise ConflictError(
                "there is something in it already, which a demo leaves alone",
                path=path,
                next_step="choose a new or an empty folder",
            )
        return path

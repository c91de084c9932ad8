"""Where a folder of backups is pushed to: a prefix in object storage, or a folder on another disk.

Both hold objects under keys, which are written and read as a whole.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quantum_memory.durability.atomic import DurableFile, is_leftover
from quantum_memory.durability.files import ReadableFile, current
from quantum_memory.durability.folders import make_folder, sync_names
from quantum_memory.errors import ConflictError, IntegrityError, InvalidStateError, MissingFileError, StorageError
from quantum_memory.formats.urls import S3, URL, is_url, local_path, storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quantum_memory.durability.files import Buffer


class Target(Protocol):
    """Objects under keys, which look like paths.

    Attributes
    ----------
    name
        What errors call it.
    """

    name: str

    def where(self, key: str) -> str:
        """Return where an object is, for people."""

    def check_writable(self) -> None:
        """Refuse a place that cannot keep two writers apart.

        Raises
        ------
        UnsafeError
        """

    def listed(self, folder: str = "") -> Iterator[tuple[str, int, float]]:
        """Give key, length and time of each object, or of those below a folder; the time is that of the storage."""

    def read(self, key: str, most: int) -> Buffer | None:
        """Return an object; None where it is not there.

        Raises
        ------
        IntegrityError
            It has more than `most` bytes.
        """

    def create(self, key: str, data: Buffer) -> bool:
        """Write an object, durably, where there is none of this key; tell whether there was none."""

    def replace(self, key: str, data: Buffer) -> None:
        """Write an object, durably, also in the place of another one."""

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already do not matter."""


class FolderTarget:
    """A folder, as on a disk that is taken elsewhere. Its files are for their owner only.

    Parameters
    ----------
    path
        It is made when something is first pushed; what it is in has to be there, lest a disk that is not mounted is
        taken for one that is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.path.abspath(path)

    def where(self, key: str) -> str:
        return os.path.join(self.name, key)

    def check_writable(self) -> None:
        if not os.path.isdir(os.path.dirname(self.name)):
            raise MissingFileError(
                "the folder that it is to be in is not there",
                path=self.name,
                next_step="mount its disk, or make that folder",
            )

    def listed(self, folder: str = "") -> Iterator[tuple[str, int, float]]:
        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):  # removed meanwhile, or not made yet
                raise StorageError.from_os_error(error, "list", error.filename or self.name) from error

        for above, folders, names in os.walk(self.where(folder) if folder else self.name, onerror=failed):
            folders.sort()
            for name in sorted(names):
                path = Path(above, name)
                with contextlib.suppress(FileNotFoundError):
                    facts = path.lstat()
                    if not is_leftover(name):
                        yield str(path.relative_to(self.name)), facts.st_size, facts.st_mtime

    def read(self, key: str, most: int) -> Buffer | None:
        try:
            with ReadableFile(self.where(key), follow=False) as source:
                if source.size > most:
                    raise IntegrityError(f"it has {source.size} bytes, more than there can be", path=source.name)
                return source.read(0, source.size)
        except MissingFileError:
            return None

    def create(self, key: str, data: Buffer) -> bool:
        try:
            self._write(key, data, overwrite=False)
        except ConflictError:
            return False
        return True

    def replace(self, key: str, data: Buffer) -> None:
        self._write(key, data, overwrite=True)

    def _write(self, key: str, data: Buffer, *, overwrite: bool) -> None:
        path = self.where(key)
        self._make(os.path.dirname(path))
        with DurableFile(path, overwrite=overwrite, mode=0o600) as sink:
            sink.write(data)

    def _make(self, folder: str) -> None:
        if not os.path.isdir(folder):
            if folder != self.name:
                self._make(os.path.dirname(folder))
            make_folder(folder, mode=0o700)

    def remove(self, keys: Iterable[str]) -> None:
        folders = set()
        for key in keys:
            path = self.where(key)
            try:
                current().unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError.from_os_error(error, "remove", path) from error
            folders.add(os.path.dirname(path))
        for folder in sorted(folders):
            sync_names(folder)
        self._tidy(folders)

    def _tidy(self, folders: set[str]) -> None:
        """Remove folders that are empty now, up to that of the target."""
        for one in sorted(folders, reverse=True):
            folder = one
            with contextlib.suppress(OSError):  # as when somebody else has just put something there
                while folder != self.name:
                    current().rmdir(folder)
                    folder = os.path.dirname(folder)


def target_of(address: str | os.PathLike[str]) -> Target:
    """Return what an address means: ``s3://bucket/prefix``, or the path of a folder. Nothing is made.

    Raises
    ------
    InvalidStateError
        It is no address to which backups are pushed.
    MissingError
        It is one of object storage, and the extra ``cloud`` is not installed.
    """
    if not is_url(address):
        return FolderTarget(local_path(address))
    url = URL.parse(address)
    if url.scheme != S3 or url.name is not None:
        raise InvalidStateError(
            "backups are not pushed to a repository, or to a version in one",
            path=str(url),
            next_step="write s3://bucket/prefix, or the path of a folder",
        )
    storage()
    from quantum_memory.cloud.object_target import ObjectTarget  # noqa: PLC0415 - after it is known to be there

    return ObjectTarget(url)

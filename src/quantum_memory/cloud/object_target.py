"""A prefix in object storage to which files are copied, in parts, and from which they come back.

It speaks in whole objects of a few MiB; what they mean is known to those who use it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from obstore.exceptions import AlreadyExistsError

from quantum_memory.cloud.errors import told
from quantum_memory.cloud.object_place import ObjectPlace
from quantum_memory.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quantum_memory.durability.files import Buffer
    from quantum_memory.formats.urls import URL

_LONGEST_REQUEST = "300s"
"""A part goes through in this time at 28 KiB/s; half a minute, as obstore has it, would take ten times that."""

_AT_ONCE = 1000
"""Objects that one request removes."""


class ObjectTarget:
    """A prefix in object storage that speaks S3.

    Parameters
    ----------
    url
        Its address.

    Attributes
    ----------
    name
        The same, as it is written.
    """

    def __init__(self, url: URL) -> None:
        self._url, self.name = url, str(url)
        with told(self.name, "reach it"):
            self._place = ObjectPlace(url)
            self._store = self._place.objects(timeout=_LONGEST_REQUEST)

    def where(self, key: str) -> str:
        return str(replace(self._url, key=f"{self._url.key}/{key}".lstrip("/")))

    def check_writable(self) -> None:
        with told(self.name, "write to it"):
            self._place.check_writable()

    def listed(self, folder: str = "") -> Iterator[tuple[str, int, float]]:
        with told(self.name, "list what is there"):
            for batch in self._store.list(folder or None):
                for one in batch:
                    yield one["path"], one["size"], one["last_modified"].timestamp()

    def read(self, key: str, most: int) -> Buffer | None:
        with told(self.where(key), "read it"):
            try:
                found = self._store.get(key)
            except FileNotFoundError:
                return None
            if found.meta["size"] > most:
                raise IntegrityError(f"it has {found.meta['size']} bytes, more than there can be")
            return memoryview(found.bytes())

    def create(self, key: str, data: Buffer) -> bool:
        with told(self.where(key), "write it"):
            try:
                self._store.put(key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def replace(self, key: str, data: Buffer) -> None:
        with told(self.where(key), "write it"):
            self._store.put(key, data, use_multipart=False)

    def remove(self, keys: Iterable[str]) -> None:
        every = list(keys)
        with told(self.name, "remove what is there"):
            for at in range(0, len(every), _AT_ONCE):
                self._store.delete(every[at : at + _AT_ONCE])

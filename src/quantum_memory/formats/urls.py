"""Addresses of memories that are not files: in object storage, or in a local repository of the same kind.

``s3://bucket/prefix@name?endpoint=http://host:port`` and ``icechunk+file:///folder@name``. The name after the last
``@`` is that of a tag, of a branch or of a snapshot; without one, the newest version of the main line is meant.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from quantum_memory.errors import InvalidStateError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.prepared import Fidelity, Prepared
    from quantum_memory.formats.registry import Handler, OpenOptions, Path, Saved, SaveOptions

S3, LOCAL, FILE = "s3", "icechunk+file", "file"
_EXTRA = {"icechunk", "obstore", "zarr"}
_PREFIXES = (f"{S3}://", f"{LOCAL}://")


@dataclass(frozen=True)
class URL:
    """An address, taken apart.

    Attributes
    ----------
    scheme
        "s3" or "icechunk+file".
    bucket
        Of object storage; otherwise empty.
    key
        The prefix in the bucket, without slashes at its ends, or the path of the folder.
    name
        Which version: a tag, a branch or a snapshot. None: the newest.
    endpoint
        Where the object storage is; None: as the environment says.
    """

    scheme: str
    bucket: str
    key: str
    name: str | None = None
    endpoint: str | None = None

    @classmethod
    def parse(cls, text: Path) -> URL:
        """Take an address apart.

        Raises
        ------
        InvalidStateError
            It is none that is read here.
        """
        said = os.fspath(text)
        parts = urlsplit(said, allow_fragments=False)
        if parts.scheme not in {S3, LOCAL} or (parts.scheme == S3 and not parts.netloc):
            raise _malformed(said, "is no address of object storage")
        if "@" in parts.netloc or parts.password is not None:
            raise _malformed(said, "holds credentials, which are never part of an address")
        folder, slash, last = unquote(parts.path).rpartition("/")
        stem, at, name = last.rpartition("@") if "@" in last else (last, "", "")
        if at and not (stem and name):
            raise _malformed(said, "has an @ without a name on both sides")
        where = folder + slash + stem
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        endpoint = query.pop("endpoint", None)
        if query or (endpoint is not None and parts.scheme != S3):
            raise _malformed(said, f"has a part that is not known: {', '.join(query) or 'endpoint'}")
        if parts.scheme == S3:
            return cls(S3, parts.netloc, where.strip("/"), name or None, endpoint)
        folder = os.path.abspath(parts.netloc + where)  # noqa: PTH100 - a path that links are not followed in
        return cls(LOCAL, "", folder, name or None)

    def at(self, name: str | None) -> URL:
        """Return the address of another version."""
        return replace(self, name=name)

    def __str__(self) -> str:
        where = f"{self.bucket}/{self.key}" if self.scheme == S3 else self.key
        name = "" if self.name is None else f"@{self.name}"
        endpoint = "" if self.endpoint is None else f"?endpoint={self.endpoint}"
        return f"{self.scheme}://{where}{name}{endpoint}"


def is_url(path: object) -> bool:
    """Tell whether a path is an address of something that is no file."""
    return isinstance(path, str) and path.startswith(_PREFIXES)


def local_path(path: Path) -> Path:
    """Return the path that a ``file://`` address means; anything else as it is."""
    if isinstance(path, str) and path.startswith(f"{FILE}://"):
        return unquote(urlsplit(path, allow_fragments=False).path)
    return path


class Storage(Protocol):
    """What saves and opens memories at addresses: it is above this, and no format knows it."""

    def save(
        self,
        url: URL,
        memory: Prepared,
        options: SaveOptions,
        asked: Fidelity | None,
        check: Callable[[str], object] | None = None,
    ) -> Saved:
        """Write a memory; see `quantum_memory.save`.

        Parameters
        ----------
        check
            Called with the address of the version before anybody else sees it; what it raises undoes it.
        """

    def below(self, url: URL) -> list[str] | None:
        """Return the addresses of the repositories below an address, which is none of one; None where it is."""

    def open(self, url: URL, options: OpenOptions) -> tuple[Readable, Handler]:
        """Return what stands for a file, and what reads the memory at an address."""


def storage() -> Storage:
    """Return what saves and opens memories at addresses."""
    try:
        found: Any = import_module("quantum_memory.cloud.zarr_format")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise MissingError(
            f"{error.name} is not installed, which s3:// and icechunk+file:// need",
            next_step="pip install 'quantum-memory[cloud]'",
        ) from error
    made: Storage = found.ZarrStorage()
    return made


def _malformed(text: str, what: str) -> InvalidStateError:
    return InvalidStateError(
        f"it {what}", path=text, next_step="write s3://bucket/prefix@tag or icechunk+file:///folder@tag"
    )

"""Addresses of memories that are not files: in object storage, or in a local repository of the same kind.

``s3://bucket/prefix@name?endpoint=http://host:port`` and ``icechunk+file:///folder@name``. The name after the last
``@`` is that of a tag, of a branch or of a snapshot; without one, the newest version of the main line is meant.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, quote, unquote

from quantum_memory.errors import InvalidStateError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from quantum_memory.durability.files import Readable
    from quantum_memory.formats.prepared import Fidelity, Prepared
    from quantum_memory.formats.registry import Handler, OpenOptions, Path, Saved, SaveOptions

S3, LOCAL, FILE = "s3", "icechunk+file", "file"
_EXTRA = {"icechunk", "obstore", "zarr"}
_PREFIXES = (f"{S3}://", f"{LOCAL}://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]+")
_HTTP = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")


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
        scheme, _, rest = said.partition("://")
        if scheme not in {S3, LOCAL}:
            raise _malformed(said, "is no address of object storage")
        rest, _, query = rest.partition("?")
        bucket, _, path = rest.partition("/") if scheme == S3 else ("", "", rest)
        if "@" in bucket:
            raise _malformed(said, "holds credentials, which are never part of an address")
        folder, between, last = path.rpartition("/")
        stem, at, name = last.rpartition("@") if "@" in last else (last, "", "")
        if at and not (stem and name):
            raise _malformed(said, "has an @ without a name on both sides")
        where = _unquoted(folder + between + stem, said)
        endpoint = _endpoint(query, said) if query or said.endswith("?") else None
        if scheme == S3:
            key = where.strip("/")
            if not _BUCKET.fullmatch(bucket):
                raise _malformed(said, "has no bucket, or one of which there is none")
            if key and not {"", ".", ".."}.isdisjoint(key.split("/")):
                raise _malformed(said, "has a prefix with a part that is empty, . or ..")
            return cls(S3, bucket, key, _unquoted(name, said) or None, endpoint)
        if endpoint is not None:
            raise _malformed(said, "has a part that is not known: endpoint")
        folder = os.path.abspath(where)  # noqa: PTH100 - a path that links are not followed in
        if not where or folder == os.path.dirname(folder):  # noqa: PTH120 - as above
            raise _malformed(said, "names no folder")
        return cls(LOCAL, "", folder, _unquoted(name, said) or None)

    def at(self, name: str | None) -> URL:
        """Return the address of another version."""
        return replace(self, name=name)

    def __str__(self) -> str:
        where = f"{self.bucket}/{self.key}" if self.scheme == S3 else self.key
        folder, slash, last = where.replace("%", "%25").replace("?", "%3F").rpartition("/")
        name = "" if self.name is None else f"@{self.name}"
        endpoint = "" if self.endpoint is None else f"?endpoint={quote(self.endpoint, safe=':/[]')}"
        return f"{self.scheme}://{folder}{slash}{last.replace('@', '%40')}{name}{endpoint}"


def is_url(path: object) -> bool:
    """Tell whether a path is an address of something that is no file."""
    return isinstance(path, str) and path.startswith(_PREFIXES)


def local_path(path: Path) -> Path:
    """Return the path that a ``file://`` address means; anything else as it is.

    Raises
    ------
    InvalidStateError
        It means no file of this machine.
    """
    if not isinstance(path, str) or not path.startswith(f"{FILE}://"):
        return path
    host, slash, rest = path.removeprefix(f"{FILE}://").partition("/")
    if host not in {"", "localhost"} or not slash or "?" in rest:
        raise InvalidStateError(
            "it is no address of a file on this machine", path=path, next_step="write file:///folder/name.qms"
        )
    return unquote(slash + rest, errors="surrogateescape")


def whole_path(path: Path) -> str:
    """Return a path from the root on, with the links in it as they are; an address as it is."""
    return str(path) if is_url(path) else os.path.abspath(local_path(path))  # noqa: PTH100 - links and all


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
    shown = text if text.isprintable() else repr(text)
    return InvalidStateError(
        f"it {what}", path=shown, next_step="write s3://bucket/prefix@tag or icechunk+file:///folder@tag"
    )


def _unquoted(part: str, said: str) -> str:
    """Return a part of an address with its escapes resolved; what no engine takes for a name is refused."""
    try:
        found = unquote(part, errors="strict")
        found.encode()
    except UnicodeError:
        raise _malformed(said, "is not in UTF-8") from None
    if any(letter < " " or letter == "\x7f" for letter in found):
        raise _malformed(said, "has a control character in it")
    return found


def _endpoint(query: str, said: str) -> str:
    """Return the endpoint that an address says, in what follows its question mark."""
    parts = parse_qsl(query, keep_blank_values=True)
    if [name for name, _ in parts] != ["endpoint"]:
        raise _malformed(said, f"has a part that is not known, or twice: {query:.60}")
    endpoint = parts[0][1]
    if not _HTTP.fullmatch(endpoint):
        raise _malformed(said, "has an endpoint that is not of the form http://host:port or https://host:port")
    return endpoint

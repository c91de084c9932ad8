"""What a file says of its arrays that are in a form.

Beside document and record a file may have ``forms``: for the path of an array, the name of its form, its dtype and
shape, plain values, and the paths of its parts, which are stored as other arrays are. The document knows nothing of it,
so that the `content_id` is that of the array. Where a form does not give the same bits on every machine, the array is
identified by its parts: see `identity_of_parts`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from xxhash import xxh3_64_digest

from quantum_memory.errors import RESTORE, IntegrityError
from quantum_memory.state.arrays import STORABLE, bytes_of, chunk_count, combine_digests
from quantum_memory.state.document import ArrayIdentity, array_paths
from quantum_memory.state.json_text import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.compression.certificate import Certificate
    from quantum_memory.state.arrays import AnyArray

Json = Any

_KEYS = {"form", "dtype", "shape", "sha256", "facts", "parts", "tried"}
_TYPES = ("f32", "f64", "c64", "c128")
_DIGEST_BYTES, _CHECKSUM_BYTES = 32, 8


class Identified(Protocol):
    """A stored array."""

    @property
    def identity(self) -> ArrayIdentity:
        """Name of its content."""


@dataclass(frozen=True)
class FormNode:
    """An array in a form, as a file says it.

    Attributes
    ----------
    form, facts
        Name of the form, and its plain values.
    identity
        Name of the content of the array.
    parts
        Path of each part in the file, by its name.
    certificate
        How faithful it is; None for a form that keeps every bit.
    checksum
        Of the array that is unpacked (see `Checksums`); empty where the identity is that of the parts.
    tried
        Bytes of every form that was considered for it, None for one that had nothing to offer.
    """

    form: str
    identity: ArrayIdentity
    facts: dict[str, Json]
    parts: dict[str, str]
    certificate: Certificate | None = None
    checksum: bytes = b""
    tried: dict[str, int | None] = field(default_factory=dict)

    @property
    def by_parts(self) -> bool:
        """Whether the identity is that of the parts."""
        return not self.checksum

    def to_json(self) -> dict[str, Json]:
        """Return what is written."""
        node: dict[str, Json] = {
            "form": self.form,
            "dtype": self.identity.dtype,
            "shape": list(self.identity.shape),
            "sha256": self.identity.digest.hex(),
            "facts": self.facts,
            "parts": self.parts,
            "tried": self.tried,
        }
        if self.by_parts:
            node["by_parts"] = True
        else:
            node["xxh3"] = self.checksum.hex()
        return node if self.certificate is None else node | {"certificate": self.certificate.to_json()}


def identity_of_parts(form: str, facts: Json, parts: Mapping[str, ArrayIdentity]) -> bytes:
    """Return the digest of an array that is identified by what it is stored as.

    SHA-256 of the canonical JSON text of ``{"facts": facts, "form": form, "parts": {name: [dtype, shape, digest]}}``.
    """
    listed = {name: [one.dtype, list(one.shape), one.digest.hex()] for name, one in parts.items()}
    return hashlib.sha256(to_json({"facts": facts, "form": form, "parts": listed}, canonical=True)).digest()


class Checksums:
    """Of an array that is unpacked: quick ones of its chunks, from which one is made of all, and digests where asked.

    Parameters
    ----------
    nbytes
        Of the array.
    digests
        Whether to compute the digest that identifies it as well, which takes ten times as long.
    """

    def __init__(self, nbytes: int, *, digests: bool) -> None:
        count = chunk_count(nbytes)
        self._quick = [b""] * count
        self._digests = [b""] * count if digests else None

    def look(self, index: int, items: AnyArray) -> None:
        """Note the chunk with this number; in any order, from any thread."""
        raw = bytes_of(items)
        self._quick[index] = xxh3_64_digest(raw)[::-1]  # little-endian, as it is everywhere here
        if self._digests is not None:
            self._digests[index] = hashlib.sha256(raw).digest()

    @property
    def checksum(self) -> bytes:
        """xxh3 of the xxh3 of all chunks, one after another."""
        return xxh3_64_digest(b"".join(self._quick))[::-1]

    @property
    def digest(self) -> bytes | None:
        """Name of the content; None where it was not asked for."""
        return None if self._digests is None else combine_digests(b"".join(self._digests), len(self._digests))


class ChecksumsInOrder:
    """The same of chunks that are seen one after another, some of them by somebody else, who sends this.

    Attributes
    ----------
    nbytes
        Of the chunks.
    """

    def __init__(self) -> None:
        self._quick = bytearray()
        self._digests = bytearray()
        self.nbytes = 0

    def add(self, items: AnyArray) -> None:
        """Note the next chunk."""
        raw = bytes_of(items)
        self._quick += xxh3_64_digest(raw)[::-1]
        self._digests += hashlib.sha256(raw).digest()
        self.nbytes += len(raw)

    def extend(self, others: ChecksumsInOrder) -> None:
        """Note the next chunks, which somebody else has seen."""
        self._quick += others._quick
        self._digests += others._digests
        self.nbytes += others.nbytes

    @property
    def checksum(self) -> bytes:
        """See `Checksums`."""
        return xxh3_64_digest(bytes(self._quick))[::-1]

    @property
    def digest(self) -> bytes:
        """See `Checksums`."""
        return combine_digests(bytes(self._digests), len(self._digests) // _DIGEST_BYTES)


@dataclass(frozen=True)
class Forms:
    """What a file says of its arrays that are in a form, checked against what it has.

    Parameters
    ----------
    nodes
        By the path of the array.
    """

    nodes: dict[str, FormNode] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: Json, stored: Mapping[str, Identified]) -> Forms:
        """Read what is written; None stands for no forms.

        Parameters
        ----------
        stored
            The arrays that the file has.

        Raises
        ------
        IntegrityError, UnsupportedVersionError
        """
        if text is None:
            return NO_FORMS
        if not isinstance(text, dict) or not text:
            raise IntegrityError("what it says of its packed arrays is not well formed", next_step=RESTORE)
        nodes = {path: _node(path, node, stored) for path, node in text.items()}
        parts = [part for node in nodes.values() for part in node.parts.values()]
        if len(set(parts)) != len(parts) or not set(parts) <= set(stored):
            raise IntegrityError("its packed arrays have parts in common, or that are not there", next_step=RESTORE)
        return cls(nodes)

    def stored_paths(self, document: Json) -> set[str]:
        """Return the paths of the arrays that a file with this document stores."""
        paths = array_paths(document)
        if not self.nodes.keys() <= paths:
            raise IntegrityError("it says of an array that its document does not name how it is packed")
        parts = {part for node in self.nodes.values() for part in node.parts.values()}
        if parts & paths:
            raise IntegrityError("its document names a part of a packed array")
        return (paths - self.nodes.keys()) | parts

    def identities(self, stored: Mapping[str, ArrayIdentity]) -> dict[str, ArrayIdentity]:
        """Return the identities of the arrays of the memory, from those of the arrays that are stored."""
        if not self.nodes:
            return dict(stored)
        parts = {part for node in self.nodes.values() for part in node.parts.values()}
        plain = {path: one for path, one in stored.items() if path not in parts}
        return plain | {path: node.identity for path, node in self.nodes.items()}

    @property
    def infidelity(self) -> float | None:
        """What is certified of what was packed with loss; None where nothing was."""
        return max((node.certificate.infidelity for node in self.nodes.values() if node.certificate), default=None)

    def to_json(self) -> dict[str, Json]:
        """Return what is written."""
        return {path: node.to_json() for path, node in self.nodes.items()}


NO_FORMS = Forms()
"""Of a file whose arrays are all stored as they are."""


def _check_kind(node: FormNode, path: str) -> None:
    """Refuse a lossless form with a certificate, a lossy one without, and an identity that is not that of the form."""
    from quantum_memory.compression.certificate import DEFINITION, UHLMANN  # noqa: PLC0415 - few files have forms
    from quantum_memory.compression.forms.registry import FORMS, lossy_named  # noqa: PLC0415

    lossy = lossy_named(node.form)
    if lossy is None and node.form not in FORMS:
        return  # it is refused when it is read
    definition = None if node.certificate is None else node.certificate.definition
    if definition not in {None, DEFINITION if len(node.identity.shape) == 1 else UHLMANN}:
        raise IntegrityError(f"the certificate of {path[:80]!r} is about another kind of state", next_step=RESTORE)
    if (lossy is None) != (node.certificate is None) or node.by_parts != (lossy is not None and not lossy.exact):
        raise IntegrityError(
            f"what it says of its packed array {path[:80]!r} does not fit the form {node.form!r}", next_step=RESTORE
        )


def _certificate(node: Json) -> Certificate:
    from quantum_memory.compression.certificate import Certificate  # noqa: PLC0415 - few files have one

    return Certificate.from_json(node)


def _node(path: str, node: Json, stored: Mapping[str, Identified]) -> FormNode:
    bad = IntegrityError(f"what it says of its packed array {path[:80]!r} is not well formed", next_step=RESTORE)
    if not isinstance(node, dict) or not _KEYS <= set(node) <= _KEYS | {"certificate", "by_parts", "xxh3"}:
        raise bad
    dtype, shape, facts, parts = node["dtype"], node["shape"], node["facts"], node["parts"]
    if not isinstance(facts, dict) or not isinstance(parts, dict) or dtype not in _TYPES:
        raise bad
    if not isinstance(shape, list) or len(shape) not in {1, 2} or not all(type(n) is int and n >= 0 for n in shape):
        raise bad
    if math.prod(n or 1 for n in shape) * np.dtype(STORABLE[dtype]).itemsize >= 1 << 62:
        raise bad
    if not all(isinstance(part, str) and part == f"{path}~{name}" for name, part in parts.items()):
        raise bad
    tried = node["tried"]
    if not isinstance(tried, dict) or not all(one is None or type(one) is int for one in tried.values()):
        raise bad
    identity = ArrayIdentity(dtype, tuple(shape), bytes.fromhex(node["sha256"]))
    certificate = _certificate(node["certificate"]) if "certificate" in node else None
    checksum = bytes.fromhex(node.get("xxh3", ""))
    made = FormNode(str(node["form"]), identity, facts, parts, certificate, checksum, tried)
    if made.to_json() != node or len(identity.digest) != _DIGEST_BYTES or len(checksum) not in {0, _CHECKSUM_BYTES}:
        raise bad
    _check_kind(made, path)
    if made.by_parts:
        known = {name: stored[part].identity for name, part in parts.items() if part in stored}
        if identity_of_parts(made.form, facts, known) != identity.digest:
            raise IntegrityError(f"the parts of its packed array {path[:80]!r} do not match their SHA-256")
    return made

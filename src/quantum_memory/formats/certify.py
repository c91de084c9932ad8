"""Prove the certificate of a state that was packed with loss once more, against the original where it is at hand."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.compression.certificate import DEFINITION, overlap, scale_of
from quantum_memory.errors import IntegrityError, InvalidStateError
from quantum_memory.formats.form_reader import StoredRow, lossy_arrays
from quantum_memory.formats.prepared import Prepared
from quantum_memory.formats.reader import PACKED
from quantum_memory.formats.registry import OpenOptions, is_sealed, open_reader
from quantum_memory.formats.verify_all import verify
from quantum_memory.state import metrics
from quantum_memory.state.arrays import array_digest
from quantum_memory.state.memory_state import as_memory_state
from quantum_memory.state.quantum_state import DensityMatrix

if TYPE_CHECKING:
    import os

    from quantum_memory.compression.certificate import Certificate
    from quantum_memory.encryption.keys import OneKey
    from quantum_memory.formats.reader import Reader
    from quantum_memory.state.arrays import AnyArray

_LARGEST_MATRIX = 1 << 10
"""Dimension of a density matrix up to which its fidelity is computed again: it takes eigenvalues."""

_ROUNDING = 1e-9
"""What the fidelity of Uhlmann may be off by: it takes square roots of eigenvalues, of which many are zero."""


@dataclass(frozen=True)
class CertificateReport:
    """What was seen of a certificate that holds.

    Attributes
    ----------
    infidelity
        What is certified: 1 - F is at most this; 0 for a file that keeps every bit.
    measured
        1 - F between the original and what the file holds, as computed now; None without the original, or where the
        original is a density matrix too large for it.
    definition
        Of F.
    original_sha256
        Of the array that was packed; None where nothing was lost.
    """

    path: str
    infidelity: float
    measured: float | None
    definition: str
    original_sha256: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a plain dict."""
        return asdict(self)


def verify_certificate(
    path: str | os.PathLike[str],
    original: object = None,
    *,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
) -> CertificateReport:
    """Check a file with its certificate; where the original is at hand, compute the fidelity once more.

    Without the original, every byte of the file is checked (see `verify`), that the state can be unpacked, and that the
    certificate states no more than was asked for.

    Parameters
    ----------
    path
        The file, or an address or a name that `quantum_memory.load` takes.
    original
        What was saved in it: the path of another file, likewise, or anything that `quantum_memory.save` takes.
    allow_pickle, state_id, key
        See `quantum_memory.load`; the key is also that of an original that is encrypted.

    Raises
    ------
    IntegrityError
        The file is damaged, or the state in it is further from the original than is certified.
    InvalidStateError
        `original` is not what was saved.
    MissingFileError, StorageError, UnsafeError, UnsupportedVersionError
    """
    verify(path, allow_pickle=allow_pickle, state_id=state_id, key=key)
    return proved(path, original, allow_pickle=allow_pickle, state_id=state_id, key=key)


def proved(
    path: str | os.PathLike[str],
    original: object,
    *,
    allow_pickle: bool = False,
    state_id: str | None = None,
    key: OneKey | None = None,
) -> CertificateReport:
    """Do what `verify_certificate` does, for a file that has been verified."""
    with closing(open_reader(path, OpenOptions(None, allow_pickle, state_id, key))) as reader:
        lossy = lossy_arrays(reader)
        (where, node), *_ = (*lossy.items(), ("", None))
        if node is None or node.certificate is None:
            return _of_whole(reader, original, allow_pickle, key)
        certificate, measured = node.certificate, None
        if original is not None:
            found = _measured(reader, where, certificate, _array(original, where, allow_pickle, key))
            measured, least = found or (None, 0.0)
            if least > certificate.infidelity:
                raise IntegrityError(
                    f"1 - F is at least {least:.6g}, and it is certified to be at most {certificate.infidelity:.6g}",
                    path=reader.name,
                    next_step="save the original again, and report this with the file",
                )
        return CertificateReport(
            reader.name, certificate.infidelity, measured, certificate.definition, certificate.original
        )


def _of_whole(reader: Reader, original: object, allow_pickle: bool, key: OneKey | None) -> CertificateReport:
    """Report on a file that keeps every bit."""
    where = next((path for path in PACKED if path in reader.entries), None)
    if original is None or where is None:
        return CertificateReport(reader.name, 0.0, None, DEFINITION, None)
    if array_digest(_array(original, where, allow_pickle, key)) != reader.entries[where].identity.digest:
        raise InvalidStateError(
            "it keeps every bit, but of another state than was given", path=reader.name, next_step="give the original"
        )
    return CertificateReport(reader.name, 0.0, 0.0, DEFINITION, None)


def _array(original: Any, where: str, allow_pickle: bool, key: OneKey | None) -> AnyArray:
    """Return the array of the original that stands at a path."""
    if isinstance(original, str) or hasattr(original, "__fspath__"):
        needed = key if is_sealed(original) else None
        with closing(open_reader(original, OpenOptions(None, allow_pickle, key=needed))) as reader:
            if where not in reader.entries:
                raise InvalidStateError(f"it has no array {where!r}", path=reader.name, next_step="give the original")
            return reader.map(where) if reader.is_mapped(where) else reader.read(where)
    arrays = Prepared.plain(as_memory_state(original)).arrays
    if where not in arrays:
        raise InvalidStateError(f"the original has no array {where!r}", next_step="give what was saved")
    return np.ascontiguousarray(arrays[where])


def _measured(reader: Reader, where: str, certificate: Certificate, psi: AnyArray) -> tuple[float, float] | None:
    """Return 1 - F as it is computed now, and what it is at least."""
    if array_digest(psi).hex() != certificate.original:
        raise InvalidStateError(
            "what was given is not the state that was packed into it: its SHA-256 is another one",
            path=reader.name,
            next_step=f"give the one whose array has the SHA-256 {certificate.original[:12]}...",
        )
    if certificate.definition == DEFINITION:
        total = overlap(psi, StoredRow(reader, where), scale_of(psi).shift)
        return total.infidelity(), total.least_infidelity()
    if len(psi) > _LARGEST_MATRIX:
        return None
    before, after = (
        DensityMatrix(matrix / np.trace(matrix), dims=(len(psi),), qubit_order="big")
        for matrix in (psi, reader.read(where))
    )
    measured = max(0.0, 1.0 - metrics.fidelity(before, after))
    return measured, measured - _ROUNDING

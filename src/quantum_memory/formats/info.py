"""What a file says of itself, as a plain dict: read from its table and its document, not from its data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from quantum_memory.formats.reader import PACKED, identities
from quantum_memory.state.arrays import STORABLE
from quantum_memory.state.document import content_id, unflatten, well_formed
from quantum_memory.state.emotional_state import EmotionalContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantum_memory.formats.reader import Entry, Reader
    from quantum_memory.state.document import ArrayIdentity


_EMOTION = ("pad", "scale", "standard_error", "stability", "confidence")


def of_reader(reader: Reader) -> dict[str, Any]:
    """Describe an open file.

    Raises
    ------
    IntegrityError
        What it says of itself is not what a release of this package would have written.
    """
    with well_formed(reader.name):
        return _of_reader(reader)


def _of_reader(reader: Reader) -> dict[str, Any]:
    sections = [
        {
            "section": path.partition("/")[0],
            "path": path,
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "raw_bytes": entry.nbytes,
            **reader.facts(path),
            "sha256": entry.identity.digest.hex(),
        }
        for path, entry in sorted(reader.entries.items(), key=_order)
    ]
    described = _describe(reader.document, identities(reader), reader.record, sections)
    if not any("stored_bytes" in section for section in sections):  # it is packed as a whole
        described["compression"]["stored_bytes"] = reader.size
        described["compression"] |= _ratio(described["compression"]["raw_bytes"], reader.size)
    file = {"path": reader.name, "format": reader.format, "version": reader.version, "bytes": reader.size}
    if (address := getattr(getattr(reader, "inner", reader), "address", None)) is not None:
        file["address"] = address
    return file | described | ({"notes": reader.notes} if reader.notes else {})


def _order(item: tuple[str, Entry]) -> tuple[bool, bool, str]:
    """Sort the arrays of the quantum state before the classical ones, and those before the others."""
    path = item[0]
    return not path.startswith("quantum/"), not path.startswith("classical/"), path


def _describe(
    document: Mapping[str, Any],
    named: Mapping[str, ArrayIdentity],
    record: Mapping[str, Any],
    sections: list[dict[str, Any]],
) -> dict[str, Any]:
    raw = sum(section["raw_bytes"] for section in sections)
    stored = sum(section.get("stored_bytes", 0) for section in sections)
    quantum = {section["path"]: section for section in sections if section["path"].startswith("quantum/")}
    return {
        "content_id": content_id(document, named),
        "quantum": _quantum(document, quantum, record),
        "emotion": _emotion(document, sections),
        "parts": sorted(document),
        "metadata": document.get("metadata", {}),
        "record": dict(record),
        "compression": {
            "codecs": sorted({codec for section in sections for codec in section.get("codecs", ())}),
            "raw_bytes": raw,
            "stored_bytes": stored,
            **_ratio(raw, stored),
            **_representation(sections),
        },
        "sections": sections,
    }


def _representation(sections: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how the state vector or density matrix is written down, and how faithfully."""
    section = next((one for one in sections if one["path"] in PACKED), None)
    if section is None:
        return {}
    facts = {"representation": section.get("form", "dense")}
    reals = section["raw_bytes"] // np.zeros(0, STORABLE[section["dtype"]]).real.itemsize
    if "stored_bytes" in section and reals:
        facts["bits_per_real"] = round(8 * section["stored_bytes"] / reals, 6)
    if (certificate := section.get("certificate")) is not None:
        facts["certificate"] = certificate
        # Of a general state; one with structure needs less.
        facts["shannon_bits_per_real"] = round(0.5 * math.log2(1 / max(certificate["infidelity"], 1e-300)), 6)
    if "tried" in section:
        facts["tried"] = section["tried"]
    return facts


def _quantum(
    document: Mapping[str, Any], sections: Mapping[str, dict[str, Any]], record: Mapping[str, Any]
) -> dict[str, Any] | None:
    state = document.get("quantum_data", {}).get("$state")
    if state is None:
        return None
    described = {"kind": state["kind"], "dtype": next(iter(sections.values()))["dtype"]}
    if state["kind"] == "matrix_product_state":
        shapes = [sections[site["$array"]]["shape"] for site in state["sites"]]
        dims = [shape[1] for shape in shapes]
        described["bond_dims"] = [shape[2] for shape in shapes[:-1]]
        described |= {
            key: state[key] for key in ("canonical_form", "orthogonality_center", "log_scale") if key in state
        }
    else:
        dims = state["dims"]
        described |= {"qubit_order": state["qubit_order"]} if "qubit_order" in state else {}
    described["n_sites"] = len(dims)
    described["dims"] = dims if set(dims) != {2} else "qubits"
    if "labels" in state:
        described["labels"] = state["labels"]
    if "norm" in record:
        described["norm"] = record["norm"]
    return described


def _emotion(document: Mapping[str, Any], sections: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the plain values of the emotional context, without its arrays."""
    node = document.get("emotional_context")
    if node is None:
        return None
    shapes = {section["path"]: section["shape"] for section in sections}
    context = EmotionalContext.from_tree({key: unflatten(node[key], {}) for key in _EMOTION if key in node})
    trajectory = node.get("trajectory")
    return {
        **{key: getattr(context, key) for key in _EMOTION},
        "pad": None if context.pad is None else list(context.pad),
        "scale": context.scale.value,
        "recent_emotions": len(node.get("recent_emotions", ())),
        "trajectory_points": None if trajectory is None else shapes[trajectory["pad"]["$array"]][0],
    }


def _ratio(raw: int, stored: int) -> dict[str, float | None]:
    if not raw or not stored:
        return {"ratio": None, "saving_percent": None}
    return {"ratio": round(raw / stored, 6), "saving_percent": round(100 * (1 - stored / raw), 4)}

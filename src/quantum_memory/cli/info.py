"""``qmem info``: what a file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.failures import each_file
from quantum_memory.cli.keys import opening
from quantum_memory.cli.options import reading_options
from quantum_memory.cli.output import column_table, console, fact_sheet, natural, plain, short, size_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ROWS = 20
_METADATA = 12


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--all", "everything", is_flag=True, help=f"Show every array and all metadata, not the first {_ROWS}.")
@click.option("--full", is_flag=True, help="Show all 64 digits of every digest.")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(files: tuple[str, ...], *, everything: bool, full: bool, as_json: bool, **reading: Any) -> int:
    """Say what files hold, from their tables alone.

    A .qms or .h5 file of any size answers at once: its data are neither read nor checked (qmem verify does).

    A FILE may also be an address, s3://bucket/run@tag or icechunk+file:///folder@tag, or end with the name of a
    checkpoint or a state: run@tag, store.h5@state.

    With --json: path, format, version, bytes, content_id, quantum (kind, dtype, n_sites, dims, qubit_order or
    bond_dims, norm, or null), emotion (pad, scale, standard_error, stability, confidence, recent_emotions,
    trajectory_points, or null), parts, metadata, record, compression, and sections with the sha256 of each array; of
    an encrypted file also encrypted (cipher, keys: how many open it), of a version address (which always means it).
    Of a store with several states: path, format, version, bytes, states and time_series.
    Several files: {"files": [...]}. A failure: {"error": {"type", "message", "path", "next_step", "exit_code"}}.
    """
    out = console()

    def show(facts: dict[str, Any]) -> None:
        out.print(plain(facts["path"]), style="bold", overflow="fold")
        if "states" in facts:
            _show_store(out, facts, everything=everything, full=full)
            return
        out.print(_summary(facts, everything=everything, full=full))
        out.print(_arrays(facts["sections"], everything=everything, full=full))
        if not everything and len(facts["sections"]) > _ROWS:
            out.print(f"  ... and {len(facts['sections']) - _ROWS} more (--all)\n", style="dim")

    def look(path: str) -> dict[str, Any]:
        import quantum_memory as qm

        return qm.info(path, **opening(path, reading))

    return each_file(files, look, show, as_json=as_json)


def _show_store(out: Console, facts: dict[str, Any], *, everything: bool, full: bool) -> None:
    """Show what a store lists, the newest first."""
    states, series = facts["states"], facts["time_series"]
    sheet = fact_sheet()
    sheet.add_row("file", f"{facts['format']}, version {plain(facts['version'])}, {size_text(facts['bytes'])}")
    sheet.add_row("holds", f"{len(states)} states, {len(series)} time series")
    out.print(sheet)
    if states:
        table = column_table("state", "saved", "kind", "sites", "raw", "content id", right=("sites", "raw"))
        for state in states if everything else states[:_ROWS]:
            kind, saved = state.get("kind"), state.get("created")
            table.add_row(
                plain(state["id"]),
                "" if saved is None else saved[:19].replace("T", " "),
                "" if kind is None else kind.replace("_", " "),
                str(state.get("sites", "")),
                size_text(state["raw_bytes"]) if "raw_bytes" in state else "",
                short(state["content_id"], full=full) if "content_id" in state else "",
            )
        out.print(table)
        if not everything and len(states) > _ROWS:
            out.print(f"  ... and {len(states) - _ROWS} more (--all)\n", style="dim")
    if series:
        table = column_table("time series", "kind", "samples", right=("samples",))
        for one in series if everything else series[:_ROWS]:
            table.add_row(plain(one["name"]), plain(one["kind"]), f"{one['samples']:,}")
        out.print(table)


def _summary(facts: dict[str, Any], *, everything: bool, full: bool) -> Table:
    sheet = fact_sheet()
    address, saved = facts.get("address"), facts["record"].get("checkpoint")
    what = "file" if address is None and facts["format"] != "checkpoint" else "format"
    sheet.add_row(what, f"{facts['format']}, version {plain(facts['version'])}, {size_text(facts['bytes'])}")
    if address is not None:
        sheet.add_row("address", plain(address))
    if isinstance(saved, dict):
        sheet.add_row("checkpoint", _cut(plain(f"{saved.get('id')}, progress {saved.get('progress')}")))
    if (sealed := facts.get("encrypted")) is not None:
        sheet.add_row("encrypted", f"{sealed['cipher']}, opened by {sealed['keys']} key{'s' * (sealed['keys'] > 1)}")
    if facts["quantum"] is not None:
        for label, value in _quantum(facts["quantum"]):
            sheet.add_row(label, plain(value))
    if facts["emotion"] is not None:
        sheet.add_row("emotion", plain(_emotion_text(facts["emotion"])))
    compression = facts["compression"]
    stored = f"{size_text(compression['raw_bytes'])} of data in {size_text(compression['stored_bytes'])}"
    ratio = "" if compression["ratio"] is None else f", ratio {compression['ratio']:.3g}"
    codecs = f", {plain(', '.join(compression['codecs']))}" if set(compression["codecs"]) - {"none"} else ""
    sheet.add_row("stored", f"{stored}{ratio}{codecs}")
    for label, value in representation_rows(compression):
        sheet.add_row(label, plain(value))
    sheet.add_row("content id", short(facts["content_id"], full=full))
    metadata = list(facts["metadata"].items())
    for position, (key, value) in enumerate(metadata if everything else metadata[:_METADATA]):
        text = plain(value)
        sheet.add_row("metadata" if position == 0 else "", f"{plain(key)} = {text if everything else _cut(text)}")
    if len(metadata) > _METADATA and not everything:
        sheet.add_row("", f"... and {len(metadata) - _METADATA} more (--all)")
    if "writer" in facts["record"]:
        sheet.add_row("written by", plain(facts["record"]["writer"]))
    for note in facts.get("notes", ()):
        sheet.add_row("note", plain(note))
    return sheet


def representation_rows(compression: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is to be said of a state that is in a form."""
    if compression.get("representation", "dense") == "dense":
        return []
    bits = compression.get("bits_per_real")
    shannon = compression.get("shannon_bits_per_real")
    each = "" if bits is None else f", {bits:.4g} bits per real"
    bound = "" if shannon is None else f" (a general state needs {shannon:.4g} for this)"
    rows = [("form", f"{compression['representation']}{each}{bound}")]
    if (certificate := compression.get("certificate")) is not None:
        rows.append(("certified", f"1 - F <= {certificate['infidelity']:.6g}, {certificate['definition']}"))
        rows.append(
            ("observables", f"of the normalised state wrong by at most {certificate['observable_error']:.3g} |O|")
        )
    return rows


def _quantum(state: dict[str, Any]) -> list[tuple[str, object]]:
    kind = str(state["kind"]).replace("_", " ")
    if state["dims"] == "qubits":
        sites = f"{state['n_sites']} qubits"
    else:
        many = "sites of dimensions" if state["n_sites"] > 1 else "site of dimension"
        sites = f"{state['n_sites']} {many} {_cut(', '.join(map(str, state['dims'])))}"
    rows: list[tuple[str, object]] = [("state", f"{kind} of {sites}, {_dtype(state['dtype'])}")]
    if "qubit_order" in state:
        meaning = {"big": "qubit 0 is the most significant", "little": "qubit 0 is the least significant"}
        order = state["qubit_order"]
        rows.append(("qubit order", f"{order} ({meaning[order]})" if order in meaning else order))
    if state.get("bond_dims"):
        bonds = state["bond_dims"]
        form = state.get("canonical_form")
        center = (
            "" if state.get("orthogonality_center") is None else f", center at site {state['orthogonality_center']}"
        )
        canonical = "" if form is None else f", {form} canonical{center}"
        rows.append(("bonds", f"{len(bonds)}, the largest of dimension {max(bonds)}{canonical}"))
    if "norm" in state:
        rows.append(("norm", state["norm"]))
    if "labels" in state:
        rows.append(("labels", _cut(", ".join(map(str, state["labels"])))))
    return rows


def _emotion_text(emotion: dict[str, Any]) -> str:
    parts = []
    if emotion["pad"] is not None:
        parts.append("P {:+.3f}  A {:+.3f}  D {:+.3f}".format(*emotion["pad"]))
    parts.append(f"given on the {emotion['scale']} scale")
    parts += [f"{name} {emotion[name]:.3g}" for name in ("stability", "confidence") if emotion[name] is not None]
    if emotion["recent_emotions"]:
        parts.append(f"{emotion['recent_emotions']} recent")
    if emotion["trajectory_points"] is not None:
        parts.append(f"trajectory of {emotion['trajectory_points']} points")
    return "; ".join(parts)


def _arrays(sections: list[dict[str, Any]], *, everything: bool, full: bool) -> Table:
    table = column_table("array", "type", "shape", "raw", "stored", "as", "sha256", right=("raw", "stored"))
    ordered = sorted(sections, key=lambda section: natural(section["path"]))
    for section in ordered if everything else ordered[:_ROWS]:
        table.add_row(
            plain(section["path"]),
            _dtype(section["dtype"]),
            " × ".join(map(str, section["shape"])) or "scalar",
            size_text(section["raw_bytes"]),
            size_text(section["stored_bytes"]) if "stored_bytes" in section else "",
            section.get("form") or ", ".join(section.get("codecs", ())),
            short(section["sha256"], full=full),
        )
    return table


def _dtype(name: str) -> str:
    import numpy as np

    from quantum_memory.state.arrays import STORABLE

    return np.dtype(STORABLE[name]).name


def _cut(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."

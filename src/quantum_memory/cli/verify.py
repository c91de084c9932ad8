"""``qmem verify``: whether files are whole."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.failures import each_file, sentence
from quantum_memory.cli.keys import opening
from quantum_memory.cli.options import reading_options
from quantum_memory.cli.output import (
    console,
    fact_sheet,
    last_part,
    plain,
    progress,
    raw_bytes,
    short,
    size_text,
    speed_text,
)
from quantum_memory.errors import IntegrityError, MissingError, UnsafeError, UnsupportedVersionError, WrongKeyError

if TYPE_CHECKING:
    from quantum_memory.formats.verify import Depth

_VERDICTS = {
    IntegrityError: "DAMAGED",
    UnsupportedVersionError: "UNSUPPORTED",
    MissingError: "MISSING",
    UnsafeError: "REFUSED",
    WrongKeyError: "LOCKED",
}
_WORTH_A_SPEED = 1 << 20


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--depth",
    type=click.Choice(["bytes", "full"]),
    default="full",
    show_default=True,
    help="bytes: compare stored bytes with their checksums, and look at nothing else.",
)
@click.option("--certificate", is_flag=True, help="Check the certificate of what was packed with loss, too.")
@click.option("--original", metavar="FILE", help="What was packed: the fidelity is computed once more.")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(
    files: tuple[str, ...], *, depth: Depth, certificate: bool, original: str | None, as_json: bool, **reading: Any
) -> int:
    """Check every byte of files.

    Every chunk is read and compared with its checksum and its SHA-256; a few MiB of memory are enough. A file that is
    whole but holds an odd state (not finite, a norm other than 1) is OK, with a warning.

    With --depth bytes nothing is decoded: it finds whatever has become of a file since it was written, in a twentieth
    of the time where files are small, and neither odd states nor content ids. Of stores (.h5), addresses, checkpoints
    and files of the first implementation the check is full all the same.

    A FILE may also be an address, s3://bucket/run@tag or icechunk+file:///folder@tag, or end with the name of a
    checkpoint or a state: run@tag, store.h5@state.

    With --json: path, ok, format, bytes, content_id, arrays, chunks (these three null: only bytes were looked at),
    problems, depth, raw_bytes (null: not known), seconds, and with --certificate or --original: certificate
    (infidelity, measured or null, definition, original_sha256). Several files: {"files": [...]}. A failure: {"error":
    {"type", "message", "path", "next_step", "exit_code"}}.
    """
    out = console()

    def line(verdict: str, style: str, text: str) -> None:
        sheet = fact_sheet()
        sheet.columns[0].style, sheet.columns[0].min_width = style, max(map(len, _VERDICTS.values()))
        sheet.add_row(verdict, text)
        out.print(sheet)

    def show(facts: dict[str, Any]) -> None:
        raw = facts["raw_bytes"] or facts["bytes"]
        is_full = facts["depth"] == "full"
        checked = f"{size_text(facts['bytes'])} checked"
        chunks = f", {_counted(facts)}" if is_full else ", only the bytes"
        speed = f", {size_text(raw)} of data at {speed_text(raw, facts['seconds'])}" if raw > _WORTH_A_SPEED else ""
        name = f", content id {short(facts['content_id'])}" if is_full else ""
        line("OK", "green", f"{plain(facts['path'])}: {checked}{chunks}{speed}{name}")
        if (proof := facts.get("certificate")) is not None:
            line("", "", _proof_text(proof))
        for problem in facts["problems"]:
            line("", "", f"warning: {plain(problem)}")

    def fail(error: Exception) -> None:
        verdict = next((word for kind, word in _VERDICTS.items() if isinstance(error, kind)), "FAILED")
        line(verdict, "bold red", sentence(error))

    look = partial(_look, depth=depth, certificate=certificate or original is not None, original=original, **reading)
    return each_file(files, look, show, as_json=as_json, fail=fail)


def _counted(facts: dict[str, Any]) -> str:
    """Return how many chunks were checked, and of several files or addresses how many these are."""
    number = facts["chunks"]
    one, more = ("memory", "memories") if facts["format"] == "several" else ("chunk", "chunks")
    return f"{number} {one if number == 1 else more}"


def _proof_text(proof: dict[str, Any]) -> str:
    if proof["original_sha256"] is None:
        return "every bit is kept" + ("" if proof["measured"] is None else ", and they are those of the original")
    measured = "the original is not at hand" if proof["measured"] is None else f"measured {proof['measured']:.6g}"
    return f"certified 1 - F <= {proof['infidelity']:.6g}, {measured}"


def _look(path: str, *, depth: Depth, certificate: bool, original: str | None, **options: Any) -> dict[str, Any]:
    import quantum_memory as qm
    from quantum_memory.formats.certify import proved

    options = opening(path, options)
    is_file = os.path.isfile(path)  # noqa: PTH113 - as it is given
    total = raw_bytes(path, **options) if depth == "full" else None
    work = os.path.getsize(path) if depth == "bytes" and is_file else total  # noqa: PTH202
    start = time.perf_counter()
    with progress(f"verify {last_part(path)}", work) as advance:
        report = qm.verify(path, progress=advance, depth=depth, **options)
    seconds = round(time.perf_counter() - start, 6)
    facts = {"ok": True, **report.to_dict(), "raw_bytes": total, "seconds": seconds}
    if not certificate:
        return facts
    how = {name: options[name] for name in ("allow_pickle", "state_id", "key")}
    return facts | {"certificate": proved(path, original, **how).to_dict()}

"""``qmem compress``: a smaller form of a memory, without loss or as faithful as is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantum_memory.cli.failures import each_file
from quantum_memory.cli.info import representation_rows
from quantum_memory.cli.keys import opening
from quantum_memory.cli.options import source_options
from quantum_memory.cli.output import bars, column_table, console, fact_sheet, last_part, plain, raw_bytes, size_text

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--fidelity", type=float, metavar="F", help="Keep at least this fidelity; by default every bit.")
@click.option("--max-file-bytes", type=click.IntRange(min=0), metavar="N", help="Keep what fits into N bytes.")
@click.option("--effort", type=click.Choice(["fast", "balanced", "max"]), default="max", show_default=True)
@click.option("--output", "-o", metavar="PATH", help="Write here: a file, an address, or for several FILEs a folder.")
@click.option("--overwrite", is_flag=True, help="Replace what is there, or an original by a form with loss.")
@click.option("--report", is_flag=True, help="Say what was tried, and what is certified.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compress(
    files: tuple[str, ...],
    *,
    fidelity: float | None,
    max_file_bytes: int | None,
    effort: str,
    output: str | None,
    overwrite: bool,
    report: bool,
    as_json: bool,
    **reading: Any,
) -> int:
    """Look for a smaller form of saved states.

    Without --fidelity and --max-file-bytes every bit is kept, the content id stays, and the file is replaced where the
    new one is smaller. With loss the original is kept unless --overwrite is given: name another file with --output. The
    fidelity is computed from what the new file holds, and written into it. What is encrypted stays so.

    A FILE may also be an address, s3://bucket/run@tag or icechunk+file:///folder@tag, or end with the name of a
    checkpoint or a state: run@tag, store.h5@state. These stay, and --output says where the smaller form goes: to a
    file, or as a new version to an address.

    With --json: path, bytes_before, bytes_after, content_id, compression (as qmem info has it), notes. Several files:
    {"files": [...]}. A failure: {"error": {"type", "message", "path", "next_step", "exit_code"}}.
    """
    out = console()
    targets = _targets(files, output)

    def look(path: str) -> dict[str, Any]:
        import quantum_memory as qm
        from quantum_memory.formats.convert import recompress

        options = opening(path, reading)
        raw = raw_bytes(path, **options)
        labels = (f"compress {last_part(path)}", f"check {last_part(path)}")
        with bars({labels[0]: raw and 2 * raw, labels[1]: raw}) as (packing, checking):
            done = recompress(
                path,
                targets[path],
                fidelity=fidelity,
                max_bytes=max_file_bytes,
                effort=effort,
                overwrite=overwrite,
                progress=packing,
                check_progress=checking,
                **options,
            )
        facts = qm.info(done.path, allow_pickle=True, key=options["key"])
        return {
            "path": done.path,
            "bytes_before": done.source_bytes,
            "bytes_after": done.bytes,
            "content_id": done.content_id,
            "compression": facts["compression"],
            "notes": done.notes,
        }

    def show(facts: dict[str, Any]) -> None:
        before, after = facts["bytes_before"], facts["bytes_after"]
        if not (before and after):  # of arrays that are zero, or none, nothing is stored at an address
            out.print(f"{plain(facts['path'])}: {size_text(before)} to {size_text(after)}", soft_wrap=True)
        elif after == before:
            out.print(f"{plain(facts['path'])}: {size_text(before)}, and nothing smaller was found", soft_wrap=True)
        else:
            saved = f"{100 * (1 - after / before):.3g} % saved, ratio {before / after:.4g}"
            out.print(f"{plain(facts['path'])}: {size_text(before)} to {size_text(after)}, {saved}", soft_wrap=True)
        if report:
            _report(out, facts["compression"])
        for note in facts["notes"]:
            out.print(f"  note: {plain(note)}", soft_wrap=True)

    return each_file(files, look, show, as_json=as_json)


def _targets(files: tuple[str, ...], output: str | None) -> dict[str, str | None]:
    """Return where each file goes; None for in place."""
    from quantum_memory.formats.urls import is_url, local_path

    if output is None:
        return dict.fromkeys(files)
    if not is_url(output) and (folder := Path(local_path(output))).is_dir():
        targets = {path: str(folder / _file_name(path)) for path in files}
        if len(set(targets.values())) < len(files):
            raise click.UsageError("two of the files have the same name, and would be written to the same one")
        return dict(targets)
    if len(files) > 1:
        raise click.UsageError("--output must be a folder that exists where there are several files")
    return {files[0]: output}


def _file_name(path: str) -> str:
    """Return what a file is called that is written of another one; of what has no suffix, it is a .qms file."""
    from quantum_memory.formats.names import named_in
    from quantum_memory.formats.urls import is_url, local_path

    named = is_url(path) or named_in(local_path(path)) is not None
    return f"{last_part(path)}.qms" if named else last_part(str(local_path(path)))


def _report(out: Console, compression: dict[str, Any]) -> None:
    sheet = fact_sheet()
    for label, value in representation_rows(compression) or [("form", "as it is")]:
        sheet.add_row(label, plain(value))
    out.print(sheet)
    if compression.get("tried"):
        table = column_table("tried", "bytes", right=("bytes",))
        for name, size in sorted(compression["tried"].items(), key=lambda item: (item[1] is None, item[1] or 0)):
            table.add_row(plain(name), "does not apply" if size is None else f"{size:,}")
        out.print(table)

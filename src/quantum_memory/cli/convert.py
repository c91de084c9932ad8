"""``qmem convert``: a memory in another format."""

from __future__ import annotations

from typing import Any

import click

from quantum_memory.cli.keys import opening, opening_either, sealing
from quantum_memory.cli.options import reading_options
from quantum_memory.cli.output import bars, console, last_part, plain, print_json, raw_bytes, short, size_text
from quantum_memory.cli.workers import workers


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--compression", default="auto", metavar="NAME", help="How to pack it; by default what pays.")
@click.option("--overwrite", is_flag=True, help="Replace TARGET where it exists.")
@click.option("--encrypt", is_flag=True, help="Encrypt TARGET, with the key that is given.")
@click.option("--encrypt-for", multiple=True, metavar="FILE", help="Encrypt TARGET with this key file, or several.")
@click.option("--decrypt", is_flag=True, help="Write TARGET as it is, though SOURCE is encrypted.")
@click.option("--fidelity", type=float, metavar="F", help="Pack the state with loss, keeping at least this fidelity.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, metavar="N", help="Write an address with N processes.")
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert(
    source: str,
    target: str,
    *,
    compression: str,
    overwrite: bool,
    encrypt: bool,
    encrypt_for: tuple[str, ...],
    decrypt: bool,
    fidelity: float | None,
    jobs: int,
    as_json: bool,
    **reading: Any,
) -> int:
    """Write a memory in another format, and check it.

    The suffix of TARGET says the format. What was written is checked byte by byte and gets its name only when its
    content is that of SOURCE, which is never changed. What is encrypted stays so, and opens with the same keys, unless
    one of --encrypt, --encrypt-for and --decrypt says otherwise.

    Both may be addresses, s3://bucket/run@tag or icechunk+file:///folder@tag: TARGET becomes a new version there, and
    with --overwrite what was the newest stays as an older one. SOURCE may also end with the name of a checkpoint or a
    state: run@tag, store.h5@state.

    With --jobs a state vector that goes to an address is copied, and checked, by several processes, each of which reads
    SOURCE by itself. With --fidelity TARGET holds a certificate of how much was lost at most; see qmem compress.

    With --json: source, source_format, source_bytes, path, format, bytes, content_id, notes. A failure: {"error":
    {"type", "message", "path", "next_step", "exit_code"}}.
    """
    import quantum_memory as qm

    options = opening_either(source, reading) if encrypt else opening(source, reading)
    keys = [*([sealing(reading)] if encrypt else []), *map(qm.Key.from_file, encrypt_for)]
    raw = raw_bytes(source, **options)
    # Reading and writing are two passes over the data.
    titles = {f"convert {last_part(source)}": raw and 2 * raw, f"check {last_part(target)}": raw}
    with workers(jobs) as executor, bars(titles) as (converting, checking):
        done = qm.convert(
            source,
            target,
            compression=compression,
            overwrite=overwrite,
            progress=converting,
            check_progress=checking,
            encrypt=keys or None,
            decrypt=decrypt,
            fidelity=fidelity,
            executor=executor,
            **options,
        )
    if as_json:
        print_json(done.to_dict())
        return 0
    out = console()
    sizes = f"{size_text(done.source_bytes)} {done.source_format} to {size_text(done.bytes)} {done.format}"
    ratio = f", ratio {done.source_bytes / done.bytes:.3g}" if done.bytes else ""
    what = "same content" if fidelity in {None, 1} else "content"
    out.print(f"{plain(done.path)}: {sizes}{ratio}, {what} (id {short(done.content_id)})", soft_wrap=True)
    for note in done.notes:
        out.print(f"  note: {plain(note)}", soft_wrap=True)
    return 0

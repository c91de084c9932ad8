# ruff: noqa: E501 - one case on one line, as in a table
"""Folders of checkpoints and backups that somebody else has made, backups in a file, plans of migrations, and keys."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantum_memory.durability import pack
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.lifecycle.backups import export_file
from quantum_memory.lifecycle.backups import manifest as backups
from quantum_memory.lifecycle.backups.manifest import Entry
from quantum_memory.lifecycle.checkpoints import manifest as checkpoints
from quantum_memory.lifecycle.repository.signed_json import signed
from quantum_memory.state.document import content_id

from .case import DAMAGED, LATER, READ, UNSAFE, Case

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parents[1] / "golden"
FIRST, SECOND = "20260131_123015_250000_000001", "20260131_123015_250000_000002"
LAST, NEWEST = f"checkpoints/{SECOND}.qmcp", f"backups/{SECOND}.qmbk"
DISTRUSTED = "InvalidStateError"


# ---- folders


def copied(kind: str, change: Callable[[Path], object], name: str = "") -> Callable[[Path], None]:
    """Return what makes a golden folder at a path, or under a name in it, and changes it."""

    def make(path: Path) -> None:
        shutil.copytree(GOLDEN / kind / "v1", path / name, symlinks=True)
        change(path / name)

    return make


def packed(chunks: list[tuple[bytes, bytes, int, int]], signature: bytes = pack.SIGNATURE) -> bytes:
    """Return a pack of chunks, each a name, what is stored, its codec and its raw length."""
    made, places = bytearray(pack.header(signature)), {}
    for name, stored, codec, raw in chunks:
        made += bytes(-len(made) % 64)
        places[name] = pack.Place(len(made), len(stored), pack.checksum(stored), codec, raw)
        made += stored
    made += bytes(-len(made) % 64)
    listed = pack.index(places)
    return bytes(made) + listed + pack.trailer(listed, len(made))


def put_pack(chunks: list[tuple[bytes, bytes, int, int]]) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        for old in (path / "chunks").iterdir():
            old.unlink()
        (path / "chunks" / f"{1:032x}.qmpack").write_bytes(packed(chunks))

    return change


def saved(change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """Return what replaces the newest checkpoint of a folder by another one."""

    def write(path: Path) -> None:
        at = path / "checkpoints" / f"{SECOND}.qmcp"
        made = checkpoints.read_manifest(ReadableBytes(at.read_bytes()))
        at.write_bytes(checkpoints.written(change(made)))

    return write


def said(**facts: Any) -> Callable[[Path], object]:
    return saved(lambda made: replace(made, checkpoint=replace(made.checkpoint, **facts)))


def elsewhere(made: Any) -> Any:
    """Name chunks that no pack has, and the content for them."""
    arrays = {path: replace(one, chunks=bytes(range(len(one.chunks)))) for path, one in made.arrays.items()}
    name = content_id(made.document, {path: one.identity for path, one in arrays.items()})
    return replace(made, arrays=arrays, checkpoint=replace(made.checkpoint, content_id=name))


def with_bombs(path: Path) -> None:
    """Put zeros, packed, in the place of each chunk, which say that they are as long as it is."""
    made = checkpoints.read_manifest(ReadableBytes((path / LAST).read_bytes()))
    lengths = {one.chunk(0): one.nbytes for one in made.arrays.values() if one.nbytes}
    zeros = zlib.compress(bytes(256 << 20), 9)
    put_pack([(name, zeros, 1, length) for name, length in lengths.items()])(path)


def put(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(data)


def link(name: str, target: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        (path / name).unlink()
        (path / name).symlink_to(target)

    return change


def folder(name: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        (path / name).unlink()
        (path / name).mkdir()

    return change


def pipe(name: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        (path / name).unlink()
        os.mkfifo(path / name)

    return change


def checkpoint(title: str, naive: str, error: str, change: Callable[[Path], object]) -> Case:
    return Case(
        f"checkpoints: {title}", naive, error, copied("checkpoints", change), "run", "checkpoints", at_path=True
    )


def backup(title: str, naive: str, error: str, change: Callable[[Path], object]) -> Case:
    return Case(
        f"backups: {title}", naive, error, copied("backups", change, "kept"), "backups", "backups", at_path=True
    )


def restored(*entries: Entry, **facts: Any) -> Callable[[Path], object]:
    """Return what replaces the newest backup of a folder by one of these entries."""

    def write(path: Path) -> None:
        at = path / NEWEST
        made = backups.read_manifest(ReadableBytes(at.read_bytes()), SECOND)
        listed = entries or made.entries
        at.write_bytes(backups.written(replace(made, backup=replace(made.backup, **facts), entries=listed)))

    return write


NOISE = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(100))
CHUNK = hashlib.sha256(NOISE).digest()
TOP = Entry("", backups.FOLDER, 0o755, 5)


def entry(path: str, **facts: Any) -> Entry:
    return Entry(path, backups.FILE, 0o644, 5, **{"size": len(NOISE), "chunks": CHUNK} | facts)


def to(path: str, target: str) -> Entry:
    return Entry(path, backups.LINK, 0o777, 5, target=target)


# ---- backups in one file


def exported(change: Callable[[dict[str, Any]], Any] = dict, *entries: Entry, **facts: Any) -> bytes:
    """Return backups in one file, of which something is a lie."""
    made = backups.read_manifest(ReadableBytes((GOLDEN / "backups/v1" / NEWEST).read_bytes()), SECOND)
    listed = entries or (TOP, entry("f"))
    files = [one for one in listed if one.type == backups.FILE]
    counted = {"files": len(files), "raw_bytes": sum(one.size for one in files), "problems": 0}
    manifest = backups.written(replace(made, backup=replace(made.backup, **counted | facts), entries=listed))
    name = export_file.piece_name(manifest)
    contents = {
        "created_at": "", "writer": "", "config": None, "backups": [[SECOND, [name.hex()]]], "tags": {}, "pins": [],
    }  # fmt: skip
    text = change(contents)
    text = text if isinstance(text, bytes) else signed(text)
    chunks = [(CHUNK, NOISE), (name, manifest), (export_file.CONTENTS, text)]
    return packed([(name, data, 0, len(data)) for name, data in chunks], export_file.SIGNATURE)


def nothing_exported() -> bytes:
    """Return a file that says that it has no backups, and has nothing else."""
    text = signed({"created_at": "", "writer": "", "config": None, "backups": [], "tags": {}, "pins": []})
    return packed([(export_file.CONTENTS, text, 0, len(text))], export_file.SIGNATURE)


def export(title: str, naive: str, error: str, build: Callable[[], bytes]) -> Case:
    return Case(f"exported: {title}", naive, error, build, "qmb", "export")


# ---- plans


def plan(
    *lines: dict[str, Any], root: str = "/nowhere", edited: Callable[[bytes], bytes] = bytes, **totals: Any
) -> bytes:
    """Return a plan whose SHA-256 is right, before it is edited."""
    head = {"format": "quantum-memory migration plan", "version": "1.0", "root": root, "created": "", "release": "0"}
    text = b"".join(
        json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in ({**head, "allow_pickle": False}, *lines)
    )
    counts = {what: sum(line.get("action") == what for line in lines) for what in ("migrate", "leave", "damaged")}
    last = {**counts, "others": 0, "source_bytes": 0, "needed_bytes": 0, "free_bytes": 0, **totals}
    digest = hashlib.sha256(text + json.dumps(last, separators=(",", ":")).encode()).hexdigest()
    return edited(text + json.dumps({"id": digest, **last}, separators=(",", ":")).encode() + b"\n")


def left(path: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "action": "leave", "reason": "it is of today"} | more


def moved(path: str, **more: Any) -> dict[str, Any]:
    source = {"sha256": "0" * 64, "bytes": 5, "mtime_ns": 5}
    return {"path": path, "action": "migrate", "kind": "json", "source": source, "target": "json"} | more


def a_plan(title: str, naive: str, error: str, build: Callable[[], bytes]) -> Case:
    return Case(f"a plan: {title}", naive, error, build, "plan", "plan")


FOLDERS: list[Case] = [
    checkpoint("chunks that no pack has", "looks for them without end", "MissingError", put_pack([])),
    checkpoint("chunks of other names", "looks for them without end", "MissingError", saved(elsewhere)),
    checkpoint("chunks that are bombs", "decodes 256 MiB", DAMAGED, with_bombs),
    checkpoint("a parent that is itself", "walks in circles", READ, said(parent=SECOND)),
    checkpoint("parents in a circle", "walks in circles", READ, lambda path: [said(parent=FIRST)(path), first_of(path, parent=SECOND)]),
    checkpoint("an id that leads out", "writes there", DAMAGED, said(id="../../evil")),
    checkpoint("the id of another", "gives the one for the other", DAMAGED, said(id=FIRST)),
    checkpoint("a number of 2**62", "overflows", READ, said(number=1 << 62)),
    checkpoint("a manifest that is a link", "reads another file", DAMAGED, link(LAST, "/etc/passwd")),
    checkpoint("a manifest that is a pipe", "waits for somebody to write", UNSAFE, pipe(LAST)),
    checkpoint("a manifest that is a folder", "crashes", UNSAFE, folder(LAST)),
    checkpoint("a lock that is a folder", "crashes", UNSAFE, folder("lock")),
    checkpoint("a lock that is a link", "writes into another file", UNSAFE, link("lock", "../canary")),
    checkpoint("a lock that is a pipe", "waits for ever", UNSAFE, pipe("lock")),
    checkpoint("tags that are a bomb of [", "overflows the C stack", READ, put("refs.json", b"[" * 100_000)),
    checkpoint("a tag of no checkpoint", "crashes where it is used", READ, put("refs.json", signed({"tags": {"a": "../x"}, "pins": ["../y"]}))),
    checkpoint("a log that is no text", "prints it", READ, put("log.jsonl", b"\xff\x1b[2J" * 100)),
    checkpoint("a log that is a link", "writes into another file", READ, link("log.jsonl", "../canary")),
    checkpoint("a pack that is a web page", "says that nothing is there", "MissingError", lambda path: [one.write_bytes(b"<html>" * 50) for one in (path / "chunks").iterdir()]),
    checkpoint("a pack that is empty", "says that nothing is there", "MissingError", lambda path: [one.write_bytes(b"") for one in (path / "chunks").iterdir()]),
    checkpoint("a pack that is a link to /dev/zero", "reads until memory is full", "MissingError", lambda path: [link(f"chunks/{one.name}", "/dev/zero")(path) for one in list((path / "chunks").iterdir())]),
    checkpoint("a pack of 2**63 chunks", "makes room for all of them", "MissingError", lambda path: [one.write_bytes(counted(one.read_bytes())) for one in (path / "chunks").iterdir()]),
    backup("a path upwards", "writes there", UNSAFE, restored(TOP, entry("../evil"))),
    backup("a path from the root", "writes there", UNSAFE, restored(TOP, entry("/tmp/evil"))),
    backup("a path through a link", "writes where it leads", DAMAGED, restored(TOP, to("a", "/tmp"), entry("a/evil"))),
    backup("a link out of it", "makes it", READ, restored(TOP, entry("f"), to("out", "../../../etc/passwd"))),
    backup("a link to itself", "follows it", READ, restored(TOP, entry("f"), to("in", "in"))),
    backup("a file of more than its chunks", "leaves what was in memory before", DAMAGED, restored(TOP, entry("f", size=1 << 40))),
    backup("chunks that are not there", "writes zeros for them", "MissingError", restored(TOP, entry("f", chunks=bytes(range(32))))),
    backup("a config that is a list", "crashes", READ, put("config.json", b"[]")),
    backup("two configs that are no JSON", "begins anew", DAMAGED, lambda path: [put(name, b"{")(path) for name in ("config.json", "config-copy.json")]),
    backup("two configs of another program", "asks for a key", DAMAGED, lambda path: [put(name, signed({"id": "00", "created_at": "", "cipher": "rot13", "slots": [1]}))(path) for name in ("config.json", "config-copy.json")]),
    backup("a manifest of a checkpoint", "reads it all the same", DAMAGED, lambda path: shutil.copy(GOLDEN / "checkpoints/v1" / LAST, path / NEWEST)),
    export("a path upwards", "writes there", UNSAFE, lambda: exported(dict, TOP, entry("../evil"))),
    export("an absolute path", "writes there", UNSAFE, lambda: exported(dict, TOP, entry("/tmp/evil"))),
    export("a path through a link", "writes where it leads", DAMAGED, lambda: exported(dict, TOP, to("a", "/tmp"), entry("a/evil"))),
    export("an id that leads out", "writes there", DAMAGED, lambda: exported(id="../../evil")),
    export("a tag that leads out", "writes there", DAMAGED, lambda: exported(lambda made: made | {"tags": {"../t": SECOND}})),
    export("no backups", "makes an empty folder", DAMAGED, nothing_exported),
    export("backups that are a number", "crashes", DAMAGED, lambda: exported(lambda made: made | {"backups": 7})),
    export("a manifest that is a chunk of a file", "reads it", DAMAGED, lambda: exported(lambda made: made | {"backups": [[SECOND, [CHUNK.hex()]]]})),
    export("a list that is 100,000 levels deep", "overflows the C stack", UNSAFE, lambda: exported(lambda _: b"[" * 100_000)),
    export("a source that is no path", "writes there", UNSAFE, lambda: exported(source="a\0b")),
    export("a later version", "reads it as today's", LATER, lambda: exported(lambda made: signed(made, 2))),
    export("an ordinary pack", "reads it", DAMAGED, lambda: packed([(bytes(32), b"{}", 0, 2)])),
    a_plan("a path upwards", "removes what is there", UNSAFE, lambda: plan(left("../../etc/passwd"))),
    a_plan("an absolute path", "removes what is there", UNSAFE, lambda: plan(moved("/etc/passwd"))),
    a_plan("into its own folder of originals", "removes them", UNSAFE, lambda: plan(left(".qmem-migration/x"))),
    a_plan("a path that is a list", "crashes", UNSAFE, lambda: plan(left(["a"]))),
    a_plan("a target of another name", "writes a pickle", UNSAFE, lambda: plan(moved("a.json", target="pkl"))),
    a_plan("an action that there is not", "ignores it", UNSAFE, lambda: plan(left("a", action="delete"))),
    a_plan("a digest that is none", "never compares it", UNSAFE, lambda: plan(moved("a.json", source={"sha256": "x", "bytes": 1, "mtime_ns": 1}))),
    a_plan("a word changed by hand", "does something else", UNSAFE, lambda: plan(left("a.json"), edited=lambda text: text.replace(b"leave", b"LEAVE", 1))),
    a_plan("a line taken out by hand", "does less", DISTRUSTED, lambda: plan(left("a"), left("b"), edited=lambda text: b"".join(text.splitlines(keepends=True)[::2]))),
    a_plan("a folder that is no absolute path", "goes by where it is started", DISTRUSTED, lambda: plan(root="states")),
    a_plan("other totals", "shows them", DISTRUSTED, lambda: plan(left("a"), leave=5)),
    a_plan("a line without end", "reads all of it", DISTRUSTED, lambda: plan(left("a" * (2 << 20)))),
    a_plan("100,000 levels in a line", "overflows the C stack", DISTRUSTED, lambda: plan(edited=lambda text: text + b'{"a":' * 100_000 + b"\n")),
]  # fmt: skip


def first_of(path: Path, **facts: Any) -> None:
    """Have the older checkpoint say something else."""
    at = path / "checkpoints" / f"{FIRST}.qmcp"
    made = checkpoints.read_manifest(ReadableBytes(at.read_bytes()))
    at.write_bytes(checkpoints.written(replace(made, checkpoint=replace(made.checkpoint, **facts))))


def counted(data: bytes) -> bytes:
    """Return a pack that says that it has far more chunks."""
    return data[:-64] + pack.sealed(data[-64:-56] + struct.pack("<Q", 1 << 63) + data[-48:])

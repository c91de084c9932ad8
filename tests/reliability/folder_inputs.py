"""Inputs of the readers of what is in folders: manifests, packs, keys and plans, changed and mended."""

import io
import json
import struct
import zlib

from quantum_memory.durability import pack
from quantum_memory.lifecycle.backups import config, export_file
from quantum_memory.lifecycle.migration import journal
from quantum_memory.lifecycle.migration.plan import Plan
from quantum_memory.lifecycle.repository.signed_json import said_by, signature
from quantum_memory.state.document import well_formed
from quantum_memory.testing.fuzzing import Mutator

from .goldens import FIRST, HERE, KEY, sealer_of
from .inputs import NAME, changed_text, golden, sha, source, text_of

# ---- manifests, packs and what is beside them


MANIFESTS = {
    suffix: [path.read_bytes() for path in sorted((HERE / folder).rglob(f"*{suffix}"))]
    for suffix, folder in ((".qmcp", "checkpoints"), (".qmbk", "backups/v1"))
}


def made_manifest(kind: str, suffix: str, mutator: Mutator) -> bytes:
    """Return a manifest whose digests are right; those that are encrypted are so with the right key."""
    data = mutator.pick(MANIFESTS[suffix])
    head_bytes, packed_bytes, text_bytes, count = struct.unpack_from("<4I", data, 16)
    head, packed = data[128 : 128 + head_bytes], data[128 + head_bytes : 128 + head_bytes + packed_bytes]
    chunks = data[128 + head_bytes + packed_bytes :]
    text = zlib.decompress(packed)
    what = mutator.below(5)
    if what == 0:
        head = changed_text(mutator, head)
    elif what == 1:
        packed = mutator.data(packed)
    elif what == 2:
        chunks = mutator.data(chunks)
    else:
        text = changed_text(mutator, text)
        packed, text_bytes = zlib.compress(text, 1), len(text)
    if mutator.below(16) == 0:
        count, text_bytes = count + 1 - mutator.below(3), mutator.below(1 << 12)
    else:
        count = len(chunks) // 32
    if kind == "sealed":
        sealer = sealer_of("v1-sealed")
        head = sealer.seal(head, b"head of a backup", FIRST.encode())
        packed = sealer.seal(packed, b"text of a backup", FIRST.encode())
    facts = struct.pack("<5I", 1, len(head), len(packed), text_bytes & 0xFFFFFFFF, count & 0xFFFFFFFF)
    prefix = data[:12] + facts + sha(head) + sha(packed + chunks) + bytes(24)
    return pack.sealed(prefix.ljust(128, b"\0")) + head + packed + chunks


PACKS = [data for data in golden("packs").values() if len(data) < 1000]


def made_pack(mutator: Mutator) -> bytes:
    """Return a pack, or a copy of its list, with a list, a header or a trailer that was changed, or a chunk."""
    data = mutator.pick(PACKS)
    position, count = struct.unpack_from("<QQ", data, len(data) - 64)
    start = len(data) - 64 - 64 * count
    head, body, listed = data[:64], data[64:start], data[start:-64]
    match mutator.below(8):
        case 0:
            head = pack.sealed(mutator.data(head)[:64].ljust(64, b"\0"))
        case 1:
            position, count = position + 64 * (1 - mutator.below(3)), count + 1 - mutator.below(3)
        case 2:
            body = mutator.data(body)
        case _:
            listed = mutator.data(listed)
            count = len(listed) // 64
    tail = struct.pack("<QQ32s16x", position % (1 << 64), count % (1 << 64), sha(listed))
    return head + body + listed + pack.sealed(tail)


def read_pack(data: bytes) -> None:
    if data.startswith(pack.COPY_SIGNATURE):
        pack.read_index_copy(source(data))
    else:
        pack.check_everything(source(data))


def made_note(mutator: Mutator) -> bytes:
    said = json.loads(mutator.pick([*golden("notes").values()]))
    said.pop("sha256")
    said = mutator.json(said)
    if not isinstance(said, dict):
        return text_of(said)
    try:
        return text_of({**said, "sha256": signature(said)})
    except ValueError:  # it is no JSON
        return text_of(said)


def read_note(data: bytes) -> None:
    """Read tags and pins, or keys, which are then tried."""
    if b"slots" not in data:
        said_by(data, NAME, {"tags", "pins"})
        return
    said = said_by(data, NAME, {"id", "created_at", "cipher", "slots"})
    with well_formed(NAME):
        found = config.config_of(said)
    if found.cipher is not None:
        found.sealer(KEY, NAME)


def made_export(mutator: Mutator) -> bytes:
    """Return a file of backups of which what it says of itself was changed."""
    data = golden("exports")["plain.qmb"]
    chunks = pack.read_index(source(data), export_file.SIGNATURE)
    made = bytearray(pack.header(export_file.SIGNATURE))
    places = {}
    for name, place in chunks.items():
        stored = data[place.offset : place.offset + place.stored]
        if name == export_file.CONTENTS:
            said = json.loads(stored)
            said.pop("sha256")
            said = mutator.json(said)
            try:
                stored = text_of({**said, "sha256": signature(said)} if isinstance(said, dict) else said)
            except ValueError:
                stored = text_of(said)
        elif mutator.below(8) == 0:
            stored = mutator.data(stored) or b"x"
        made += bytes(-len(made) % 64)
        places[name] = place._replace(
            offset=len(made),
            stored=len(stored),
            check=pack.checksum(stored),
            raw=place.raw if place.codec else len(stored),
        )
        made += stored
    made += bytes(-len(made) % 64)
    listed = pack.index(places)
    return bytes(made) + listed + pack.trailer(listed, len(made))


# ---- encryption


def made_envelope(mutator: Mutator) -> bytes:
    """Return an encrypted file with facts and slots that were changed; their SHA-256 is right, their proof is not."""
    data = golden("encrypted")["encrypted.qms"]
    (length,) = struct.unpack_from("<I", data, 20)
    facts, slots, rest = data[:40], data[40 : 40 + length], data[40 + length + 32 :]
    if mutator.below(3):
        slots = changed_text(mutator, slots)
    else:
        facts = mutator.data(facts)[:40].ljust(40, b"\0")
    facts = facts[:20] + struct.pack("<I", len(slots)) + facts[24:]
    return facts + slots + sha(facts + slots) + rest


# ---- migrations


def made_plan(mutator: Mutator) -> bytes:
    lines = [json.loads(line) for line in golden("plans")["plan.jsonl"].splitlines()]
    at = mutator.below(len(lines))
    lines[at] = mutator.json(lines[at])
    texts = [text_of(line) + b"\n" for line in lines]
    if mutator.below(8) == 0:
        texts[at] = mutator.data(texts[at])
    last = lines[-1]
    if isinstance(last, dict) and "id" in last:
        totals = {name: value for name, value in last.items() if name != "id"}
        totals |= {what: sum(isinstance(one, dict) and one.get("action") == what for one in lines) for what in COUNTED}
        digest = sha(b"".join(texts[:-1]) + text_of(totals)).hex()
        texts[-1] = text_of({"id": digest, **totals}) + b"\n"
    return b"".join(texts)


COUNTED = ("migrate", "leave", "damaged")


def read_plan(data: bytes) -> None:
    for _ in Plan(lambda: io.BytesIO(data), NAME).entries():
        pass


LINES = [
    {"event": "replacing", "n": 0, "from": 0, "path": "a.json"},
    {"event": "done", "n": 1, "from": 90},
    {"event": "committing", "from": 200},
]


def made_line(mutator: Mutator) -> bytes:
    line = mutator.json(mutator.pick(LINES))
    if not isinstance(line, dict):
        return text_of(line)
    return text_of({"check": sha(text_of(line)).hex()[:16], **line})


def read_line(data: bytes) -> None:
    line = journal._unsealed(data)
    if line is not None:
        journal.Progress(2).take(line, 0)
        journal._first(line, 0)

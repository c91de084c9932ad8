"""A manifest says what was put into it, and nothing else is taken for one."""

import hashlib
import itertools
import json
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.encryption.sealing import Sealer
from quantum_memory.errors import IntegrityError, QuantumMemoryError, UnsafeError, UnsupportedVersionError
from quantum_memory.lifecycle.backups import manifest as manifests
from quantum_memory.lifecycle.backups.manifest import FILE, FOLDER, LINK, Backup, BackupManifest, Entry, read_manifest
from quantum_memory.lifecycle.repository import manifest_file

ONE = "20261231_235959_999999_abcdef"
SEALER = Sealer(bytes(range(32)), b"backups x")


def backup(**facts):
    return Backup(
        **{
            "id": ONE, "number": 3, "source": "/data", "created_at": "2026-12-31T23:59:59.999999Z", "description": "",
            "automatic": False, "is_folder": True, "files": 0, "folders": 1, "links": 0, "raw_bytes": 0, "new_bytes": 0,
            "problems": 0, "imported": False, "writer": "quantum-memory 1", **facts,
        }
    )  # fmt: skip


def names(*numbers):
    return b"".join(hashlib.sha256(bytes([number])).digest() for number in numbers)


ROOT = Entry("", FOLDER, 0o755, 0)


def read(data, sealer=None, one=ONE):
    return read_manifest(ReadableBytes(data), one, sealer)


def with_entries(listed, chunks=b"", **more):
    """Return a manifest with these entries, well formed or not, sealed against accidents as any."""
    said = {
        "chunks": hashlib.sha256(chunks).hexdigest(), "entries": listed, "problems": [], "skipped": [], **more,
    }  # fmt: skip
    text = json.dumps(said).encode()
    head = json.dumps(backup().to_dict()).encode()
    return manifest_file.written(manifests.KIND, head, zlib.compress(text, 0), len(text), chunks)


TIMES = st.integers(-(1 << 63) * 10**9, (1 << 63) * 10**9 - 1)
PARTS = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).filter(lambda x: x not in {".", ".."})


@st.composite
def entries(draw):
    """Draw entries as `survey` and the reader give them."""
    found = {"": ROOT}
    for path in sorted(draw(st.lists(st.lists(PARTS, min_size=1, max_size=3).map(tuple), max_size=6))):
        for depth in range(1, len(path)):
            above = "/".join(path[:depth])
            found[above] = Entry(above, FOLDER, draw(st.integers(0, 0o777)), draw(TIMES))
        at, mode, modified = "/".join(path), draw(st.integers(0, 0o777)), draw(TIMES)
        if at in found:
            continue
        if draw(st.booleans()):
            count = draw(st.integers(0, 3))
            size = draw(st.integers(1, (1 << 63) - 1)) if count else 0
            made = Entry(
                at, FILE, mode, modified, size, names(*range(count)),
                inode=draw(st.integers(0, (1 << 64) - 1)), changed_ns=draw(TIMES),
            )  # fmt: skip
        else:
            target = draw(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=30))
            made = Entry(at, LINK, mode, modified, target=target)
        found[at] = made
    return tuple(
        one
        for one in sorted(found.values(), key=lambda one: one.path)
        if not one.path or found[one.path.rpartition("/")[0]].type == FOLDER
    )


@given(entries(), st.sampled_from([None, SEALER]), st.text(max_size=20))
def test_what_is_written_is_read(listed, sealer, why):
    made = BackupManifest(backup(description=why), listed, (("a", why),), ("b",))
    data = manifests.written(made, sealer)
    assert read(data, sealer) == made
    assert manifests.read_backup(ReadableBytes(data), ONE, sealer) == made.backup


@pytest.mark.parametrize("sealer", [None, SEALER], ids=["plain", "sealed"])
def test_no_byte_can_be_changed_or_cut_off(sealer):
    listed = (ROOT, Entry("a", FILE, 0o644, 1, 7, names(1)), Entry("b", FILE, 0o644, 1, 7, names(2)))
    data = manifests.written(BackupManifest(backup(), listed), sealer)
    for at in range(len(data)):
        for bit in (1, 0x80):
            with pytest.raises((IntegrityError, UnsafeError, UnsupportedVersionError)):
                read(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :], sealer)
    for length in itertools.chain(range(0, len(data), 7), [len(data) - 1]):
        with pytest.raises(IntegrityError):
            read(data[:length], sealer)
    with pytest.raises(IntegrityError):
        read(data + b"\0", sealer)


FACTS = [0o644, 0]
BAD_PATHS = ["../x", "/x", "a/../../x", "a/..", ".", "..", "a/./b", "a//b", "a/", "\0", "a\0b", "x" * 40_000, "/", ""]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path[:12]))
@pytest.mark.parametrize("kind", [FILE, FOLDER, LINK])
def test_a_path_that_leads_elsewhere_is_refused(path, kind):
    facts = {FILE: [*FACTS, 0, 0, 0, 0], FOLDER: FACTS, LINK: [*FACTS, "target"]}[kind]
    listed = [["", "folder", *FACTS], ["a", "folder", *FACTS], [path, kind, *facts]]
    with pytest.raises((UnsafeError, IntegrityError)):
        read(with_entries(listed))


F0 = [*FACTS, 0, 0, 0, 0]
BAD_ENTRIES = {
    "none": [],
    "no folder first": [["a", "file", *F0]],
    "a file that is not the source": [["x", "file", *F0]],
    "a file as the source of a folder": [["", "file", *F0], ["a", "file", *F0]],
    "a link as the source": [["", "link", *FACTS, "x"]],
    "a path twice": [["", "folder", *FACTS], ["a", "file", *F0], ["a", "file", *F0]],
    "a path twice, of two kinds": [["", "folder", *FACTS], ["a", "folder", *FACTS], ["a", "link", *FACTS, "/"]],
    "in no order": [["", "folder", *FACTS], ["b", "file", *F0], ["a", "file", *F0]],
    "in a link": [["", "folder", *FACTS], ["a", "link", *FACTS, "/etc"], ["a/x", "file", *F0]],
    "in a file": [["", "folder", *FACTS], ["a", "file", *F0], ["a/x", "file", *F0]],
    "in nothing": [["", "folder", *FACTS], ["a/x", "file", *F0]],
    "a device": [["", "folder", *FACTS], ["a", "device", *FACTS]],
    "a kind that is no text": [["", "folder", *FACTS], ["a", 7, *FACTS]],
    "a path that is no text": [["", "folder", *FACTS], [7, "file", *F0]],
    "a link to nothing": [["", "folder", *FACTS], ["a", "link", *FACTS, ""]],
    "a link with a NUL": [["", "folder", *FACTS], ["a", "link", *FACTS, "a\0b"]],
    "a link to a number": [["", "folder", *FACTS], ["a", "link", *FACTS, 7]],
    "a bit that makes programs run as somebody else": [["", "folder", *FACTS], ["a", "file", 0o4755, 0, 0, 0, 0, 0]],
    "a mode below nothing": [["", "folder", -1, 0]],
    "a size below nothing": [["", "folder", *FACTS], ["a", "file", *FACTS, -1, 0, 0, 0]],
    "a size that no file has": [["", "folder", *FACTS], ["a", "file", *FACTS, 1 << 63, 1, 0, 0]],
    "a size without chunks": [["", "folder", *FACTS], ["a", "file", *FACTS, 7, 0, 0, 0]],
    "more chunks than there are": [["", "folder", *FACTS], ["a", "file", *FACTS, 7, 2, 0, 0]],
    "a count that cannot be": [["", "folder", *FACTS], ["a", "file", *FACTS, 7, 1 << 62, 0, 0]],
    "a time that no file has": [["", "folder", *FACTS], ["a", "file", 0o644, 1 << 93, 0, 0, 0, 0]],
    "a time that is no whole number": [["", "folder", *FACTS], ["a", "file", 0o644, 1.5, 0, 0, 0, 0]],
    "a truth as a number": [["", "folder", True, 0]],
    "a number too few": [["", "folder", 0o755]],
    "a number too many": [["", "folder", *FACTS, 0]],
    "no list": [["", "folder", *FACTS], "a"],
    "an empty list": [[]],
}


@pytest.mark.parametrize("listed", BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_entries_that_no_release_writes_are_refused(listed):
    with pytest.raises((IntegrityError, UnsafeError)):
        read(with_entries(listed))


def test_what_is_too_much_beside_the_entries_is_refused():
    listed = [["", "folder", *FACTS]]
    read(with_entries(listed))
    for more in ({"problems": [["a"]]}, {"problems": [["a", 7]]}, {"skipped": [7]}, {"problems": 7}, {"entries": {}}):
        with pytest.raises(QuantumMemoryError):
            read(with_entries(listed, **more))
    with pytest.raises(IntegrityError):  # chunks of no file
        read(with_entries(listed, names(1)))


def test_the_chunks_of_files_cannot_be_exchanged(tmp_path):
    """The names of the chunks are not sealed, so that what is needed can be told without a key."""
    listed = (ROOT, Entry("a", FILE, 0o644, 1, 7, names(1)), Entry("b", FILE, 0o644, 1, 7, names(2)))
    for sealer in (None, SEALER):
        data = manifests.written(BackupManifest(backup(), listed), sealer)
        head, body = manifest_file.read_whole(ReadableBytes(data), manifests.KIND)
        forged = manifest_file.written(manifests.KIND, head, bytes(body.packed), body.text_bytes, names(2, 1))
        with pytest.raises(IntegrityError, match="other chunks"):
            read(forged, sealer)
        # Nor is it taken for an accident, of which is saved what can be.
        with pytest.raises(UnsafeError, match="by somebody"):
            manifests.salvaged_manifest(ReadableBytes(forged), ONE, sealer, lambda _: True)


def test_a_sealed_manifest_is_that_of_one_id_and_one_folder():
    data = manifests.written(BackupManifest(backup(), (ROOT,)), SEALER)
    for sealer, one in ((SEALER, "another"), (Sealer(bytes(range(32)), b"backups y"), ONE), (None, ONE)):
        with pytest.raises(QuantumMemoryError):
            read(data, sealer, one)
    with pytest.raises(QuantumMemoryError):  # a plain one is none of a folder that is sealed
        read(manifests.written(BackupManifest(backup(), (ROOT,))), SEALER)


def test_a_sealed_manifest_shows_no_name():
    listed = (ROOT, Entry("secret-name", FILE, 0o644, 1, 7, names(1)))
    data = manifests.written(BackupManifest(backup(source="/secret-source", description="secret-word"), listed), SEALER)
    assert b"secret" not in data
    assert b"secret" in manifests.written(BackupManifest(backup(description="secret"), listed))


@pytest.mark.parametrize(
    "facts",
    [{"number": -1}, {"number": 1 << 63}, {"id": "../x"}, {"id": ""}, {"created_at": "2026-12-31T23:59:59"},
     {"created_at": "yesterday"}, {"created_at": "2026-12-31T23:59:59+01:00"}, {"files": True}, {"is_folder": 1},
     {"description": None}, {"is_folder": False}],
    ids=str,
)  # fmt: skip
def test_a_head_that_no_release_writes_is_refused(facts):
    with pytest.raises(QuantumMemoryError):
        read(manifests.written(BackupManifest(replace(backup(), **facts), (ROOT,))))


def test_errors_are_those_of_files():
    with pytest.raises(IntegrityError, match="does not begin like a backup"):
        read(bytes(500))
    assert issubclass(IntegrityError, qm.QuantumMemoryError)

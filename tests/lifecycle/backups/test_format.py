"""What older releases have written is read for ever, and the page says all that it takes to read it."""

import importlib.util
import json
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest

import quantum_memory as qm
from quantum_memory.durability import pack
from quantum_memory.durability.files import ReadableFile
from quantum_memory.errors import WrongKeyError
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.backups import export_file

from ...formats.test_forms_specification import code_of

GOLDEN = Path(__file__).parents[2] / "golden" / "backups"
spec = importlib.util.spec_from_file_location("golden_backups", GOLDEN / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

IDS = [golden.FIRST, golden.SECOND]


def held(top):
    """What a folder holds, as `golden.TREES` says it, and the times."""
    found, times = {}, {}
    for path in [top, *sorted(top.rglob("*"))]:
        name = "" if path == top else str(path.relative_to(top))
        mode = path.lstat().st_mode & 0o777
        if path.is_symlink():
            found[name] = mode, os.fspath(path.readlink())
        else:
            found[name] = mode, None if path.is_dir() else path.read_bytes()
            times[name] = path.stat().st_mtime_ns
    return found, times


def check(top, number):
    found, times = held(top)
    assert found == golden.TREES[number]
    assert times == {path: golden.NANOSECONDS + len(path) for path in times}


@pytest.fixture(params=["v1", "v1-sealed"])
def kept(request, tmp_path):
    """A folder as it was made once, and what opens it."""
    key = qm.Key.from_file(GOLDEN / "key") if request.param == "v1-sealed" else None
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / "b")), key


def test_a_golden_folder_is_read_bit_for_bit(kept, tmp_path):
    folder, key = kept
    with BackupManager(folder, key=key) as manager:
        newest, oldest = manager.list_backups(golden.SOURCE)
        assert manager.verify()
        for number, one in enumerate(IDS):
            manager.restore_backup(one, tmp_path / one)
            check(tmp_path / one, number)
        assert [one["action"] for one in manager.folder.log()][:4] == ["created", "created", "tagged", "exported"]
    assert (oldest["id"], oldest["tags"], oldest["description"]) == (golden.FIRST, ["paper"], "with none")
    assert (newest["id"], newest["pinned"], newest["files"]) == (golden.SECOND, True, 3)
    assert newest["verified"] == oldest["verified"] == "2026-01-31T12:30:15.250000Z"
    assert newest["source"] == "/golden/tree"


@pytest.mark.parametrize("name", ["v1", "v1-sealed"])
def test_a_golden_file_of_backups_is_imported(tmp_path, name):
    key = qm.Key.from_file(GOLDEN / "key") if name == "v1-sealed" else None
    with BackupManager(tmp_path / "b", key=key, durable=False) as manager:
        assert manager.import_backup(GOLDEN / f"{name}.qmb") == IDS
        for number, one in enumerate(IDS):
            manager.restore_backup(one, tmp_path / one)
            check(tmp_path / one, number)
        assert manager.resolve("paper") == golden.FIRST
    if key is not None:
        with BackupManager(tmp_path / "none") as manager, pytest.raises(WrongKeyError):
            manager.import_backup(GOLDEN / f"{name}.qmb")


def in_parts(data):
    """Return head, text and names of a manifest; the bytes of zlib streams belong to zlib."""
    head, packed, text, count = struct.unpack_from("<IIII", data, 16)
    body = data[128 + head :]
    return data[:20], text, count, data[128 : 128 + head], zlib.decompress(body[:packed]), body[packed:]


def chunks_of(path, signature):
    with ReadableFile(str(path)) as source:
        found = pack.read_index(source, signature)
    return [(name, place.raw, place.codec) for name, place in found.items()]


def test_what_is_written_has_not_changed(tmp_path):
    golden.write(tmp_path / "v1")
    now, then = ({path.relative_to(top): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
                 for top in (tmp_path / "v1", GOLDEN / "v1"))  # fmt: skip
    assert set(now) == set(then)
    packed = f"{3:032}"  # the pack of the second backup, which zlib has made
    for path, data in now.items():
        if path.suffix == ".qmbk":
            assert in_parts(data) == in_parts(then[path])
        elif path.stem == packed:
            signature = pack.SIGNATURE if path.suffix == ".qmpack" else pack.COPY_SIGNATURE
            assert data[:64] == then[path][:64] == pack.header(signature)
        else:
            assert data == then[path], path
    parts = [path.with_suffix(".qmpack") for path in now if path.stem == packed]
    for path in parts:
        assert chunks_of(tmp_path / "v1" / path, pack.SIGNATURE) == chunks_of(GOLDEN / "v1" / path, pack.SIGNATURE)
    new, old = (chunks_of(top / "v1.qmb", export_file.SIGNATURE) for top in (tmp_path, GOLDEN))
    assert [one for one in new if one[0] in dict.fromkeys(name for name, *_ in old)][:3] == old[:3]
    assert len(new) == len(old)


def test_a_copy_of_a_list_is_the_end_of_its_pack():
    for path in (GOLDEN / "v1" / "chunks").glob("*.qmpack"):
        data, copy = path.read_bytes(), path.with_suffix(".qmindex").read_bytes()
        assert copy[:8] == b"\x89QMI\r\n\x1a\n"
        assert data.endswith(copy[64:])


def test_the_decoder_of_the_page_restores_what_is_exported(tmp_path):
    restore = code_of("backup_format.md")["restore"]
    for number, one in enumerate(IDS):
        head = restore(GOLDEN / "v1.qmb", one, tmp_path / one)
        assert (head["id"], head["number"]) == (one, number + 1)
        check(tmp_path / one, number)
    with pytest.raises(AssertionError, match="encrypted"):
        restore(GOLDEN / "v1-sealed.qmb", golden.FIRST, tmp_path / "none")

    (tmp_path / "file").write_bytes(bytes(range(256)) * 20_000)
    with BackupManager(tmp_path / "b", durable=False) as manager:  # with zstd
        one = manager.create_backup(tmp_path / "file")
        manager.create_backup(tmp_path / golden.FIRST)
        manager.export_backup(one, tmp_path / "x.qmb")
    restore(tmp_path / "x.qmb", one, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


def test_the_decoder_of_the_page_finds_damage(tmp_path):
    restore = code_of("backup_format.md")["restore"]
    data = bytearray((GOLDEN / "v1.qmb").read_bytes())
    data[data.index(golden.NOISE[:32])] ^= 1
    (tmp_path / "x.qmb").write_bytes(data)
    with pytest.raises(AssertionError, match=r"noise.bin is damaged"):
        restore(tmp_path / "x.qmb", golden.FIRST, tmp_path / "out")


def test_the_page_opens_the_names_and_the_log_of_an_encrypted_folder():
    page = (GOLDEN.parents[2] / "docs" / "backup_format.md").read_text()
    _, code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    space = code_of("encryption.md")
    exec(compile(code, "backup_format.md", "exec"), space)  # it is our own page
    opened, secret = space["opened"], (GOLDEN / "key").read_bytes()
    config, refs = (json.loads((GOLDEN / "v1-sealed" / name).read_text()) for name in ("config.json", "refs.json"))
    names = {"tags": {"paper": golden.FIRST}, "pins": [golden.SECOND]}
    assert set(refs) == {"version", "sealed", "sha256"}
    assert opened(config, refs["sealed"], b"tags and pins", secret) == names
    log = [json.loads(line) for line in (GOLDEN / "v1-sealed" / "log.jsonl").read_text().splitlines()]
    plain = [json.loads(line) for line in (GOLDEN / "v1" / "log.jsonl").read_text().splitlines()]
    plain[-1]["path"] = "/golden/v1-sealed.qmb"
    assert [opened(config, line["sealed"], b"line of a log", secret) for line in log] == plain
    with ReadableFile(str(GOLDEN / "v1-sealed.qmb")) as source:
        place = pack.read_index(source, export_file.SIGNATURE)[bytes(32)]
        said = json.loads(source.read(place.offset, place.stored))
    assert opened(said["config"], said["sealed"], b"tags and pins of exported backups", secret) == names


def test_the_page_names_all_keys():
    page = (GOLDEN.parents[2] / "docs" / "backup_format.md").read_text()
    folder = GOLDEN / "v1"
    for path in (
        *(folder / name for name in ("config.json", "checks.json", "refs.json")), GOLDEN / "v1-sealed" / "refs.json"
    ):  # fmt: skip
        said = json.loads(path.read_text())
        assert all(f"`{key}`" in page for key in said), path
    data = (folder / "backups" / f"{golden.FIRST}.qmbk").read_bytes()
    (length,) = struct.unpack_from("<I", data, 16)
    assert all(f"`{key}`" in page for key in json.loads(data[128 : 128 + length]))
    with ReadableFile(str(GOLDEN / "v1.qmb")) as source:
        place = pack.read_index(source, export_file.SIGNATURE)[bytes(32)]
        said = json.loads(source.read(place.offset, place.stored))
    assert all(f"`{key}`" in page for key in said)

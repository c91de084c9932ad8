"""Whole files of everything that is read: those that releases have written, and small ones made on the spot.

They are read as a user's are: by the verbs, from a path; and the files of folders that have many by what those who open
the folder read each with.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

import quantum_memory as qm
from quantum_memory.durability import pack
from quantum_memory.durability.files import ReadableFile
from quantum_memory.encryption.sealing import Sealer
from quantum_memory.lifecycle.backup_manager import BackupManager
from quantum_memory.lifecycle.backups import config, export_file
from quantum_memory.lifecycle.backups import manifest as backups
from quantum_memory.lifecycle.checkpoints import manifest as checkpoints
from quantum_memory.lifecycle.migration.entries import Entry, Source, left
from quantum_memory.lifecycle.migration.plan import Header, Plan, write_plan
from quantum_memory.lifecycle.repository.signed_json import read_signed

HERE = Path(__file__).parents[1] / "golden"
KEY = qm.Key.from_file(HERE / "backups" / "key")
FIRST = "20260131_123015_250000_000001"
SECOND = "20260131_123015_250000_000002"
GROUPS = ("qms", "encrypted", "forms", "text", "manifests", "packs", "exports", "notes", "plans")

Read = Callable[[str], object]


@dataclass(frozen=True)
class Golden:
    """A whole file.

    Attributes
    ----------
    name
        Its name, with the suffix.
    data
        Its bytes.
    reads
        What reads it from a path; each looks at every byte.
    """

    name: str
    data: bytes
    reads: tuple[Read, ...]


def goldens(group: str, place: Path) -> list[Golden]:
    """Return the files of a group; `place` is an empty folder for what is made on the spot."""
    return list(_MADE[group](place))


def _read(path: Path, *reads: Read) -> Golden:
    return Golden(path.name, path.read_bytes(), reads)


def _qms(place: Path) -> Iterator[Golden]:
    """Raw, with each codec, and of many sections."""
    for path in sorted(HERE.glob("*.qms")):
        yield _read(path, qm.load, qm.verify)
    chain = qm.MatrixProductState([np.ones((1, 2, 2)), np.ones((2, 2, 1))], log_scale=-0.5)
    emotion = {"pad_values": [0.1, -0.2, 0.3]}
    parts = {"quantum_data": chain, "classical_data": [np.arange(3), None, np.ones(0)], "metadata": {"run": np.ones(2)}}
    qm.save({**parts, "emotional_context": emotion}, place / "sections.qms")
    yield _read(place / "sections.qms", qm.load, qm.verify)


def _encrypted(place: Path) -> Iterator[Golden]:
    qm.save(np.ones(2) / np.sqrt(2), place / "encrypted.qms", encrypt=KEY)
    yield _read(place / "encrypted.qms", partial(qm.load, key=KEY), partial(qm.verify, key=KEY))


def _forms(_: Path) -> Iterator[Golden]:
    for form in ("mps", "stabilizer", "sparse", "trellis"):
        yield _read(HERE / "forms" / f"{form}.v2.qms", qm.load, qm.verify)


def _text(place: Path) -> Iterator[Golden]:
    """The formats that are read in one piece."""
    for suffix in ("json", "json.zlib", "msgpack", "b64", "npz", "pkl"):
        options = {"allow_pickle": True} if suffix == "pkl" else {}
        for state in ("single", "density"):
            yield _read(HERE / f"{state}.v2.0.{suffix}", *(partial(verb, **options) for verb in (qm.load, qm.verify)))
    qm.save({"classical_data": np.zeros(50)}, place / "zeros.npz", compression="zlib")
    yield _read(place / "zeros.npz", qm.load, qm.verify)


def _with(read: Callable[[ReadableFile], object]) -> Read:
    def opened(path: str) -> object:
        with ReadableFile(path) as source:
            return read(source)

    return opened


@cache
def sealer_of(name: str) -> Sealer | None:
    """Return what opens a golden folder of backups; None for one that is not encrypted."""
    held = config.read_config(str(HERE / "backups" / name))
    assert held is not None
    return held.sealer(KEY if held.cipher else None, name)


def _manifests(_: Path) -> Iterator[Golden]:
    """Those of checkpoints, and of backups, plain and encrypted."""
    for one in (FIRST, SECOND):
        yield _read(HERE / f"checkpoints/v1/checkpoints/{one}.qmcp", _with(checkpoints.read_manifest))
        for name in ("v1", "v1-sealed"):
            read = partial(backups.read_manifest, one=one, sealer=sealer_of(name))
            yield _read(HERE / f"backups/{name}/backups/{one}.qmbk", _with(read))


def _packs(_: Path) -> Iterator[Golden]:
    """The packs of both, and the copies of their lists."""
    for path in sorted(HERE.glob("*/v1*/chunks/*.qmpack")):
        yield _read(path, _with(pack.check_everything))
    for path in sorted(HERE.glob("backups/*/chunks/*.qmindex")):
        yield _read(path, _with(pack.read_index_copy))


def _exports(place: Path) -> Iterator[Golden]:
    """Backups in one file, plain and encrypted, as whoever imports them reads them before anything is written."""
    (place / "a").mkdir()
    (place / "a" / "x").write_text("some text")
    (place / "a" / "y").write_text("text " * 30)
    for name, key in (("plain", None), ("sealed", KEY)):
        with BackupManager(place / name, key=key, compression="zlib", durable=False) as manager:
            manager.create_backup(place / "a", tags=["t"])
            made = manager.export_backup(None, place / f"{name}.qmb")

        def read(source: ReadableFile, key: qm.Key | None = key) -> None:
            export_file.ExportFile(source, key).check_everything()

        yield _read(Path(made.path), _with(read))


def _notes(_: Path) -> Iterator[Golden]:
    """What is written as JSON beside them: names, and keys."""
    yield _read(HERE / "checkpoints/v1/refs.json", lambda path: read_signed(path, {"tags", "pins"}))
    yield _read(HERE / "backups/v1-sealed/config.json", lambda path: read_signed(path, config._KEYS))


def _plans(place: Path) -> Iterator[Golden]:
    source = Source("a.json", hashlib.sha256(b"a").hexdigest(), 10, 5)
    entries = [
        left("b.txt", "it is of another program"),
        Entry("a.json", "migrate", "", "json", "1.0", source, target="json", expected_bytes=100, steps=("a step",)),
    ]
    with (place / "plan.jsonl").open("wb") as sink:
        write_plan(sink, Header("/golden", "2026-01-01T00:00:00Z", "0"), entries, lambda: 1, 1 << 30)
    yield _read(place / "plan.jsonl", Plan.open)


_MADE = dict(zip(GROUPS, (_qms, _encrypted, _forms, _text, _manifests, _packs, _exports, _notes, _plans), strict=True))

"""One state in every format, beside what a user would save it with instead; and HDF5 against plain h5py."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import quantum_memory as qm
from benchmarks.harness import Row, extra_memory, medians, repeated, rounds

FORMATS = ("qms", "h5", "json", "json.zlib", "msgpack", "npz", "pkl", "b64")
Case = tuple[Callable[[], object], Callable[[], object], Path]

_CHILD = """
import numpy as np, quantum_memory as qm
N, PATH = {count}, {path!r}
def setup():
    {setup}
def work(prepared):
    {work}
"""


def run(quick: bool) -> list[Row]:
    """Measure small states, a state of 20 qubits beside the peers, HDF5 against h5py, a full store, a time series."""
    rows = [*_small(quick), *_side_by_side(quick), *_store(quick), *_series(quick)]
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        return [*rows, *_against_h5py(folder, 1 << (24 if quick else 27), 3 if quick else 7)]
    finally:
        shutil.rmtree(folder)


def _small(quick: bool) -> list[Row]:
    """Time every form of the serializer with a state of 5 qubits."""
    serializer = qm.QuantumStateSerializer()
    state = _state(5)
    cases: dict[str, Callable[[], object]] = {}
    sizes = {}
    for name in ("json", "msgpack", "pickle", "numpy", "base64"):
        data = serializer.serialize(state, name)
        sizes[name] = len(data)
        cases[f"{name}: serialize"] = partial(serializer.serialize, state, name)
        cases[f"{name}: deserialize"] = partial(serializer.deserialize, data, name, allow_pickle=name == "pickle")
    repeats = 50
    named = {name: repeated(case, repeats) for name, case in cases.items()}
    found = medians(rounds(named, 5 if quick else 15))
    rows = [
        Row(f"5 qubits, serializer, {name}", f"{1e3 * value / repeats:.3f} ms", "<= 1 ms", value / repeats <= 1e-3)
        for name, value in found.items()
    ]
    size = sizes["msgpack"]
    return [*rows, Row("5 qubits complex128, MessagePack: bytes", f"{size}", "<= 1024", size <= 1024)]


def _side_by_side(quick: bool) -> list[Row]:
    """Save and load the same states in every format and with every peer."""
    rows = []
    for qubits, turns in ((5, 15), (16 if quick else 20, 3 if quick else 7)):
        state = _state(qubits)
        folder = Path(tempfile.mkdtemp(dir=_memory()))
        try:
            cases: dict[str, Case] = {f".{name}": _ours(state, folder / f"state.{name}", name) for name in FORMATS}
            if qubits > 16:
                for name in ("json", "json.zlib"):
                    cases[f".{name}"] = _ours(state, folder / f"state.{name}", name, max_text_bytes=1 << 30)
            cases |= _peers(state, folder)
            times = {}
            for name, (write, read, _) in cases.items():
                times[name, "write"], times[name, "read"] = write, read
                write()
            found = medians(rounds({f"{a} {b}": case for (a, b), case in times.items()}, turns))
            for name, (_, _, path) in cases.items():
                write_ms, read_ms = (1e3 * found[f"{name} {what}"] for what in ("write", "read"))
                measured = f"{path.stat().st_size} B, {write_ms:.2f} ms, {read_ms:.2f} ms"
                rows.append(Row(f"{qubits} qubits, {name}: bytes, write, read", measured, "", True))
        finally:
            shutil.rmtree(folder)
    return rows


def _ours(state: qm.StateVector, path: Path, name: str, max_text_bytes: int | None = None) -> Case:
    save_with: dict[str, Any] = {} if max_text_bytes is None else {"max_text_bytes": max_text_bytes}
    load_with: dict[str, Any] = {} if max_text_bytes is None else {"max_bytes": max_text_bytes}
    if name == "pkl":
        load_with["allow_pickle"] = True
    return lambda: qm.save(state, path, **save_with), lambda: qm.load(path, **load_with), path


def _peers(state: qm.StateVector, folder: Path) -> dict[str, Case]:
    """Return what users save states with today, as far as it is installed."""
    amplitudes = state.amplitudes
    npz, pkl = folder / "peer.npz", folder / "peer.pickle"
    cases: dict[str, Case] = {
        "np.savez_compressed (no fsync)": (
            lambda: np.savez_compressed(npz, psi=amplitudes),
            lambda: np.load(npz)["psi"],
            npz,
        ),
        "pickle (no fsync)": (
            lambda: pkl.write_bytes(pickle.dumps(amplitudes, protocol=5)),
            lambda: pickle.loads(pkl.read_bytes()),
            pkl,
        ),
    }
    for name, make in (
        ("torch.save (no fsync)", _torch),
        ("safetensors (no fsync)", _safetensors),
        ("QuTiP qsave (no fsync)", _qutip),
        ("PennyLane Dataset (no fsync)", _pennylane),
    ):
        try:
            cases[name] = make(amplitudes, folder)
        except ImportError as error:
            print(f"  {name}: {error.name} is not installed")
    return cases


def _torch(amplitudes: Any, folder: Path) -> Case:
    torch = import_module("torch")
    path = folder / "peer.pt"
    tensor = torch.from_numpy(amplitudes)
    return lambda: torch.save(tensor, path), lambda: torch.load(path), path


def _safetensors(amplitudes: Any, folder: Path) -> Case:
    module = import_module("safetensors.numpy")
    path = folder / "peer.safetensors"
    # It has no complex128: the pairs of reals, whose meaning the reader has to know.
    pairs = amplitudes.view(np.float64)
    return lambda: module.save_file({"psi": pairs}, path), lambda: module.load_file(path), path


def _qutip(amplitudes: Any, folder: Path) -> Case:
    qutip = import_module("qutip")
    path = folder / "peer.qu"
    ket = qutip.Qobj(amplitudes.reshape(-1, 1), dims=[[2] * (len(amplitudes).bit_length() - 1), [1]])
    return lambda: qutip.qsave(ket, str(folder / "peer")), lambda: qutip.qload(str(folder / "peer")), path


def _pennylane(amplitudes: Any, folder: Path) -> Case:
    data = import_module("pennylane").data
    path = folder / "peer.h5"

    def write() -> None:
        path.unlink(missing_ok=True)
        data.Dataset(psi=amplitudes).write(path)

    def read() -> Any:
        opened = data.Dataset.open(path, "r")
        psi = np.asarray(opened.psi)
        opened.close()
        return psi

    return write, read, path


def _store(quick: bool) -> list[Row]:
    """Append a state of 5 qubits to an empty store and to one of many."""
    folder = Path(tempfile.mkdtemp(dir=_memory()))
    try:
        many = 1000 if quick else 10_000
        state = _state(5)
        full = qm.HDF5QuantumStorage(folder / "full.h5")
        for _ in range(many):
            full.save_quantum_state(state)

        def in_empty() -> None:
            qm.HDF5QuantumStorage(folder / "empty.h5").save_quantum_state(state)

        empty, in_full = [], []
        for _ in range(8):
            (folder / "empty.h5").unlink(missing_ok=True)
            in_empty()  # the first makes the file
            found = medians(rounds({"empty": in_empty, "full": lambda: full.save_quantum_state(state)}, 20))
            empty.append(found["empty"])
            in_full.append(found["full"])
        a, b = 1e3 * float(np.median(empty)), 1e3 * float(np.median(in_full))
        return [
            Row(f"5 qubits, HDF5: save into a store of {many} states", f"{b:.2f} ms", "<= 5 ms", b <= 5),
            Row("the same, against a store of a few states", f"{b / a:.2f} x", "<= 1.2 x", b <= 1.2 * a),
        ]
    finally:
        shutil.rmtree(folder)


def _series(quick: bool) -> list[Row]:
    """Append PAD samples to a time series one at a time."""
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    try:
        count = 10_000 if quick else 100_000
        storage = qm.HDF5QuantumStorage(folder / "series.h5")
        names = iter(range(1000))

        def append() -> None:
            with storage.time_series(f"pad{next(names)}") as series:
                for step in range(count):
                    series.append((0.1, 0.2, step / count), time=0.01 * step)

        seconds = medians(rounds({"append": append}, 3))["append"]
        window = medians(rounds({"read": lambda: storage.read_series("pad0", count // 2, count // 2 + 100)}, 15))[
            "read"
        ]
        return [
            Row(
                f"HDF5 time series: {count} PAD samples, one append each, durable",
                f"{seconds:.2f} s",
                "<= 5 s",
                seconds <= 5,
            ),
            Row("the same: read a window of 100", f"{1e3 * window:.1f} ms", "", True),
        ]
    finally:
        shutil.rmtree(folder)


def _against_h5py(folder: Path, count: int, turns: int) -> list[Row]:
    rng = np.random.default_rng(27)
    amplitudes = rng.standard_normal(2 * count, dtype=np.float32).view(np.complex64)
    state = qm.StateVector(amplitudes, qubit_order="big")
    plain, ours = folder / "plain.h5", folder / "ours.h5"

    def plain_save() -> None:
        with h5py.File(plain, "w") as file:
            file.create_dataset("psi", data=amplitudes)
        descriptor = os.open(plain, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def plain_load() -> None:
        with h5py.File(plain, "r") as file:
            file["psi"][:]

    new = {"h5py": partial(plain.unlink, missing_ok=True), "ours": partial(ours.unlink, missing_ok=True)}
    found = medians(rounds({"h5py": plain_save, "ours": lambda: qm.save(state, ours)}, turns, new))
    found |= medians(rounds({"h5py read": plain_load, "load": lambda: qm.load(ours)}, turns))
    where = {"count": count, "path": str(ours)}
    make = "return np.ones(N, np.complex64)"
    save_memory = extra_memory(_CHILD.format(**where, setup=make, work="qm.save(prepared, PATH)"))
    load_memory = extra_memory(_CHILD.format(**where, setup=make, work="qm.load(PATH, out=prepared)"))
    size = f"{amplitudes.nbytes >> 30} GiB" if amplitudes.nbytes >> 30 else f"{amplitudes.nbytes >> 20} MiB"
    saved, loaded = found["ours"] / found["h5py"], found["load"] / found["h5py read"]
    return [
        Row(
            f"{size} complex64, HDF5: save with SHA-256 and fsync, against plain h5py + fsync",
            f"{saved:.2f} x",
            "<= 1.25 x",
            saved <= 1.25,
        ),
        Row(
            f"{size}, HDF5: load, every byte checked, against plain h5py from page cache",
            f"{loaded:.2f} x",
            "<= 1.6 x",
            loaded <= 1.6,
        ),
        *(
            Row(f"{size}, HDF5: memory beside the state, {what}", f"{used >> 20} MiB", "<= 64 MiB", used <= 64 << 20)
            for what, used in (("save", save_memory), ("load", load_memory))
        ),
    ]


def _state(qubits: int) -> qm.StateVector:
    rng = np.random.default_rng(qubits)
    amplitudes = rng.standard_normal(1 << qubits) + 1j * rng.standard_normal(1 << qubits)
    return qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="big")


def _memory() -> Path | None:
    """Return a file system in memory, where there is one: what is compared is the work and not the disk."""
    shm = Path("/dev/shm")
    return shm if shm.is_dir() else None

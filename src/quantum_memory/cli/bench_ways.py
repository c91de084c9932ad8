"""Ways in which people keep a state vector: ours, and those of others, called as a user would call them.

Each is optional but ours; one whose package is not installed is named by `absent`.
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

import quantum_memory as qm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quantum_memory.state.arrays import AnyArray


@dataclass(frozen=True)
class Way:
    """A way of keeping an array.

    Attributes
    ----------
    name, suffix
        What it is called, and how its file ends.
    save, load
        Write an array to a path; return it.
    part
        Return some items of it, from one index to another, or None where only all of it can be read.
    check
        Read all of it, and raise where it is damaged; None where there is no such thing.
    checkpoint
        Add it to a history in a folder; None where that is one more file.
    package
        Which has to be installed.
    ours, synced
        Whether it is ours, and whether a power cut right after a save leaves it.
    """

    name: str
    suffix: str
    save: Callable[[Path, AnyArray], object]
    load: Callable[[Path], AnyArray]
    part: Callable[[Path, int, int], AnyArray] | None = None
    check: Callable[[Path], object] | None = None
    checkpoint: Callable[[Path, AnyArray], object] | None = None
    package: str = "numpy"
    ours: bool = False
    synced: bool = False


def ways() -> list[Way]:
    """Return those that can be used."""
    return [way for way in WAYS if find_spec(way.package) is not None]


def absent() -> list[str]:
    """Return the names of those that are not installed."""
    return [way.name for way in WAYS if find_spec(way.package) is None]


def _ours(**options: Any) -> Callable[[Path, AnyArray], object]:
    def save(path: Path, array: AnyArray) -> object:
        return qm.save(qm.StateVector(array, qubit_order="big"), path, **options)

    return save


def _checkpoint(folder: Path, array: AnyArray) -> None:
    with qm.CheckpointManager(folder) as history:
        history.create_checkpoint(qm.StateVector(array, qubit_order="big"))


def _load(path: Path) -> AnyArray:
    state = qm.load(path).quantum
    assert isinstance(state, qm.StateVector)  # noqa: S101 - as it was saved
    return state.amplitudes


def _part(path: Path, start: int, stop: int) -> AnyArray:
    with qm.open(path) as file:
        return np.asarray(file.amplitudes[start:stop])


def _save_zipped(path: Path, array: AnyArray) -> None:
    np.savez_compressed(path, psi=array)


def _load_zipped(path: Path) -> AnyArray:
    with np.load(path) as file:
        found: AnyArray = file["psi"]
        return found


def _save_hdf5(path: Path, array: AnyArray) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("psi", data=array, chunks=True, compression="gzip")


def _part_hdf5(path: Path, start: int, stop: int | None) -> AnyArray:
    import h5py

    with h5py.File(path, "r") as file:
        found: AnyArray = file["psi"][start:stop]
        return found


def _save_pickle(path: Path, array: AnyArray) -> None:
    with path.open("wb") as file:
        pickle.dump(array, file, protocol=5)


def _load_pickle(path: Path) -> AnyArray:
    with path.open("rb") as file:
        found: AnyArray = pickle.load(file)  # noqa: S301 - which we have just written
        return found


def _save_torch(path: Path, array: AnyArray) -> None:
    import torch

    torch.save(torch.from_numpy(array), path)


def _load_torch(path: Path) -> AnyArray:
    import torch

    found: AnyArray = torch.load(path, weights_only=True).numpy()
    return found


def _save_safetensors(path: Path, array: AnyArray) -> None:
    from safetensors.numpy import save_file

    save_file({"psi": array.view(array.real.dtype)}, path)  # it has no complex128


def _load_safetensors(path: Path) -> AnyArray:
    from safetensors.numpy import load_file

    reals = load_file(path)["psi"]
    return np.asarray(reals.view(np.result_type(reals.dtype, np.complex64)))


def _save_zarr(path: Path, array: AnyArray) -> None:
    import zarr

    zarr.save_array(path, array, overwrite=True)  # type: ignore[arg-type] # its protocol of arrays is narrower than NumPy's


def _part_zarr(path: Path, start: int, stop: int | None) -> AnyArray:
    import zarr

    return np.asarray(zarr.open_array(path, mode="r")[start:stop])


def _save_qutip(path: Path, array: AnyArray) -> None:
    import qutip

    qutip.qsave(qutip.Qobj(array.reshape(-1, 1)), path.with_suffix(""))


def _load_qutip(path: Path) -> AnyArray:
    import qutip

    found: AnyArray = qutip.qload(path.with_suffix("")).full()[:, 0]
    return found


def _save_tenpy(path: Path, array: AnyArray) -> None:
    from tenpy.tools import hdf5_io

    hdf5_io.save({"psi": array}, path)


def _load_tenpy(path: Path) -> AnyArray:
    from tenpy.tools import hdf5_io

    found: AnyArray = hdf5_io.load(path)["psi"]
    return found


def _save_pennylane(path: Path, array: AnyArray) -> None:
    import pennylane as qml

    with suppress(FileNotFoundError):
        path.unlink()  # it adds to what is there
    qml.data.Dataset(psi=array).write(path)


def _load_pennylane(path: Path) -> AnyArray:
    import pennylane as qml

    dataset = qml.data.Dataset.open(path)
    try:
        return np.asarray(dataset.psi)
    finally:
        dataset.close()


WAYS = [
    Way("quantum-memory", ".qms", _ours(), _load, _part, qm.verify, ours=True, synced=True),
    Way(
        "quantum-memory, uncompressed", ".qms", _ours(compression="none"), _load, _part, qm.verify, _checkpoint,
        ours=True, synced=True,
    ),
    Way("quantum-memory, uncompressed, not synced", ".qms", _ours(compression="none", durable=False), _load, _part,
        qm.verify, ours=True),
    Way("quantum-memory, HDF5", ".h5", _ours(), _load, _part, qm.verify, ours=True, synced=True),
    Way("np.save", ".npy", np.save, np.load, lambda path, a, b: np.array(np.load(path, mmap_mode="r")[a:b])),
    Way("np.savez_compressed", ".npz", _save_zipped, _load_zipped),
    Way("h5py, gzip", ".h5", _save_hdf5, lambda path: _part_hdf5(path, 0, None), _part_hdf5, package="h5py"),
    Way("pickle", ".pkl", _save_pickle, _load_pickle),
    Way("torch.save", ".pt", _save_torch, _load_torch, package="torch"),
    Way("safetensors", ".safetensors", _save_safetensors, _load_safetensors, package="safetensors"),
    Way("zarr", ".zarr", _save_zarr, lambda path: _part_zarr(path, 0, None), _part_zarr, package="zarr"),
    Way("QuTiP qsave", ".qu", _save_qutip, _load_qutip, package="qutip"),
    Way("TeNPy hdf5_io", ".h5", _save_tenpy, _load_tenpy, package="tenpy"),
    Way("PennyLane Dataset", ".h5", _save_pennylane, _load_pennylane, package="pennylane"),
]  # fmt: skip

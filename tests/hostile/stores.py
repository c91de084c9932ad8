# ruff: noqa: E501 - one case on one line, as in a table
"""HDF5 files that make the library do something: follow links, open other files, run filters, walk in circles."""

from __future__ import annotations

import functools
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

import quantum_memory as qm

from .case import DAMAGED, LATER, READ, UNSAFE, Case

if TYPE_CHECKING:
    from collections.abc import Callable

STATE = "quantum_states/state"
AMPLITUDES = f"{STATE}/quantum_data/amplitudes"
MEMORY = qm.MemoryState(np.ones(2) / np.sqrt(2), {"w": np.arange(3.0)}, metadata={"run": "a"})
PIPE = "pipe"
"""Beside the file, with nobody writing to it: who opens it waits for ever."""


def with_store(change: Callable[[h5py.File], object]) -> bytes:
    """Return a store of one state, changed."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "store.h5"
        qm.save(MEMORY, path, durable=False)
        with h5py.File(path, "r+", libver="v110") as file:
            change(file)
        return path.read_bytes()


def instead(name: str, put: Callable[[h5py.Group, str], object]) -> bytes:
    """Return a store in which something stands in the place of something else."""

    def change(file: h5py.File) -> None:
        del file[name]
        group, _, last = name.rpartition("/")
        put(file[group or "/"], last)

    return with_store(change)


def foreign(put: Callable[[h5py.File], object], **options: Any) -> bytes:
    """Return an HDF5 file that is no store."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "any.h5"
        with h5py.File(path, "w", libver="v110", **options) as file:
            put(file)
        return path.read_bytes()


def linked(link: Any) -> Callable[[h5py.Group, str], object]:
    return lambda group, name: group.__setitem__(name, link)


def made(shape: Any = (2,), dtype: Any = "<f8", **options: Any) -> Callable[[h5py.Group, str], object]:
    return lambda group, name: group.create_dataset(name, shape, dtype, **options)


def virtual(group: h5py.Group, name: str) -> None:
    layout = h5py.VirtualLayout((2,), "<f8")
    layout[:] = h5py.VirtualSource(PIPE, "a", (2,))
    group.create_virtual_dataset(name, layout)


def strange_filter(group: h5py.Group, name: str) -> None:
    facts = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    facts.set_chunk((2,))
    facts.set_filter(32_000, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    made = h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((2,)), facts)
    made.write_direct_chunk((0,), np.ones(2).tobytes())


def bomb(group: h5py.Group, name: str) -> None:
    dataset = group.create_dataset(name, (2,), "<f8", chunks=(2,), compression="gzip")
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(256 << 20), 9))


def references(kind: Any) -> Callable[[h5py.Group, str], object]:
    def put(group: h5py.Group, name: str) -> None:
        dataset = group.create_dataset(name, (2,), kind)
        whole = group.file[f"{STATE}/classical_data/w"]
        dataset[0] = whole.ref if kind is h5py.ref_dtype else whole.regionref[:]

    return put


def deep(file: h5py.File) -> None:
    group = file["quantum_states"]
    for _ in range(500):
        group = group.create_group("g")


def many(file: h5py.File) -> None:
    for number in range(3000):
        file["quantum_states"].create_group(f"s{number}")


def attribute(name: str, value: Any) -> bytes:
    return with_store(lambda file: file[STATE].attrs.__setitem__(name, value))


@functools.cache
def whole() -> bytes:
    return with_store(len)


COMPOUND = np.dtype([(f"f{number}", "<f8") for number in range(1000)])
STORES: list[Case] = [
    Case("an external link in the place of a state", "opens the other file", UNSAFE, lambda: instead(STATE, linked(h5py.ExternalLink(PIPE, "/a"))), "h5"),
    Case("an external link in the place of amplitudes", "opens the other file", UNSAFE, lambda: instead(AMPLITUDES, linked(h5py.ExternalLink(PIPE, "/a"))), "h5"),
    Case("a soft link to itself", "follows it", UNSAFE, lambda: instead(STATE, linked(h5py.SoftLink(f"/{STATE}"))), "h5"),
    Case("a soft link to the amplitudes of another", "reads them", UNSAFE, lambda: instead(AMPLITUDES, linked(h5py.SoftLink(f"/{STATE}/classical_data/w"))), "h5"),
    Case("a group that is in itself", "walks in circles", READ, lambda: with_store(lambda file: file[STATE].__setitem__("self", file[STATE])), "h5"),
    Case("the root in a state", "walks in circles", READ, lambda: with_store(lambda file: file[f"{STATE}/classical_data"].__setitem__("root", file["/"])), "h5"),
    Case("amplitudes whose data are in another file", "reads it", UNSAFE, lambda: instead(AMPLITUDES, made(external=[(PIPE, 0, 16)])), "h5"),
    Case("amplitudes that are a view of another file", "opens it", UNSAFE, lambda: instead(AMPLITUDES, virtual), "h5"),
    Case("amplitudes of 2 TiB that are not there", "allocates them", "BudgetError", lambda: instead(AMPLITUDES, made((1 << 38,), chunks=(1 << 16,))), "h5"),
    Case("amplitudes of 2 TiB in one piece that is not there", "allocates them", "BudgetError", lambda: instead(AMPLITUDES, made((1 << 38,))), "h5"),
    Case("a filter that nobody knows", "loads a plugin", DAMAGED, lambda: instead(AMPLITUDES, strange_filter), "h5"),
    Case("a chunk of 256 MiB of zeros", "decodes them", DAMAGED, lambda: instead(AMPLITUDES, bomb), "h5"),
    Case("references to objects", "follows them", DAMAGED, lambda: instead(AMPLITUDES, references(h5py.ref_dtype)), "h5"),
    Case("references to regions", "follows them", DAMAGED, lambda: instead(AMPLITUDES, references(h5py.regionref_dtype)), "h5"),
    Case("a type of a thousand fields", "makes a dtype of them", DAMAGED, lambda: instead(AMPLITUDES, made(dtype=COMPOUND)), "h5"),
    Case("texts of any length", "follows pointers into a heap", DAMAGED, lambda: instead(AMPLITUDES, made(dtype=h5py.string_dtype())), "h5"),
    Case("arrays of any length", "follows pointers into a heap", DAMAGED, lambda: instead(AMPLITUDES, made(dtype=h5py.vlen_dtype("<f8"))), "h5"),
    Case("an enumeration", "makes a dtype of it", DAMAGED, lambda: instead(AMPLITUDES, made(dtype=h5py.enum_dtype({"a": 1}))), "h5"),
    Case("a type in the place of amplitudes", "crashes", UNSAFE, lambda: instead(AMPLITUDES, linked(np.dtype("<f8"))), "h5"),
    Case("a group in the place of amplitudes", "crashes", DAMAGED, lambda: instead(AMPLITUDES, lambda group, name: group.create_group(name)), "h5"),
    Case("amplitudes in the place of a state", "crashes", DAMAGED, lambda: instead(STATE, made()), "h5"),
    Case("no space at all", "crashes", UNSAFE, lambda: instead(AMPLITUDES, made(None, h5py.Empty("<f8"))), "h5"),
    Case("500 groups in one another", "recurses", "InvalidStateError", lambda: with_store(deep), "h5"),
    Case("3000 empty states", "reads each of them", "InvalidStateError", lambda: with_store(many), "h5"),
    Case("an attribute of 4000 numbers", "reads it", READ, lambda: attribute("numbers", np.zeros(4000)), "h5"),
    Case("a digest of another state", "never compares it", DAMAGED, lambda: attribute("sha256", np.bytes_(b"0" * 64)), "h5"),
    Case("a name of the content that is a number", "crashes", DAMAGED, lambda: attribute("content_id", 5), "h5"),
    Case("an index of another kind", "crashes", READ, lambda: instead("index/chronological", made((1,), "<f8")), "h5"),
    Case("an index that is a link to another file", "opens it", READ, lambda: instead("index", linked(h5py.ExternalLink(PIPE, "/"))), "h5"),
    Case("another program's HDF5", "reads what it finds", DAMAGED, lambda: foreign(lambda file: file.create_dataset("a", (2,), "<f8")), "h5"),
    Case("HDF5 behind 512 bytes of something else", "finds it there", DAMAGED, lambda: foreign(lambda file: file.create_group("a"), userblock_size=512), "h5"),
    Case("a store that is cut in the middle", "reads past its end", DAMAGED, lambda: whole()[: len(whole()) // 2], "h5"),
    Case("a store with its line ends changed", "reads shifted data", DAMAGED, lambda: whole().replace(b"\r\n", b"\n", 1), "h5"),
    Case("a signature of HDF5 and no more", "crashes", UNSAFE, lambda: whole()[:8], "h5"),
    Case("a superblock of a version that there is not", "guesses", LATER, lambda: whole()[:8] + b"\x09" + whole()[9:], "h5"),
    Case("a link beside the states", "follows it", READ, lambda: with_store(lambda file: file.__setitem__("mine", h5py.ExternalLink(PIPE, "/a"))), "h5"),
]  # fmt: skip

"""HDF5 files that say things which the library would do: refused before any of their data are read."""

import io
import zlib

import h5py
import numpy as np
import pytest

from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import BudgetError, IntegrityError, QuantumMemoryError, UnsafeError
from quantum_memory.formats import hdf5_guard as guard
from quantum_memory.formats import legacy

from .fixtures import DATA

FLOAT = np.dtype("<f8")
FILTERS = (guard.DEFLATE, guard.LZF, guard.SHUFFLE)


def made(write):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        write(file)
    return ReadableBytes(stream.getvalue())


def read(source, name="a", *, max_bytes=1 << 24, dtypes=(FLOAT,), filters=FILTERS):
    with guard.opened(source) as root:
        return guard.read_dataset(
            guard.child(root, name), max_bytes=max_bytes, dtypes=dtypes, filters=filters, file_bytes=source.size
        )


@pytest.mark.parametrize("filters", [{}, {"compression": "gzip"}, {"compression": "lzf"}], ids=str)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("shape", [(100, 101), (7,), (2, 3, 5)])
def test_chunks_are_decoded_as_the_library_does(filters, shuffle, shape):
    rng = np.random.default_rng(1)
    data = rng.integers(0, 3, shape).astype(FLOAT) + (rng.random(shape) < 0.1) * rng.random(shape)
    chunks = tuple(max(1, length // 3) for length in shape)
    source = made(lambda file: file.create_dataset("a", data=data, chunks=chunks, shuffle=shuffle, **filters))
    assert np.array_equal(read(source), data)


def test_data_that_do_not_shrink_are_stored_as_they_are():
    data = np.random.default_rng(1).random(1000)
    assert np.array_equal(
        read(made(lambda file: file.create_dataset("a", data=data, chunks=(100,), compression="lzf"))), data
    )


def soft(file):
    file["b"] = np.ones(2)
    file["a"] = h5py.SoftLink("/b")


def virtual(file):
    layout = h5py.VirtualLayout((2,), FLOAT)
    layout[:] = h5py.VirtualSource("/etc/passwd", "a", (2,))
    file.create_virtual_dataset("a", layout)


def bomb(file):
    made = file.create_dataset("a", (1 << 10,), FLOAT, chunks=(1 << 10,), compression="gzip")
    made.id.write_direct_chunk((0,), zlib.compress(bytes(50 << 20)))


HOSTILE = {
    "a soft link": (soft, UnsafeError),
    "an external link": (lambda file: file.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/a")), UnsafeError),
    "a type": (lambda file: file.__setitem__("a", np.dtype("<f8")), UnsafeError),
    "a group": (lambda file: file.create_group("a"), IntegrityError),
    "nothing": (lambda file: file.create_group("b"), IntegrityError),
    "data in another file": (
        lambda file: file.create_dataset("a", (2,), FLOAT, external=[("/etc/passwd", 0, 16)]), UnsafeError
    ),
    "a virtual dataset": (virtual, UnsafeError),
    "another filter": (lambda file: file.create_dataset("a", (9,), FLOAT, fletcher32=True), UnsafeError),
    "another dtype": (lambda file: file.create_dataset("a", (9,), ">f8"), IntegrityError),
    "texts": (lambda file: file.create_dataset("a", data=["x"]), IntegrityError),
    "an empty space": (lambda file: file.create_dataset("a", data=h5py.Empty(FLOAT)), UnsafeError),
    "a shape without data": (lambda file: file.create_dataset("a", (1 << 18,), FLOAT), IntegrityError),
    "a shape without end": (
        lambda file: file.create_dataset("a", (1 << 50,), FLOAT, chunks=(1 << 10,), compression="gzip"), BudgetError
    ),
    "a chunk that is a bomb": (bomb, IntegrityError),
}  # fmt: skip


@pytest.mark.parametrize("title", HOSTILE)
def test_what_the_library_would_do_is_refused(title):
    write, kind = HOSTILE[title]
    source = made(write)
    with pytest.raises(kind) as caught:
        read(source)
    assert caught.value.path == source.name
    assert caught.value.next_step


@pytest.mark.parametrize("name", ["", ".", "/a", "a/b", "../a"])
def test_a_name_is_no_path(name):
    with pytest.raises(IntegrityError):
        read(made(lambda file: file.create_group("a").create_group("b")), name)


def test_attributes_are_one_text_or_one_number():
    def write(file):
        file.attrs.update({"text": "é", "long": "x" * 100, "number": 3, "many": [1, 2], "bytes": np.bytes_(b"y" * 100)})

    with guard.opened(made(write)) as root:
        assert guard.text_attribute(root, "text", 10, variable=True) == "é"
        assert guard.text_attribute(root, "bytes", 100) == "y" * 100
        with pytest.raises(IntegrityError):  # it is in a heap
            guard.text_attribute(root, "text", 10)
        assert guard.number_attribute(root, "number") == 3
        for name in ("long", "bytes"):
            with pytest.raises(UnsafeError):
                guard.text_attribute(root, name, 10, variable=True)
        for name in ("number", "many", "none"):
            with pytest.raises(IntegrityError):
                guard.text_attribute(root, name, 10)
        for name in ("text", "many", "none"):
            with pytest.raises(IntegrityError):
                guard.number_attribute(root, name)


def test_a_heap_of_texts_that_goes_round_in_circles_is_refused():
    data = bytearray((DATA / "hdf5" / "h_n3_none.h5").read_bytes())
    at = data.find(b"GCOL\1") + 16
    while data[at : at + 2] != b"\0\0":  # to the free space at the end
        at += 16 + -(-int.from_bytes(data[at + 8 : at + 16], "little") // 8) * 8
    data[at + 8 : at + 16] = bytes(8)
    with pytest.raises(QuantumMemoryError, match="heap"):
        legacy.read(ReadableBytes(data))


@pytest.mark.parametrize("at", [*range(20, 29), (1 << 18) - 3, (1 << 18) - 1, 1 << 18, (1 << 18) + 1])
def test_a_damaged_heap_is_found_wherever_it_begins(at):
    data = bytearray(guard.SIGNATURE + bytes([0, 0, 0, 0, 0, 8, 8]) + bytes((1 << 18) + 8192))
    guard.check_heaps(ReadableBytes(data))
    data[at : at + 5] = b"GCOL\1"
    data[at + 8 : at + 16] = (4096).to_bytes(8, "little")
    data[at + 16 : at + 32] = (1).to_bytes(8, "little") + (1 << 40).to_bytes(8, "little")
    with pytest.raises(IntegrityError, match="heap"):
        guard.check_heaps(ReadableBytes(data))

"""Pickles: of plain values, in one spelling, and no other pickle is read."""

import io
import pickle
import pickletools

import numpy as np
import pytest

import quantum_memory as qm
from quantum_memory.errors import IntegrityError, UnsafeError, UnsupportedVersionError
from quantum_memory.formats.pickle_format import from_pickle, to_pickle
from quantum_memory.formats.prepared import Prepared
from quantum_memory.testing.damage import flips

from ..hostile.trees import VALUES, ours
from .watched import read, refusal


@pytest.fixture
def rich(small):
    small.classical |= {"fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">i4")}
    small.classical |= {"empty": np.ones((0, 3)), "scalar": np.array(7.5), "strided": np.arange(10)[::3]}
    return small


def test_plain_pickle_gives_a_dict_of_plain_values(rich, tmp_path):
    qm.save(rich, tmp_path / "a.pkl")
    with (tmp_path / "a.pkl").open("rb") as file:
        parts = pickle.load(file)
        assert len(file.read()) == 32  # the seal
    assert list(parts) == ["format", "version", "arrays", "document", "content_id"]
    assert parts["content_id"] == rich.content_id
    array = parts["arrays"]["quantum/amplitudes"]
    assert array == {"dtype": "c128", "shape": (32,), "data": rich.quantum.amplitudes.tobytes()}
    assert to_pickle(rich) == (tmp_path / "a.pkl").read_bytes()


def test_it_names_nothing_and_needs_ten_operations(rich):
    used = {operation.name for operation, _, _ in pickletools.genops(to_pickle(rich)[:-32])}
    plain = {"PROTO", "STOP", "EMPTY_DICT", "MARK", "SETITEMS", "TUPLE", "SHORT_BINUNICODE", "BINUNICODE"}
    assert used == plain | {"BININT1", "SHORT_BINBYTES", "BINBYTES"}


@pytest.mark.parametrize("length", [0, 255, 256, 65535, 65536])
def test_every_form_of_a_length_is_one_that_pickle_reads(length):
    memory = qm.MemoryState(classical=np.arange(length, dtype=np.uint8), metadata={"t": "y" * length})
    data = to_pickle(memory)
    array = pickle.loads(data)["arrays"]["classical"]
    assert array["shape"] == (length,)
    assert len(array["data"]) == length
    assert from_pickle(data, allow_pickle=True) == memory


@pytest.mark.parametrize("number", [(1 << 31) - 1, 1 << 31, (1 << 62) + 5])
def test_so_it_is_for_the_numbers_of_long_shapes(number):
    memory = qm.MemoryState(classical=np.empty((0, number), np.uint8))
    assert pickle.loads(to_pickle(memory))["arrays"]["classical"]["shape"] == (0, number)


def test_without_being_asked_to_no_pickle_is_read(tmp_path, small):
    path = tmp_path / "a.pkl"
    qm.save(small, path)
    for verb in (qm.load, qm.open, qm.info, qm.verify):
        with pytest.raises(UnsafeError, match=r"it is a pickle.*allow_pickle=True \(qmem: --allow-pickle\)"):
            verb(path)
        verb(path, allow_pickle=True)
    with pytest.raises(UnsafeError):
        from_pickle(path.read_bytes())


# ---- out of band


def test_arrays_can_travel_beside_the_pickle_without_a_copy(rich):
    buffers: list[pickle.PickleBuffer] = []
    data = to_pickle(rich, buffers.append)
    assert len(data) < len(to_pickle(rich)) - rich.quantum.amplitudes.nbytes
    assert len(buffers) == len(rich.flatten().arrays)
    found = from_pickle(data, buffers, allow_pickle=True)
    assert found == rich
    assert np.shares_memory(found.quantum.amplitudes, rich.quantum.amplitudes)
    parts = pickle.loads(data, buffers=buffers)
    assert bytes(parts["arrays"]["quantum/amplitudes"]["data"]) == rich.quantum.amplitudes.tobytes()


def test_those_that_the_callback_wants_in_the_pickle_are_there(rich):
    assert to_pickle(rich, lambda _: True) == to_pickle(rich)
    buffers: list[pickle.PickleBuffer] = []
    data = to_pickle(rich, lambda buffer: buffer.raw().nbytes < 100 or buffers.append(buffer))
    assert [buffer.raw().nbytes for buffer in buffers] == [512]
    assert from_pickle(data, buffers, allow_pickle=True) == rich


def test_buffers_of_another_content_number_or_length_are_refused(rich):
    buffers: list[pickle.PickleBuffer] = []
    data = to_pickle(rich, buffers.append)
    kept = [bytes(buffer) for buffer in buffers]
    others = [None, [], kept[:-1], [b"", *kept[1:]], kept[::-1]]
    for index, one in enumerate(kept):
        others += [[*kept[:index], flipped, *kept[index + 1 :]] for flipped in list(flips(one))[:64]]
    for other in others:
        with pytest.raises(IntegrityError):
            from_pickle(data, other, allow_pickle=True)
    assert from_pickle(data, kept, allow_pickle=True) == rich


def test_an_honest_forgery_is_read():
    assert read("pkl", ours(b"C\x10", b"C\x10")).classical.tolist() == VALUES.tolist()


def test_a_later_version_says_so():
    assert isinstance(refusal("pkl", ours(b"\x8c\x032.0", b"\x8c\x033.0")), UnsupportedVersionError)


def test_it_can_be_written_to_what_does_not_seek(rich):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    from quantum_memory.formats.registry import SaveOptions, format_named

    for suffix in ("msgpack", "npz", "pkl", "b64"):
        pipe = Pipe()
        format_named(suffix).handler.write(pipe, Prepared.plain(rich), SaveOptions())
        assert read(suffix, pipe.data) == rich

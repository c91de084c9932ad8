from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_memory.cloud.layout import LEAST_CHUNK, Place, default_chunk, node_name
from quantum_memory.cloud.reader import _place
from quantum_memory.errors import IntegrityError
from quantum_memory.state.arrays import CHUNK_BYTES, STORABLE, chunk_count

_SHAPES = st.lists(st.integers(0, 1 << 24), max_size=4).filter(lambda shape: math.prod(shape) < 1 << 40).map(tuple)
_CHUNKS = st.none() | st.integers(1, 64).map(lambda mebibytes: mebibytes << 20)


@given(dtype=st.sampled_from(sorted(STORABLE)), shape=_SHAPES, chunk_bytes=_CHUNKS)
def test_chunks_are_whole_mebibytes_that_cover_the_array_once(dtype, shape, chunk_bytes) -> None:
    place = Place.cut(dtype, shape, chunk_bytes)
    assert place.size == math.prod(place.zarr_shape)
    assert len(place.zarr_chunks) == len(place.zarr_shape)
    assert place.chunks == math.prod(-(-n // c) for n, c in zip(place.zarr_shape, place.zarr_chunks, strict=True))
    assert place.chunks == 1 or place.chunk * place.itemsize % CHUNK_BYTES == 0 or not place.size
    assert place.chunk * place.itemsize <= 4 * (chunk_bytes or default_chunk(place.nbytes))
    if place.chunks:
        first, last = place.row_slice(0), place.row_slice(place.chunks - 1)
        assert (first.start, last.stop) == (0, chunk_count(place.nbytes))
        assert place.items(place.chunks - 1).stop == place.size
        assert math.prod(place.shape_of(place.chunks - 1)) == place.size - place.items(place.chunks - 1).start
    said = place.to_json()
    assert _place("x", said) == place


@given(start=st.integers(0, 1 << 22), length=st.integers(0, 1 << 22))
def test_items_are_found_in_their_chunks(start, length) -> None:
    place = Place.cut("c64", (1 << 23,), 1 << 20)
    stop = min(place.size, start + length)
    found = list(place.chunks_of(start, stop))
    items = [index * place.chunk + n for index, there, _ in found for n in (there.start, there.stop)]
    assert items == ([] if start >= stop else sorted(items))
    assert sum(there.stop - there.start for _, there, _ in found) == max(0, stop - start)
    assert [here.start for _, _, here in found] == [
        sum(there.stop - there.start for _, there, _ in found[:k]) for k in range(len(found))
    ]


def test_chunks_grow_where_there_would_be_too_many() -> None:
    assert default_chunk(16 << 40) == 16 << 20
    assert default_chunk((16 << 40) + 1) == 32 << 20
    assert default_chunk(1 << 30) == default_chunk(0) == LEAST_CHUNK


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"])), min_size=2, max_size=2, unique=True
    )
)
def test_two_paths_have_two_places(parts) -> None:
    assert len({node_name(f"classical/{part}") for part in parts}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"chunk": 0},
        {"chunk": 1 << 40},
        {"chunk": 3},
        {"rows": 7},
        {"shape": [-1]},
        {"shape": [2.0]},
        {"shape": [1] * 100},
    ],
)
def test_a_place_that_no_release_writes_is_refused(change) -> None:
    said = Place.cut("c64", (1 << 23,), 1 << 20).to_json()
    with pytest.raises(IntegrityError):
        _place("quantum/amplitudes", said | change)


def test_names_are_those_of_the_paths_where_zarr_lets_them() -> None:
    assert node_name("quantum/amplitudes") == "quantum/amplitudes"
    assert node_name("classical/model/encoder.layer.0.weight") == "classical/model/encoder.layer.0.weight"
    assert node_name("classical/..") == "classical/%2E."
    assert node_name("classical/__x/") == "classical/%5F_x/%"
    assert np.dtype(STORABLE["c64"]).itemsize == 8

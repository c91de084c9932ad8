"""What every format has to do, as tests: a format gets all of them with a class of two lines.

>>> class TestQMS(FormatConformance):  # doctest: +SKIP
...     suffix = ".qms"

It needs pytest, Hypothesis, ml_dtypes and torch. Where a format is entitled to be different, a class attribute says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import quantum_memory as qm
from quantum_memory.durability import files
from quantum_memory.durability.files import ReadableBytes
from quantum_memory.errors import (
    BudgetError,
    ConflictError,
    IntegrityError,
    InvalidStateError,
    MissingError,
    MissingFileError,
    StorageError,
    UnsafeError,
    UnsupportedVersionError,
)
from quantum_memory.formats.registry import OpenOptions, format_of_suffix
from quantum_memory.state.arrays import CHUNK_BYTES, chunk_count
from quantum_memory.testing import strategies as qst
from quantum_memory.testing.damage import extensions, flip_bit
from quantum_memory.testing.equality import assert_identical
from quantum_memory.testing.examples import DTYPES, FOREIGN, layouts, patterns, small_memory
from quantum_memory.testing.faults import FaultyFiles

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SHAPE = (7, 3, 5)
_MOST_CALLS = 500
_NOTED = {"norm", "trace", "writer"}  # a save says these itself, whatever the record said
_FULL = st.one_of(
    qst.plain_values(), qst.arrays(), qst.small_float_arrays(), qst.scalars(), qst.tensors(), qst.quantum_states()
)
_DAMAGE = (IntegrityError, UnsupportedVersionError, UnsafeError)
_MANY = settings(
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.differing_executors,  # the subclasses
        HealthCheck.function_scoped_fixture,  # a folder, in which each example replaces the one before
    ],
)


class FormatConformance:
    """Tests of a format; a subclass whose name begins with ``Test`` runs them.

    Attributes
    ----------
    suffix
        Of its files, with the first dot.
    save_options, load_options
        Keywords that saving takes, and that load, open, info and verify take.
    same_bytes
        Whether the same memory makes the same bytes.
    over_budget
        The error for a file that needs more than `max_bytes`.
    inert
        Offsets of the bytes of a file of `small_memory` that mean nothing, so that damage there goes unseen.
    unused_bytes
        Whether its files have bytes that nothing reads: a damaged one may be accepted where it holds what was saved.
    every_bit
        One of so many bits is flipped, and a length tried for each, for formats whose smallest file is long.
    """

    suffix: ClassVar[str]
    save_options: ClassVar[dict[str, Any]] = {}
    load_options: ClassVar[dict[str, Any]] = {}
    same_bytes: ClassVar[bool] = True
    over_budget: ClassVar[type[UnsafeError]] = BudgetError
    inert: ClassVar[frozenset[int]] = frozenset()
    unused_bytes: ClassVar[bool] = False
    every_bit: ClassVar[int] = 1

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return where to save."""
        return tmp_path / f"state{self.suffix}"

    @pytest.fixture
    def golden(self, path: Path) -> bytes:
        """Save `small_memory` at `path`, and return its bytes."""
        self.save(small_memory(), path)
        return path.read_bytes()

    def save(self, state: object, path: Path, **options: Any) -> Any:
        """Save a state without waiting for the disk."""
        return qm.save(state, path, **{"durable": False, **self.save_options, **options})

    def load(self, path: Path, **options: Any) -> Any:
        """Load a memory."""
        return qm.load(path, **{**self.load_options, **options})

    def through(self, memory: qm.MemoryState, path: Path, **options: Any) -> qm.MemoryState:
        """Save a memory and load it again."""
        self.save(memory, path)
        loaded: qm.MemoryState = self.load(path, **options)
        return loaded

    def undetected(self, path: Path, variants: Iterable[tuple[object, bytes]]) -> list[tuple[object, str, str]]:
        """Return which variants of a file a verb took for whole, or refused without one of our errors for it."""
        missed = []
        for what, data in variants:
            path.write_bytes(data)
            for verb in (qm.load, qm.verify):
                try:
                    verb(path, **self.load_options)
                except _DAMAGE as error:
                    if not error.next_step or error.path != str(path):
                        missed.append((what, verb.__name__, repr(error)))
                else:
                    if not (self.unused_bytes and self.load(path) == small_memory()):
                        missed.append((what, verb.__name__, "accepted"))
        return missed

    # ---- what comes back is what went in

    @given(memory=qst.memory_states(_FULL))
    @settings(_MANY, max_examples=40)
    def test_any_memory_comes_back_in_every_bit(self, path: Path, memory: qm.MemoryState) -> None:
        loaded = self.through(memory, path)
        assert_identical(memory, loaded)
        assert loaded.content_id == memory.content_id
        noted = {key: value for key, value in memory.record.items() if key not in _NOTED}
        assert noted.items() <= loaded.record.items()

    @pytest.mark.parametrize("code", DTYPES)
    def test_every_dtype_comes_back_in_every_layout(self, path: Path, code: str) -> None:
        arrays = layouts(patterns(code))
        loaded = self.through(qm.MemoryState(classical=arrays), path, verify="full").classical
        assert_identical(arrays, loaded)
        assert all(loaded[name].flags.writeable and loaded[name].flags.aligned for name in arrays)

    @pytest.mark.parametrize("extra", [-16, 0, 16])
    def test_arrays_of_more_than_a_chunk_come_back(self, path: Path, extra: int) -> None:
        values = np.random.default_rng(7).normal(size=(2 * CHUNK_BYTES + extra) // 8)
        tree = {"long": values, "matrix": values[:150_000].reshape(500, 300).T}
        assert_identical(tree, self.through(qm.MemoryState(classical=tree), path).classical)
        chunks = sum(chunk_count(array.nbytes) for array in tree.values())
        assert qm.verify(path, **self.load_options).chunks in (chunks, chunks + 1)  # with that of the document

    def test_a_thousand_arrays_come_back(self, path: Path) -> None:
        tree = {f"layer.{number}": np.full(3, number, np.float32) for number in range(1000)}
        assert_identical(tree, self.through(qm.MemoryState(classical=tree), path).classical)

    def test_a_state_dict_of_torch_comes_back(self, path: Path) -> None:
        model: Any = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16)
        model.register_buffer("mask", torch.tensor([True, False]))
        saved: Any = model.state_dict()
        loaded: Any = self.through(qm.MemoryState(classical=saved), path).classical
        assert loaded._metadata == saved._metadata
        assert type(loaded) is OrderedDict
        assert_identical(saved, loaded)
        model.load_state_dict(loaded)

    def test_tied_tensors_stay_tied(self, path: Path) -> None:
        array, tensor = np.arange(4.0), torch.ones(3, dtype=torch.bfloat16)
        tree = {"a": [array, array.copy()], "b": {"a": array}, "in": tensor, "out": tensor, "other": tensor.clone()}
        loaded = self.through(qm.MemoryState(classical=tree), path).classical
        assert_identical(tree, loaded)
        assert loaded["a"][0] is loaded["b"]["a"] is not loaded["a"][1]
        assert loaded["in"].data_ptr() == loaded["out"].data_ptr() != loaded["other"].data_ptr()

    # ---- one name for one content

    def test_every_verb_gives_one_content_id(self, path: Path) -> None:
        memory = small_memory()
        saved = self.save(memory, path)
        report, facts = qm.verify(path, **self.load_options), qm.info(path, **self.load_options)
        with qm.open(path, **self.load_options) as file:
            names = {file.load().content_id, file.info()["content_id"], self.load(path).content_id}
        assert names | {saved.content_id, report.content_id, facts["content_id"]} == {memory.content_id}
        assert f".{saved.format}" == f".{report.format}" == f".{facts['format']}" == self.suffix
        assert saved.bytes == report.bytes == facts["bytes"] == path.stat().st_size
        assert self.save(memory, path.with_name(f"STATE{self.suffix.upper()}")).format == saved.format

    def test_converting_keeps_it(self, path: Path) -> None:
        first, last = path.with_name("first.qms"), path.with_name("last.qms")
        qm.save(small_memory(), first, compression="none")
        there = qm.convert(first, path, durable=False)
        back = qm.convert(path, last, compression="none", durable=False, **self.load_options)
        assert there.content_id == back.content_id == small_memory().content_id
        assert_identical(self.load(path), qm.load(last))
        assert first.read_bytes() == last.read_bytes()

    @given(memory=qst.memory_states())
    @settings(_MANY, max_examples=10)
    def test_the_same_memory_makes_the_same_bytes(self, path: Path, memory: qm.MemoryState) -> None:
        paths = [path.with_name(f"{name}{self.suffix}") for name in ("one", "two", "three")]
        self.save(memory, paths[0])
        self.save(memory, paths[1])
        self.save(self.load(paths[0]), paths[2])
        if self.same_bytes:
            assert paths[0].read_bytes() == paths[1].read_bytes() == paths[2].read_bytes()
        assert len({self.load(path).content_id for path in paths}) == 1

    @pytest.mark.usefixtures("golden")
    @pytest.mark.parametrize("name", ["state", "state.bin", "state.qms", "state.json.zlib", "STATE.JSON"])
    def test_it_is_known_by_its_first_bytes(self, path: Path, name: str) -> None:
        named = path.rename(path.with_name(name))
        assert self.load(named) == small_memory()
        assert f".{qm.verify(named, **self.load_options).format}" == self.suffix

    # ---- damage

    def test_every_bit_is_covered(self, path: Path, golden: bytes) -> None:
        bits = (bit for bit in range(0, 8 * len(golden), self.every_bit) if bit // 8 not in self.inert)
        assert self.undetected(path, ((bit, flip_bit(golden, bit)) for bit in bits)) == []

    def test_a_check_of_the_bytes_alone_finds_as_much(self, path: Path, golden: bytes) -> None:
        """Where there is none, it says so of a whole file as well."""
        handler, options = format_of_suffix(path).handler, OpenOptions(**self.load_options)

        def finds(data: bytes) -> bool:
            try:
                return handler.check_bytes(ReadableBytes(data), options) is None
            except _DAMAGE:
                return True

        kind = handler.check_bytes(ReadableBytes(golden), options)
        assert kind in (None, self.suffix[1:])
        report = qm.verify(path, depth="bytes", **self.load_options)
        assert (report.depth, report.format) == ("full" if kind is None else "bytes", self.suffix[1:])
        bits = (bit for bit in range(0, 8 * len(golden), self.every_bit) if bit // 8 not in self.inert)
        assert [bit for bit in bits if not finds(flip_bit(golden, bit))] == []
        lengths = range(0, len(golden), 1 + self.every_bit // 8)
        assert [length for length in lengths if not finds(golden[:length])] == []
        assert [len(data) for data in extensions(golden) if not finds(data)] == []

    def test_every_truncation_and_extension_is_noticed(self, path: Path, golden: bytes) -> None:
        step = 1 + self.every_bit // 8
        lengths = {*range(0, len(golden), step), *range(max(0, len(golden) - 64), len(golden))}
        shorter = ((f"the first {length} bytes", golden[:length]) for length in sorted(lengths))
        longer = ((f"{len(data) - len(golden)} bytes more", data) for data in extensions(golden))
        assert self.undetected(path, shorter) + self.undetected(path, longer) == []

    @pytest.mark.parametrize("kind", FOREIGN)
    def test_what_is_nothing_of_ours_is_refused(self, path: Path, kind: str) -> None:
        path.write_bytes(FOREIGN[kind])
        for verb in (qm.load, qm.verify, qm.info, qm.open):
            with pytest.raises(_DAMAGE) as caught:
                verb(path, **self.load_options)
            assert caught.value.path == str(path)
            assert caught.value.next_step

    def test_a_file_of_another_format_is_opened_as_what_it_is(self, path: Path) -> None:
        other = ".json" if self.suffix == ".qms" else ".qms"
        qm.save(small_memory(), path.with_name(f"other{other}"))
        path.with_name(f"other{other}").rename(path)
        assert self.load(path) == small_memory()
        assert f".{qm.verify(path, **self.load_options).format}" == other

    def test_what_is_no_file_is_refused_at_once(self, path: Path) -> None:
        folder, pipe = path.with_name(f"folder{self.suffix}"), path.with_name(f"pipe{self.suffix}")
        folder.mkdir()
        os.mkfifo(pipe)
        for verb in (qm.load, qm.verify, qm.info, qm.open):
            with pytest.raises(MissingFileError):
                verb(path, **self.load_options)
            for odd in (folder, pipe):
                with pytest.raises(UnsafeError):
                    verb(odd, **self.load_options)

    # ---- saving

    def test_overwrite_false_keeps_what_is_there(self, path: Path, golden: bytes) -> None:
        with pytest.raises(ConflictError):
            self.save({"metadata": {"new": 1}}, path, overwrite=False)
        assert path.read_bytes() == golden
        self.save({"metadata": {"new": 1}}, path.with_name(f"new{self.suffix}"), overwrite=False)

    def test_what_cannot_be_kept_leaves_the_old_file(self, path: Path, golden: bytes) -> None:
        for odd in (object(), {1, 2}, np.array([object()]), np.ma.array([1.0])):
            with pytest.raises(InvalidStateError) as caught:
                self.save(qm.MemoryState(classical={"good": np.zeros(9), "odd": odd}), path)
            assert caught.value.next_step
        with pytest.raises(InvalidStateError):
            self.save(small_memory(), path, compression="no such")
        assert path.read_bytes() == golden
        assert list(path.parent.iterdir()) == [path]

    def test_a_disk_that_fails_leaves_the_old_or_the_new(self, path: Path) -> None:
        old, new = small_memory(), qm.MemoryState(classical=np.arange(50.0))
        for call in range(_MOST_CALLS):
            self.save(old, path)
            faulty = FaultyFiles(call, errno.EIO)
            with files.using(faulty), contextlib.suppress(StorageError):
                self.save(new, path, durable=True)
            assert self.load(path) in (old, new)
            if not faulty.failed:
                assert self.load(path) == new
                return
        raise AssertionError(f"a save of a small memory makes more than {_MOST_CALLS} calls")

    # ---- in part

    @given(key=st.one_of(basic_indices(_SHAPE, allow_newaxis=True), st.sampled_from([(), ..., [1, 5], (3, [1, 2])])))
    @settings(_MANY, max_examples=60)
    def test_indexing_is_numpy_indexing(self, path: Path, key: Any) -> None:
        cube = np.arange(105, dtype=np.float32).reshape(_SHAPE)
        if not path.exists():
            self.save(qm.MemoryState(classical=cube), path)
        with qm.open(path, **self.load_options) as file:
            assert_identical(np.asarray(cube[key]), np.asarray(file.arrays["classical"][key]))

    def test_only_what_is_named_is_loaded(self, path: Path) -> None:
        tree = {"encoder": {"layer": [{"w": np.arange(3)}, {"w": np.arange(4)}]}, "step": 7}
        self.save(qm.MemoryState(classical=tree, metadata={"run": "a"}), path)
        assert_identical({"encoder.layer.1.w": np.arange(4)}, self.load(path, only="encoder.layer.1.*"))
        assert_identical({"step": 7, "metadata.run": "a"}, {**self.load(path, only="s*"), **self.load(path, only="m*")})
        with pytest.raises(MissingError, match="nothing in it is called 'decoder'"):
            self.load(path, only="decoder")

    def test_what_is_changed_does_not_reach_the_next_reading(self, path: Path, golden: bytes) -> None:
        with qm.open(path, **self.load_options) as file:
            file.arrays["classical/w"][...][:] = 9
            np.asarray(file.arrays["classical/w"])[:] = 9
            file.select("w")["w"][:] = 9
            assert file.arrays["classical/w"][:].tolist() == [0, 1, 2]
        assert path.read_bytes() == golden

    def test_progress_counts_every_byte_once(self, path: Path) -> None:
        memory = qm.MemoryState(classical=[np.zeros(CHUNK_BYTES + 5, np.uint8), np.arange(10.0)])
        raw = CHUNK_BYTES + 5 + 80
        saved: list[int] = []
        loaded: list[int] = []
        verified: list[int] = []
        size = self.save(memory, path, progress=saved.append).bytes
        self.load(path, progress=loaded.append)
        qm.verify(path, progress=verified.append, **self.load_options)
        assert sum(loaded) == raw
        assert raw <= sum(verified) <= raw + size + 4096  # the document may be counted as well
        assert raw <= sum(saved) <= raw + size + 4096

    def test_more_than_is_allowed_is_refused(self, path: Path) -> None:
        self.save(qm.MemoryState(classical=np.zeros(CHUNK_BYTES, np.uint8)), path)
        with pytest.raises(self.over_budget) as caught:
            self.load(path, max_bytes=999)
        assert caught.value.next_step
        assert caught.value.path == str(path)

    @pytest.mark.usefixtures("golden")
    @pytest.mark.parametrize("verify", ["ful", "FULL", "", False, None])
    def test_a_way_to_check_that_there_is_not_is_refused(self, path: Path, verify: Any) -> None:
        with pytest.raises(InvalidStateError, match="verify"):
            self.load(path, verify=verify)

"""Pickles give plain data, or one of our errors; nothing that they ask for is run, imported or opened."""

import builtins
import collections
import copyreg
import datetime
import functools
import importlib
import operator
import os
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantum_memory.errors import BudgetError, IntegrityError, QuantumMemoryError, UnsafeError
from quantum_memory.formats.unpickler import ARRAYS, NUMBERS, loads

ALLOWED = {**ARRAYS, **NUMBERS}
watched: list[str] = []
watching: list[bool] = []
EVENTS = ("exec", "compile", "import", "open", "os.", "subprocess.", "pickle.", "ctypes.", "socket.", "marshal.")


def watch(event, arguments):
    if watching and event.startswith(EVENTS):
        watched.append(f"{event} {arguments!r:.100}")


sys.addaudithook(watch)


def load(data, allowed=ALLOWED):
    return loads(data, allowed, max_bytes=1 << 24)


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def attacks(file):
    touch = f"open({file!r}, 'w')"
    yield "os.system", Calls(os.system, f"touch {file}")
    yield "eval", Calls(builtins.eval, touch)
    yield "exec", Calls(builtins.exec, touch)
    yield "open", Calls(builtins.open, file, "w")
    yield "getattr", Calls(builtins.getattr, "x", "upper")
    yield "__import__", Calls(builtins.__import__, "os")
    yield "importlib", Calls(importlib.import_module, "os")
    yield "attrgetter", Calls(operator.attrgetter, "system")
    yield "methodcaller", Calls(operator.methodcaller, "system", "x")
    yield "partial", Calls(functools.partial, os.system, f"touch {file}")
    yield "nested", Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {file}")))
    yield "copyreg", Calls(copyreg.add_extension, "os", "system", 1)
    yield "reconstructor", Calls(copyreg._reconstructor, collections.OrderedDict, object, None)
    yield "mkdir", Calls(os.mkdir, file)
    yield "fromfile", Calls(np.fromfile, file)
    yield "load", Calls(np.load, file)
    yield "ndarray called", Calls(np.ndarray, (10**12,))
    yield "a state on a list", Calls(list, state={"a": 1})


TITLES = [title for title, _ in attacks("")]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("title", TITLES)
def test_attacks_are_refused_and_nothing_runs(tmp_path, title, protocol):
    file = str(tmp_path / "sentinel")
    data = pickle.dumps({"a": dict(attacks(file))[title]}, protocol)
    watched.clear()
    watching.append(True)
    try:
        with pytest.raises(UnsafeError) as caught:
            load(data)
    finally:
        watching.clear()
    assert not watched
    assert not list(tmp_path.iterdir())
    assert caught.value.next_step


RAW = {
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'true'\no.",
    "GLOBAL of a nested name": b"\x80\x03cbuiltins\nobject.__subclasses__\n.",
    "a persistent id": b"\x80\x03Pid\n.",
    "a binary persistent id": b"\x80\x03NQ.",
    "an extension": b"\x80\x03\x82\x01.",
    "a new object": b"\x80\x03cnumpy\nndarray\n)\x81.",
    "the class itself": b"\x80\x03cnumpy\nndarray\n.",
    "a call of what is no function": b"\x80\x03})R.",
    "a call of the array's class": b"\x80\x03cnumpy\nndarray\nK\x01\x85R.",
    "a state without an array": b"\x80\x03}}b.",
    "a dtype of objects with fields": b"\x80\x03cnumpy\ndtype\nX\x02\0\0\0V8\x89\x88\x87R.",
    "another class": b"\x80\x03cnumpy.core.multiarray\n_reconstruct\nNK\0\x85C\x01b\x87R.",
    "a list of itself": b"\x80\x03]q\0h\0a.",
    "lists that double": b"\x80\x03](]q\0" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)) + b"e.",
    "keys that are not text": b"\x80\x03}K\x01K\x01s.",
    "many operations": b"\x80\x03(" + b"]" * (1 << 20) + b"l.",
    "text that is repeated": b"\x80\x03](X\xff\xff\0\0" + b"a" * 65535 + b"q\0" + b"h\0" * 100_000 + b"e.",
    "two complex arguments": b"\x80\x03cbuiltins\ncomplex\n]]\x86R.",
    "a date with a zone": b"\x80\x03cdatetime\ndatetime\nC\x0a\x07\xe9\x06\x1e\x0c\0\0\0\0\0]\x86R.",
}


@pytest.mark.parametrize("title", RAW)
def test_operations_that_plain_data_do_not_need_are_refused(title):
    with pytest.raises(QuantumMemoryError) as caught:
        load(RAW[title])
    assert caught.value.next_step
    assert isinstance(caught.value, UnsafeError) or title == "a date with a zone"


DAMAGED = {
    "nothing": b"",
    "no end": b"\x80\x03]",
    "something behind": b"\x80\x03].]",
    "two results": b"\x80\x03]].",
    "an empty stack": b"\x80\x03.",
    "a memo that is not there": b"\x80\x03h\x05.",
    "bytes beyond the end": b"\x80\x03B\xff\xff\xff\x7fa.",
    "text beyond the end": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    "below the mark": b"\x80\x03](a.",
    "a month that there is not": b"\x80\x03cdatetime\ndatetime\nC\x0a\x07\xe9\x1f\x1e\x0c\0\0\0\0\0\x85R.",
}


@pytest.mark.parametrize("title", DAMAGED)
def test_damaged_pickles_are_integrity_errors(title):
    with pytest.raises(IntegrityError) as caught:
        load(DAMAGED[title])
    assert caught.value.next_step


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_come_back_as_they_were(protocol, module):
    arrays = [np.arange(6).astype(code).reshape(2, 3) for code in ("<c8", "<c16", "<f4", ">f8", "<i8", "u1", "?")]
    arrays += [np.asfortranarray(arrays[0]), np.zeros((0, 3)), np.array(1.5)]
    data = pickle.dumps(arrays, protocol)
    if protocol == 3:  # in protocol 4 the name has its length before it
        data = data.replace(b"numpy._core.multiarray", module.encode())
    for before, after in zip(arrays, load(data), strict=True):
        assert (before.dtype, before.shape, before.tobytes()) == (after.dtype, after.shape, after.tobytes())


def test_arrays_of_objects_become_lists_and_dates_text():
    moment = datetime.datetime(2025, 6, 30, 12, 34, 56, 789012)
    objects = np.empty(2, object)
    objects[:] = [{"a": 1}, [1 + 2j]]
    assert load(pickle.dumps([objects, np.array({"t": moment}, object)], 4)) == [
        [{"a": 1}, [1 + 2j]],
        {"t": moment.isoformat()},
    ]


@pytest.mark.parametrize(
    ("put", "wanted"),
    [
        (b"\x93\x94K\x00\x85", b"\x93\x94K\x07\x85"),  # an empty array that is not empty
        (b"(K\x01K\x02\x85", b"(K\x01K\x7f\x85"),  # another shape than the data have
        (b"c16", b"O16"),
        (b"\x8c\x01<", b"\x8c\x01|"),
    ],
)
def test_arrays_whose_parts_do_not_fit_are_refused(put, wanted):
    data = pickle.dumps(np.array([1j, 2j]), 4)
    assert put in data
    with pytest.raises((IntegrityError, UnsafeError)) if b"<" not in put else pytest.raises(AssertionError):
        assert load(data.replace(put, wanted)).dtype == object


def test_a_name_is_allowed_only_where_it_is_listed():
    data = pickle.dumps([1j], 4)
    assert load(data, NUMBERS) == [1j]
    with pytest.raises(UnsafeError, match=r"builtins\.complex"):
        load(data, ARRAYS)
    with pytest.raises(BudgetError):
        loads(data, NUMBERS, max_bytes=10)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN, st.sampled_from([3, 4, 5]))
def test_plain_data_come_back_as_they_were(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 9))
def test_whatever_the_bytes_are_only_our_errors_escape(put, at, removed):
    data = pickle.dumps([np.array([1j, 2j]), {"a": (1, "b")}, 2j], 4)
    data = data[:at] + put + data[at + removed :]
    try:
        load(data)
    except QuantumMemoryError as error:
        assert error.next_step  # noqa: PT017 - not every pickle is refused

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantum_memory as qm
from quantum_memory.errors import InvalidStateError, MissingError
from quantum_memory.formats import urls
from quantum_memory.formats.urls import URL, is_url

_PART = st.text("abcXYZ019-_.", min_size=1, max_size=8).filter(lambda part: part not in {".", ".."})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/run-42", URL("s3", "bucket", "run-42")),
        ("s3://bucket/a/b@step-1200", URL("s3", "bucket", "a/b", "step-1200")),
        ("s3://bucket/", URL("s3", "bucket", "")),
        ("s3://bucket", URL("s3", "bucket", "")),
        ("s3://bucket/a@b/c", URL("s3", "bucket", "a@b/c")),
        ("s3://b/k@t?endpoint=http://127.0.0.1:9", URL("s3", "b", "k", "t", "http://127.0.0.1:9")),
        ("icechunk+file:///tmp/run@x", URL("icechunk+file", "", "/tmp/run", "x")),
        ("icechunk+file:///tmp/a%20b", URL("icechunk+file", "", "/tmp/a b")),
    ],
)
def test_an_address_is_taken_apart(text: str, expected: URL) -> None:
    assert URL.parse(text) == expected


@given(bucket=_PART, parts=st.lists(_PART, min_size=1, max_size=3), name=st.none() | _PART)
def test_an_address_says_itself(bucket: str, parts: list[str], name: str | None) -> None:
    url = URL("s3", bucket, "/".join(parts), name)
    assert URL.parse(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        "s3:///key",
        "s3://bucket/key@",
        "s3://bucket/@tag",
        "s3://key:secret@bucket/run",
        "s3://bucket/run?region=x",
        "icechunk+file:///run?endpoint=http://h",
        "gs://bucket/run",
    ],
)
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(InvalidStateError, match="Next: write s3://"):
        URL.parse(text)


def test_only_addresses_are_addresses(tmp_path) -> None:
    assert is_url("s3://b/k")
    assert is_url("icechunk+file:///x")
    assert not any(map(is_url, ("file:///x.qms", "s3.qms", "x/s3://b", tmp_path, b"s3://b/k")))


def test_a_file_may_be_given_as_an_address(tmp_path) -> None:
    state = qm.StateVector([1, 1j], qubit_order="big")
    qm.save(state, f"file://{tmp_path}/a state.qms")
    assert qm.load(f"file://{tmp_path}/a%20state.qms").quantum == state


def test_without_the_extra_a_sentence_says_how_to_install_it(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("quantum_memory.cloud")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(MissingError, match=r"pip install 'quantum-memory\[cloud\]'"):
        urls.storage()

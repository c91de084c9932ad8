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
_ANY = st.text("aé %?@#&=+[]:~", min_size=1, max_size=8)


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
        ("icechunk+file:///tmp/a%3Fb@t", URL("icechunk+file", "", "/tmp/a?b", "t")),
        ("icechunk+file:///tmp/me%40home@t", URL("icechunk+file", "", "/tmp/me@home", "t")),
        ("icechunk+file:///tmp/[x#y", URL("icechunk+file", "", "/tmp/[x#y")),
        ("s3://bucket/a%2520b", URL("s3", "bucket", "a%20b")),
    ],
)
def test_an_address_is_taken_apart(text: str, expected: URL) -> None:
    assert URL.parse(text) == expected


@given(
    bucket=_PART,
    parts=st.lists(_PART | _ANY, min_size=1, max_size=3),
    name=st.none() | _PART,
    endpoint=st.none() | st.sampled_from(["http://127.0.0.1:9", "https://s3.host/a+b%20c&d"]),
)
def test_an_address_says_itself(bucket: str, parts: list[str], name: str | None, endpoint: str | None) -> None:
    url = URL("s3", bucket, "/".join(parts), name, endpoint)
    assert URL.parse(str(url)) == url
    folder = URL("icechunk+file", "", "/" + "/".join(parts), name)
    assert URL.parse(str(folder)) == folder


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
        "s3://bucket:9000/run",
        "s3://[bucket/run",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/run?",
        "s3://bucket/run?endpoint=",
        "s3://bucket/run?endpoint=localhost:9000",
        "s3://bucket/run?endpoint=http://key:secret@host",
        "s3://bucket/run?endpoint=http://h&endpoint=http://h",
        "s3://bucket/run\n",
        "icechunk+file:///a%00b",
        "icechunk+file:///a%FFb",
        "icechunk+file:///a\udcffb",
        "icechunk+file://",
        "icechunk+file:///",
        "icechunk+file:///@tag",
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


@pytest.mark.parametrize("text", ["file://folder/x.qms", "file://x.qms", "file:///x.qms?download=1"])
def test_what_is_no_file_of_this_machine_is_said(text: str) -> None:
    with pytest.raises(InvalidStateError, match=r"Next: write file:///folder/name\.qms"):
        qm.load(text)


def test_a_folder_of_any_name_is_found_again(tmp_path) -> None:
    state = qm.StateVector([1, 1j], qubit_order="big")
    for name in ("50%25off", "a%2520b", "what%3F", "me%40home", "a#b", "a b ", "é"):
        saved = qm.save(state, f"icechunk+file://{tmp_path}/{name}")
        assert qm.load(saved.path).quantum == state
    assert {path.name for path in tmp_path.iterdir()} == {"50%off", "a%20b", "what?", "me@home", "a#b", "a b ", "é"}


def test_without_the_extra_a_sentence_says_how_to_install_it(monkeypatch) -> None:
    if "quantum_memory.cloud" in sys.modules:  # as it is to be again afterwards
        monkeypatch.setattr(qm, "cloud", sys.modules["quantum_memory.cloud"], raising=False)
    for name in [name for name in sys.modules if name.startswith("quantum_memory.cloud")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(MissingError, match=r"pip install 'quantum-memory\[cloud\]'"):
        urls.storage()

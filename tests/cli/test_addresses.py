"""The verbs with addresses, names after an @ and file:// in the places of files; and the versions at an address."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import quantum_memory as qm
from quantum_memory.cli import bench, compress, main
from quantum_memory.cli.output import last_part
from quantum_memory.errors import InvalidStateError, StorageError
from quantum_memory.formats.urls import URL
from quantum_memory.lifecycle.checkpoint_manager import CheckpointManager
from tests.cloud import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantum_memory.cloud.places import Place
    from tests.cloud.servers import Server

    Qmem = Callable[..., subprocess.CompletedProcess[str]]
    Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that this module has for itself: that of the tests of `cloud` is killed by some of them."""
    with servers.seaweed() as made:
        yield made


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address on it, under which nothing is yet; the environment says where it is, and has the keys."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", servers.KEYS.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers.KEYS.secret_access_key)
    monkeypatch.setenv("AWS_REGION", servers.REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    return f"s3://{server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """An address of a folder that is not there yet."""
    return f"icechunk+file://{tmp_path}/repository"


@pytest.fixture(params=["folder", "bucket"])
def address(request: pytest.FixtureRequest) -> str:
    """Both."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; what others than Python print is seen as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main.run([*map(os.fspath, arguments)])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


def state(seed: int, n: int = 6) -> qm.StateVector:
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=1 << n) + 1j * rng.normal(size=1 << n)
    return qm.StateVector(amplitudes / np.linalg.norm(amplitudes), qubit_order="little")


@pytest.fixture
def three(folder: str) -> str:
    """The address of three versions, of which the first two have the tags "one" and "two"."""
    for seed, name in ((1, "@one"), (2, "@two"), (3, "")):
        qm.save(state(seed), folder + name)
    return folder


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A folder with a store of the state "a" and a run whose checkpoint has the tag "best"."""
    qm.HDF5QuantumStorage(tmp_path / "store.h5").save_quantum_state(state(1), "a")
    with CheckpointManager(tmp_path / "run", signals=False, durable=False) as manager:
        manager.tag(manager.create_checkpoint(state(2), progress=7), "best")
    return tmp_path


# ---- the verbs


def test_on_standard_output_is_json_alone(real_qmem: Qmem, bell: Path, address: str) -> None:
    """As others run it: the engines below may print what they like, and not there."""
    for arguments in (("convert", bell, f"{address}@first"), ("verify", address)):
        done = real_qmem(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["content_id"] == qm.load(bell).content_id
    done = real_qmem("verify", f"{address}@none", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["type"]) == (6, "MissingFileError")
    assert done.stderr.count("\n") == 2  # what is wrong, and what to do next


def test_every_verb_takes_an_address(run: Run, bell: Path, address: str) -> None:
    content = qm.load(bell).content_id

    def answer(*arguments: str | Path) -> Any:
        code, out, said = run(*arguments, "--json")
        assert (code, said) == (0, "")
        return json.loads(out)

    there = answer("convert", bell, f"{address}@first")
    assert (there["path"], there["format"], there["content_id"]) == (f"{address}@first", "zarr", content)
    facts = answer("info", address)
    assert (facts["path"], facts["content_id"]) == (address, content)
    (version,) = answer("versions", address)["versions"]
    assert (version["tags"], version["branches"], version["parent"]) == (["first"], ["main"], None)
    assert (version["content_id"], facts["address"]) == (content, f"{address}@{version['id']}")
    checked = answer("verify", f"{address}@first", facts["address"])["files"]
    assert [one["content_id"] for one in checked] == [content, content]
    assert checked[0]["raw_bytes"] == checked[0]["bytes"] == 64 + 48
    assert answer("compare", address, bell)["same_content"] is True
    back = answer("convert", address, "back.qms")
    assert (back["source"], back["source_format"], back["content_id"]) == (address, "zarr", content)
    assert qm.load("back.qms") == qm.load(bell)


@pytest.mark.parametrize("make", [lambda url: url + "/none", lambda url: url + "@none"])
def test_an_address_of_nothing_is_6(run: Run, bell: Path, address: str, make: Callable[[str], str]) -> None:
    assert run("convert", bell, address)[0] == 0
    for arguments in (("info",), ("verify",), ("compare", bell), ("convert", "x.qms"), ("compress", "-o", "x.qms")):
        given = [*arguments[:1], make(address), *arguments[1:]]
        code, out, said = run(*given)
        assert code == 6, given
        assert "there is no" in " ".join((out + said).split())


@pytest.mark.parametrize("url", ["s3:///key", "s3://bucket/run@", "icechunk+file:///a?endpoint=http://h"])
def test_what_is_no_address_is_2(run: Run, bell: Path, url: str) -> None:
    for arguments in (("info", url), ("convert", bell, url), ("versions", url), ("versions", "tag", url, "x")):
        code, out, said = run(*arguments)
        assert code == 2, arguments
        assert "write s3://bucket/prefix@tag" in " ".join((out + said).split())


# ---- exit codes


def test_what_is_there_is_a_conflict_unless_told_otherwise(run: Run, bell: Path, three: str, tmp_path: Path) -> None:
    for target in (three, f"{three}@four", str(tmp_path / "bell.qms"), f"file://{tmp_path}/bell.qms"):
        code, _, said = run("convert", f"{three}@one", target)
        assert code == 7, target
        assert "--overwrite" in said
    assert run("convert", bell, f"{three}@one", "--overwrite")[0] == 7  # tags stay
    assert run("convert", bell, f"{three}@four", "--overwrite")[0] == 0
    assert qm.load(f"{three}@four") == qm.load(three) == qm.load(bell)
    assert qm.load(f"{three}@two").quantum == state(2)


def test_damage_is_4(run: Run, folder: str, tmp_path: Path) -> None:
    qm.save(state(1, 12), folder)
    (chunk,) = (tmp_path / "repository" / "chunks").iterdir()
    data = bytearray(chunk.read_bytes())
    data[1000] ^= 1
    chunk.write_bytes(data)
    assert run("info", folder)[0] == 0  # which reads no data
    for arguments in (("verify", folder), ("compare", folder, folder), ("convert", folder, "out.qms")):
        code, out, said = run(*arguments)
        assert code == 4, arguments
        assert "chunk 0 of 'quantum/amplitudes'" in " ".join((out + said).split())
    assert not (tmp_path / "out.qms").exists()


def test_storage_that_refuses_is_8(run: Run, bell: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("convert", bell, bucket)[0] == 0
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for arguments in (("info", bucket), ("verify", bucket), ("convert", bell, bucket), ("versions", bucket)):
        code, out, said = run(*arguments)
        assert code == 8, arguments
        assert "check AWS_ACCESS_KEY_ID" in " ".join((out + said).split())


def test_storage_that_cannot_be_reached_is_asked_once(
    run: Run, bell: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unreachable(url: URL) -> Place:
        asked.append(url)
        raise StorageError("could not open it: nobody answers", next_step="check the network")

    monkeypatch.setattr("quantum_memory.cloud.repository.place_of", unreachable)
    for arguments in (("verify", bucket), ("compare", bucket, bell), ("convert", bucket, "x.qms"), ("info", bucket)):
        asked.clear()
        assert run(*arguments)[0] == 8
        assert len(asked) == 1, arguments


def test_storage_that_does_not_keep_writers_apart_is_9(run: Run, bell: Path, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "careless").mkdir()
    with servers.without_conditions(tmp_path / "careless") as careless:
        url = f"s3://{careless.bucket}/run?endpoint={careless.endpoint}"
        code, _, said = run("convert", bell, url)
        assert code == 9
        assert "does not keep two writers apart" in said
        assert run("info", url)[0] == 6


def test_several_that_fail_differently_are_3(run: Run, bell: Path, three: str) -> None:
    code, out, _ = run("info", "--json", f"{three}@one", f"{three}@none", bell)
    assert code == 3
    one, none, file = json.loads(out)["files"]
    assert (one["path"], file["path"]) == (f"{three}@one", str(bell))
    assert none["error"]["next_step"] == f"it has one, two, main; qmem versions {three} lists the versions"


# ---- versions


def test_versions_are_listed_the_newest_first(run: Run, three: str) -> None:
    ids = [one.id for one in qm.repository(three).history()]
    code, out, _ = run("versions", three)
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    assert [line.split()[0] for line in lines[::2]] == ids
    assert lines[1] == f"end of main, content id {qm.load(three).content_id[:12]}"
    assert lines[3].startswith("tag two, content id ")
    assert max(map(len, lines)) <= 80
    answer = json.loads(run("versions", "list", three, "--json")[1])
    assert answer["branches"] == {"main": ids[0]}
    assert [one["parent"] for one in answer["versions"]] == [ids[1], ids[2], None]
    assert {*answer["versions"][0]} == {"id", "written_at", "message", "content_id", "parent", "tags", "branches"}
    assert (len(answer["versions"]), answer["more"]) == (3, False)


def test_versions_are_read_one_at_a_time(run: Run, three: str) -> None:
    code, out, _ = run("versions", "--limit", "1", three)
    assert (code, len(out.splitlines()), out.splitlines()[-1]) == (0, 3, "and older ones")
    answer = json.loads(run("versions", f"{three}@two", "--limit", "1", "--json")[1])
    assert (answer["versions"][0]["tags"], answer["more"]) == (["two"], True)
    assert json.loads(run("versions", f"{three}@one", "--limit", "1", "--json")[1])["more"] is False


def test_the_newest_of_many_versions_are_listed_without_the_oldest(run: Run, three: str) -> None:
    for seed in range(4, 10):
        qm.save(state(seed), three)
    oldest = qm.repository(three).find("one")
    Path(URL.parse(three).key, "snapshots", oldest).unlink()
    assert run("versions", "--limit", "2", three)[0] == 0
    assert run("versions", three)[0] == 4


def test_a_version_is_tagged_and_untagged(run: Run, three: str) -> None:
    newest, _, oldest = (one.id for one in qm.repository(three).history())
    assert run("versions", "tag", three, "last") == (0, f"{newest} has the tag last\n", "")
    assert json.loads(run("versions", "tag", "--json", f"{three}@{oldest}", "first")[1]) == {
        "id": oldest, "tag": "first",
    }  # fmt: skip
    assert qm.load(f"{three}@first").quantum == state(1)
    for url, name, code in ((three, "first", 7), (three, "main", 7), (three, "a b", 2), (f"{three}@no", "x", 6)):
        assert run("versions", "tag", url, name)[0] == code
    assert json.loads(run("versions", "untag", three, "first", "--json")[1]) == {"untagged": "first"}
    code, _, said = run("versions", "untag", three, "first")
    assert (code, "qmem versions" in said) == (6, True)


def test_a_line_goes_back_to_a_version(run: Run, three: str) -> None:
    newest, _, oldest = (one.id for one in qm.repository(three).history())
    assert run("versions", "rollback", three)[0] == 2  # which is not said
    assert run("versions", "rollback", f"{three}@none")[0] == 6
    assert run("versions", "rollback", f"{three}@one", "--branch", "none")[0] == 6
    assert qm.load(three).quantum == state(3)
    answer = json.loads(run("versions", "rollback", f"{three}@one", "--json")[1])
    assert answer == {"id": oldest, "branch": "main", "was": newest}
    assert qm.load(three).quantum == state(1)
    assert run("versions", "rollback", f"{three}@{newest}")[1] == f"main ends with {newest}; it ended with {oldest}\n"
    assert qm.load(three).quantum == state(3)


def test_versions_of_a_branch(run: Run, three: str) -> None:
    repository = qm.repository(three)
    repository.branch("side", repository.find("one"))
    qm.save(state(4), f"{three}@side")
    answer = json.loads(run("versions", f"{three}@side", "--json")[1])
    assert [one["branches"] for one in answer["versions"]] == [["side"], []]
    assert set(answer["branches"]) == {"main", "side"}
    assert run("versions", "rollback", f"{three}@two", "--branch", "side")[0] == 0
    assert qm.load(f"{three}@side").quantum == state(2)
    assert qm.load(three).quantum == state(3)


@pytest.mark.parametrize("arguments", [[], ["bell.qms"], ["list"], ["rolback", "s3://b/k"], ["--nonsense"]])
def test_usage_is_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main.qmem, ["versions", *arguments]).exit_code == 2


def test_versions_of_what_has_none_are_said(run: Run, tmp_path: Path) -> None:
    assert run("versions", "list", tmp_path)[0] == 2
    code, _, said = run("versions", f"icechunk+file://{tmp_path}/none")
    assert (code, "there is no repository" in said) == (6, True)
    qm.repository(f"icechunk+file://{tmp_path}/empty", create=True)
    assert run("versions", f"icechunk+file://{tmp_path}/empty")[:2] == (0, "no versions\n")


# ---- names of checkpoints and states, and file://


@pytest.mark.parametrize("name", ["run@best", "store.h5@a"])
def test_a_name_stands_for_a_file(run: Run, named: Path, name: str) -> None:
    content = qm.load(name).content_id
    facts = json.loads(run("info", name, "--json")[1])
    assert (facts["path"], facts["content_id"]) == (name, content)
    checked = json.loads(run("verify", name, "--json")[1])
    assert (checked["path"], checked["content_id"], checked["raw_bytes"]) == (name, content, 1024)
    assert run("convert", name, f"icechunk+file://{named}/there@x")[0] == 0
    assert run("compare", name, f"icechunk+file://{named}/there@x")[1].startswith("identical content\n")
    assert run("compress", name)[0] == 2
    assert run("compress", name, "-o", "small.qms")[0] == 0
    assert qm.load("small.qms").content_id == content
    code, _, said = run("info", name.replace("@", "@no"))
    assert (code, "Next: it has " in said) == (6, True)


def test_info_says_which_checkpoint_it_is(run: Run, named: Path) -> None:
    out = run("info", "run@best")[1]
    assert f"{qm.info('run@best')['record']['checkpoint']['id']}, progress 7" in out
    assert "format" in out
    assert "file  " not in out


def test_a_file_by_its_address(run: Run, bell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = f"file://{bell.parent}"
    monkeypatch.setenv("QMEM_PASSPHRASE", "secret")
    assert run("convert", f"{there}/bell.qms", f"{there}/a%20b.qms", "--encrypt")[0] == 0
    assert (bell.parent / "a b.qms").exists()
    for arguments in (("info",), ("verify",), ("compare", f"{there}/bell.qms")):
        assert run(*arguments, f"{there}/a%20b.qms")[0] == 0
    assert run("compress", f"{there}/bell.qms", "-o", there)[0] == 2  # it is itself
    (bell.parent / "smaller").mkdir()
    assert run("compress", f"{there}/bell.qms", "-o", f"{there}/smaller")[0] == 0
    assert qm.load(bell.parent / "smaller" / "bell.qms") == qm.load(bell)


# ---- compress, checkpoints, purge, bench


def test_smaller_forms_of_versions_go_elsewhere(run: Run, named: Path, folder: str) -> None:
    zeros = np.zeros(1 << 12)
    zeros[0] = 1
    qm.save(qm.StateVector(zeros, qubit_order="big"), f"{folder}@zeros")
    code, _, said = run("compress", folder)
    assert (code, "a version is never replaced" in said) == (2, True)
    assert run("compress", f"{folder}@zeros", "-o", folder)[0] == 7
    code, out, _ = run("compress", f"{folder}@zeros", "-o", f"{folder}@small", "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["bytes_after"] < json.loads(out)["bytes_before"] == 1 << 15
    assert qm.load(f"{folder}@small") == qm.load(f"{folder}@zeros")
    Path("out").mkdir()
    assert run("compress", f"{folder}@zeros", "run@best", "store.h5@a", "-o", "out")[0] == 0
    made = {path.name for path in Path("out").iterdir()}
    assert made == {"repository@zeros.qms", "run@best.qms", "store.h5@a.qms"}
    assert qm.load("out/run@best.qms").quantum == state(2)


def test_zeros_at_an_address_have_no_ratio(run: Run, folder: str) -> None:
    for path, tree in (("zeros.qms", np.zeros(100)), ("nothing.qms", "no array")):
        qm.save({"classical_data": {"x": tree}}, path)
        for verb, *options in (("convert",), ("compress", "-o")):
            code, out, said = run(verb, path, *options, f"{folder}-{path}-{verb}")
            assert (code, said) == (0, ""), out


def test_a_checkpoint_goes_to_an_address_and_comes_from_one(run: Run, named: Path, folder: str) -> None:
    assert run("checkpoint", "-C", "run", "export", "best", f"{folder}@best")[0] == 0
    assert qm.load(folder).quantum == state(2)
    assert run("checkpoint", "-C", "run", "export", "best", folder)[0] == 7
    assert run("checkpoint", "-C", "other", "import", f"{folder}@best")[0] == 0
    assert run("checkpoint", "-C", "another", "import", "run@best")[0] == 0
    for one in ("other", "another"):
        assert qm.load(f"{one}@main").quantum == state(2)
        assert qm.info(f"{one}@main")["record"]["checkpoint"]["progress"] == 7
    lines = run("checkpoint", "-C", "run", "log")[1].splitlines()
    assert lines[-1].endswith(f"path {folder}@best")
    code, out, _ = run("purge", folder, "--checkpoints", "run", "--dry-run")
    assert code == 0
    assert f"exported to {folder}@best, which was not looked at" in out
    assert f"not reached: {folder}: a version there, which was only read" in out


def test_a_state_of_several_chunks_is_imported_and_measured(run: Run, folder: str) -> None:
    wanted = state(1, 17)
    with qm.transaction(folder, n_qubits=17, qubit_order="little", chunk_bytes=1 << 20) as made:
        part = made.fork()
        part.write(0, wanted.amplitudes)
        made.merge(part)
    assert isinstance(qm.load(folder).quantum, qm.ShardedStateVector)
    assert run("checkpoint", "-C", "run", "import", folder)[0] == 0
    assert qm.load("run@main").quantum == wanted
    ((name, measured),) = bench._states((folder,), (), 1, {"key_file": None, "passphrase_file": None})
    assert (name, measured) == ("repository", wanted)
    assert not isinstance(measured, qm.ShardedStateVector)
    assert run("compare", folder, "run@main")[1].startswith("identical content\n")
    assert run("verify", folder)[0] == 0


# ---- what people see


def test_what_is_below_an_address_is_counted(run: Run, named: Path, folder: str) -> None:
    for number, said in ((1, ", 1 memory,"), (2, ", 2 memories,")):
        qm.save(state(number, 3), f"{folder}/{number}")
        assert said in run("verify", folder)[1]
    assert ", 1 chunk," in run("verify", f"{folder}/1")[1]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("s3://bucket/a/run-42@step-7?endpoint=http://127.0.0.1:9", "run-42@step-7"),
        ("s3://bucket", "bucket"),
        ("s3://bucket/run/?endpoint=http://h", "run"),
        ("icechunk+file:///a/run", "run"),
        ("file:///a/b.qms", "b.qms"),
        ("a/what?.qms", "what?.qms"),
        ("run/@best", "@best"),
        ("/", "/"),
    ],
)
def test_the_last_part_is_the_label(path: str, label: str) -> None:
    assert last_part(path) == label


def test_a_file_that_is_written_of_an_address_is_named_for_it(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(named)
    names = [compress._file_name(path) for path in ("s3://b/k@t", "run@best", "x/y.qms", "file:///a/b%20c.json")]
    assert names == ["k@t.qms", "run@best.qms", "y.qms", "b c.json"]


def test_there_are_bars_for_an_address(program: Path, tmp_path: Path, folder: str) -> None:
    qm.save(qm.StateVector(np.ones(1 << 23), qubit_order="big"), folder, durable=False)
    terminal, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    running = subprocess.Popen(
        [program, "convert", folder, tmp_path / "target.qms"], stdout=subprocess.PIPE, stderr=side, env=environment
    )
    os.close(side)
    drawn = b""
    try:
        while part := os.read(terminal, 4096):
            drawn += part
    except OSError:  # Linux: the other side is closed
        pass
    said, _ = running.communicate(timeout=60)
    os.close(terminal)
    assert running.returncode == 0
    assert b"same content" in said
    assert b"convert repository" in drawn
    assert b"128.0/128.0 MiB" in drawn  # read and written
    assert b"check target.qms" in drawn


def test_help_names_the_verb() -> None:
    listed = CliRunner().invoke(main.qmem, ["--help"]).output
    summary = CliRunner().invoke(main.qmem, ["versions", "--help"]).output.splitlines()[2].strip()
    assert f"versions {summary}" in " ".join(listed.split())
    for verb in ("info", "verify", "compare", "convert", "compress"):
        said = " ".join(CliRunner().invoke(main.qmem, [verb, "--help"]).output.split())
        assert "s3://bucket/run@tag" in said


def test_what_is_done_to_files_alone_says_so(run: Run, folder: str) -> None:
    code, _, err = run("migrate", "plan", folder, "--out", "plan.json")
    assert (code, "qmem convert OLD ADDRESS" in err) == (InvalidStateError.exit_code, True)
    code, _, err = run("backup", "create", folder, "-C", "backups")
    assert (code, "qmem convert ADDRESS FILE.qms" in " ".join(err.split())) == (InvalidStateError.exit_code, True)
    assert not os.path.lexists("backups")

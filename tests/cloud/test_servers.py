"""The servers themselves: what they keep, what they say when they do not start, and that they end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError

from . import servers
from .servers import Ports, PortTakenError

ROOT = Path(__file__).parents[2]


def listens(endpoint):
    with socket.socket() as one:
        return one.connect_ex((servers.LOOPBACK, int(endpoint.rpartition(":")[2]))) == 0


def left(*ports):
    """Return the sockets of these ports."""
    return [path for port in ports for path in Path(os.sep, "tmp").glob(f"seaweedfs-*-{port}.sock")]


def test_what_a_killed_server_has_taken_is_there_when_it_is_back(tmp_path):
    ports = Ports.free()
    with servers.seaweed(tmp_path / "home", ports) as server:
        first, endpoint = server.process, server.endpoint
        obstore.put(server.store("place"), "object", b"kept")
        server.kill()
        assert first.poll() == -signal.SIGKILL
        with pytest.raises(GenericError):
            obstore.get(server.store("place"), "object")
        server.restart()
        assert (server.endpoint, server.process is first) == (endpoint, False)
        assert bytes(obstore.get(server.store("place"), "object").bytes()) == b"kept"
        assert left(*ports)
    assert not listens(endpoint)
    assert left(*ports) == []


def test_the_conditions_of_writes(s3, tmp_path):
    obstore.put(s3.store("conditions"), "object", b"1", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(s3.store("conditions"), "object", b"2", mode="create")
    with servers.without_conditions(tmp_path) as careless:
        for _ in range(2):
            obstore.put(careless.store(), "object", b"1", mode="create")


def test_the_environment_says_where_it_is(s3, prefix):
    assert os.environ["AWS_ENDPOINT_URL"] == s3.endpoint
    assert prefix.startswith(f"s3://{s3.bucket}/")
    store = obstore.store.from_url(prefix, virtual_hosted_style_request=False)
    obstore.put(store, "object", b"1")
    assert [one["path"] for one in obstore.list(s3.store(prefix.rpartition("/")[2])).collect()] == ["object"]


@pytest.mark.parametrize("name", ["s3", "filer_grpc"])
def test_where_a_port_is_taken_others_are_tried(tmp_path, monkeypatch, name):
    with socket.socket() as other:
        other.bind((servers.LOOPBACK, *servers.free_ports(1)))
        taken = Ports.free()._replace(**{name: other.getsockname()[1]})
        with pytest.raises(PortTakenError), servers.seaweed(tmp_path / "told", taken):
            pass
        good = Ports.free()
        given = iter([taken, good])
        monkeypatch.setattr(Ports, "free", lambda: next(given))
        with servers.seaweed(tmp_path / "free") as server:
            assert server.endpoint == f"http://{servers.LOOPBACK}:{good.s3}"


@pytest.mark.parametrize(("then", "what"), [("raise SystemExit(3)", "status 3"), ("time.sleep(60)", "it is not ready")])
def test_the_error_of_one_that_does_not_start_shows_its_log(monkeypatch, then, what):
    code = f"import time; print('this is why', flush=True); {then}"
    monkeypatch.setattr(servers, "_seaweed_command", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr(servers, "PATIENCE", 0.5)
    with pytest.raises(RuntimeError, match=rf"{what}; its log ends with:\nthis is why"), servers.seaweed():
        pass


def test_it_ends_with_whoever_has_started_it(tmp_path):
    code = (
        "import os, pathlib, signal, sys, tests.cloud.servers as servers\n"
        "with servers.without_conditions(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.process.pid, server.endpoint, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "folder"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    pid, endpoint = done.stdout.split()
    end = time.monotonic() + 10
    try:
        while listens(endpoint) and time.monotonic() < end:
            time.sleep(0.01)
        assert not listens(endpoint)
    except AssertionError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        raise

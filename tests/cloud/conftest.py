from __future__ import annotations

import multiprocessing
import uuid
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quantum_memory.formats.urls import URL

from . import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .servers import Server


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    """A server that keeps the conditions of writes; the environment says where it is, and has the keys."""
    with servers.seaweed() as server, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", servers.KEYS.access_key_id)
        patch.setenv("AWS_SECRET_ACCESS_KEY", servers.KEYS.secret_access_key)
        patch.setenv("AWS_REGION", servers.REGION)
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        yield server


@pytest.fixture
def prefix(s3: Server) -> str:
    """Where nothing is yet, on `s3`."""
    return f"s3://{s3.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that takes no notice of the conditions of writes; it takes the keys of `s3`."""
    with servers.without_conditions(tmp_path_factory.mktemp("careless")) as server:
        yield server.endpoint


@pytest.fixture
def folder_url(tmp_path: Path) -> str:
    """Where nothing is yet, in a folder."""
    return f"icechunk+file://{tmp_path}/run"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest) -> str:
    """Where nothing is yet, in a folder and in object storage."""
    found: str = request.getfixturevalue({"folder": "folder_url", "s3": "prefix"}[request.param])
    return found


@pytest.fixture(scope="module")
def pool(s3: Server) -> Iterator[ProcessPoolExecutor]:
    """Workers, who are told where `s3` is when they start."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    from distributed import Client, LocalCluster

    # Workers are processes that are told where the storage is when they start.
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as cluster,
        Client(cluster) as made,
    ):
        yield made


@pytest.fixture(params=["pool", "client"])
def executor(request: pytest.FixtureRequest, s3: object) -> object:
    """Two processes, in a pool and of Dask; they have the environment of `s3`."""
    return request.getfixturevalue(request.param)


def stored_bytes(url: str) -> int:
    """Return how many bytes a repository in a folder takes."""
    return sum(path.stat().st_size for path in Path(URL.parse(url).key).rglob("*") if path.is_file())

"""A prefix in object storage, as a place for a repository."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import tempfile
import uuid
from typing import TYPE_CHECKING

import icechunk
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotSupportedError, PreconditionError
from obstore.store import S3Store

from quantum_memory.cloud.errors import NO_ANSWER, branch_exists, moved, quiet, tag_exists
from quantum_memory.cloud.folder_lock import SINGLE_WRITER
from quantum_memory.cloud.folder_place import FolderPlace
from quantum_memory.cloud.notes import FOLDER, Notes, ObjectNotes
from quantum_memory.cloud.references import EMPTY, FILE, REFS, REMOVED, References, references_in
from quantum_memory.errors import ConflictError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from obstore.store import ClientConfig, RetryConfig, S3Config

    from quantum_memory.durability.write_back import WriteBack
    from quantum_memory.formats.urls import URL

_DEEPEST = 8
"""Levels of prefixes below an address at which repositories are looked for."""

_LONGEST_CLEANING = datetime.timedelta(days=1)
_NOT_CLEAN = "clean prefix"
_FIRST = (f"snapshots/{EMPTY}", f"{REFS}/branch.main/{FILE}")
"""What a repository is made of that has no version yet, in the order in which Icechunk writes it."""

_FEW_TRIES: RetryConfig = {"max_retries": 4, "retry_timeout": datetime.timedelta(seconds=5)}
_PROBED: dict[tuple[str, str | None], str | None] = {}
"""What was found, by this process, of each bucket that it has written to."""


class ObjectPlace:
    """A prefix in object storage that speaks S3.

    Credentials, region and endpoint are those of the environment (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
    ``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``), but for an endpoint in the address.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._endpoint = url.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._objects = self.objects()
        self.notes: Notes = ObjectNotes(self._objects)

    def storage(self) -> icechunk.Storage:
        quiet()
        return icechunk.s3_storage(
            bucket=self._url.bucket,
            prefix=self._url.key or None,
            region=_region(),
            endpoint_url=self._endpoint,
            allow_http=self._plain,
            force_path_style=self._endpoint is not None,
            from_env=True,
        )

    def objects(
        self, prefix: str | None = None, *, tries: RetryConfig | None = None, timeout: str | None = None
    ) -> S3Store:
        """Return the objects under the prefix of the address, or under another one.

        Parameters
        ----------
        tries
            How often a request is made that fails.
        timeout
            How long one may take, such as "300s", where that is longer than for small ones.
        """
        config: S3Config = {"region": _region()}
        if self._endpoint is not None:
            config |= {"endpoint": self._endpoint, "virtual_hosted_style_request": False}
        options: ClientConfig = {"allow_http": self._plain}
        if timeout is not None:
            options["timeout"] = timeout
        return S3Store(
            self._url.bucket,
            prefix=(self._url.key if prefix is None else prefix) or None,
            config=config,
            client_options=options,
            retry_config=tries,
        )

    def exists(self) -> bool:
        # What everybody asks first: who has mistyped the endpoint should not wait for half a minute. What a server that
        # answers has against it is left to Icechunk, which says why.
        try:
            self.objects(tries=_FEW_TRIES).head(_FIRST[-1])
        except (BaseError, FileNotFoundError) as error:
            if NO_ANSWER in str(error):
                raise
            return icechunk.Repository.exists(self.storage())
        return True

    def create(self) -> None:
        self.check_writable()
        try:
            icechunk.Repository.create(self.storage())
        except icechunk.IcechunkError as error:
            if self.exists():
                return
            if _NOT_CLEAN not in str(error):
                raise
            self._complete()

    def _complete(self) -> None:
        """Make a repository of what somebody has begun to make, who has died meanwhile, or is at it still.

        What a repository begins with is the same wherever it is made: who is first at each object does not matter.
        """
        store = self.objects()
        with tempfile.TemporaryDirectory() as folder:
            FolderPlace.make(folder)
            first = {name: pathlib.Path(folder, name).read_bytes() for name in _FIRST}
        paths = (one["path"] for batch in store.list() for one in batch)
        if other := next((path for path in paths if path not in first and not path.startswith(f"{FOLDER}/")), None):
            # Whoever was at it may have ended since, and have written into it: what it begins with comes before that.
            if self.exists():
                return
            raise ConflictError(
                f"there is something else, such as {other:.80}, and no repository",
                next_step="choose a prefix under which there is nothing",
            )
        for name in _FIRST:
            with contextlib.suppress(AlreadyExistsError):
                store.put(name, first[name], mode="create")

    def check_writable(self) -> None:
        if os.environ.get(SINGLE_WRITER) == "1":
            return
        where = (self._url.bucket, self._endpoint)
        if where not in _PROBED:
            _PROBED[where] = probe(self.objects())
        if (why := _PROBED[where]) is not None:
            raise UnsafeError(
                f"this storage does not keep two writers apart: {why}",
                path=str(self._url),
                next_step=f"use one that has conditional writes, or let there be one writer, and set {SINGLE_WRITER}=1",
            )

    def write_back(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # an object is durable when it is written

    def move(
        self,
        repository: icechunk.Repository,
        branch: str,
        to: str,
        *,
        seen: str,
        durable: bool = True,  # noqa: ARG002 - an object always is
        written: WriteBack | None = None,  # noqa: ARG002 - the same
    ) -> None:
        try:
            repository.reset_branch(branch, to, from_snapshot_id=seen)
        except icechunk.IcechunkError as error:
            if "branch update conflict" not in str(error):
                raise
            # Where only the answer to our own request was lost, the request was tried again, and has met itself: then
            # the branch has come from there to where it is, and not from where it was before.
            for one in repository.ancestry(branch=branch):
                if one.id == to:
                    return
                if one.id == seen:
                    break
            raise moved() from error

    def keep(self) -> None:
        pass

    def tag(
        self,
        repository: icechunk.Repository,
        name: str,
        snapshot: str,
        *,
        durable: bool = True,  # noqa: ARG002 - as above
        written: WriteBack | None = None,  # noqa: ARG002 - as above
    ) -> None:
        try:
            repository.create_tag(name, snapshot_id=snapshot)
        except icechunk.IcechunkError as error:
            if _tagged(repository, name) == snapshot:
                return  # only the answer was lost
            raise (tag_exists(name) if "already exists" in str(error) else error) from error

    def mend(self) -> None:
        pass  # objects are written as a whole

    @contextlib.contextmanager
    def cleaning(self) -> Iterator[None]:
        name, store = f"{FOLDER}/cleaning", self.objects()
        try:
            store.put(name, b"", mode="create")
        except AlreadyExistsError as error:
            begun = store.head(name)["last_modified"]
            if datetime.datetime.now(datetime.UTC) - begun < _LONGEST_CLEANING:
                raise ConflictError(
                    f"somebody else has been removing something since {begun:%Y-%m-%d %H:%M:%S} UTC",
                    next_step="wait for it; one that has not ended within a day is taken for dead",
                ) from error
            store.put(name, b"")
        try:
            yield
        finally:
            store.delete(name)

    @contextlib.contextmanager
    def expiring(self) -> Iterator[None]:
        yield

    def branch(self, repository: icechunk.Repository, name: str, snapshot: str) -> None:
        try:
            repository.create_branch(name, snapshot)
        except icechunk.IcechunkError as error:
            if "branch update conflict" not in str(error):
                raise
            if repository.lookup_branch(name) != snapshot:  # else only the answer was lost
                raise branch_exists(name) from error

    def untag(self, name: str) -> None:
        with contextlib.suppress(AlreadyExistsError):
            self._objects.put(f"{REFS}/tag.{name}/{REMOVED}", b"", mode="create")

    def tag_again(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._objects.delete(f"{REFS}/tag.{name}/{REMOVED}")

    def references(self) -> References:
        found = (one["path"].split("/")[-2:] for batch in self._objects.list(REFS) for one in batch)
        return references_in((parts[0], parts[1]) for parts in found if len(parts) == 2)

    def forget(self, tags: Collection[str]) -> None:
        for file in (FILE, REMOVED):  # in this order: of a tag that is half gone nobody takes it for one that is there
            if paths := [f"{REFS}/tag.{name}/{file}" for name in tags]:
                with contextlib.suppress(FileNotFoundError):
                    self._objects.delete(paths)

    def sweep(self) -> list[str]:
        return []  # objects are written as a whole

    def end(self, repository: icechunk.Repository, branch: str) -> None:
        with contextlib.suppress(icechunk.IcechunkError):
            repository.delete_branch(branch)

    def repositories_below(self) -> list[str]:
        """Return the keys of the repositories below this one."""
        return _keys_below(self.objects(""), self._url.key, _DEEPEST)

    @property
    def _plain(self) -> bool:
        return (self._endpoint or "").startswith("http://")


def _keys_below(store: S3Store, key: str, depth: int) -> list[str]:
    found = store.list_with_delimiter(f"{key}/" if key else None)["common_prefixes"]
    below = [prefix.rstrip("/") for prefix in found]
    names = {prefix.rpartition("/")[2] for prefix in below}
    if {"refs", "snapshots"} <= names:
        return [key]
    return [one for prefix in below for one in _keys_below(store, prefix, depth - 1)] if depth else []


def _tagged(repository: icechunk.Repository, name: str) -> str | None:
    try:
        return repository.lookup_tag(name)
    except icechunk.IcechunkError:
        return None


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def probe(store: S3Store) -> str | None:
    """Say which conditional write an object store does not keep to; None: none was seen.

    A few small requests, one after the other: it finds stores that do not know the conditions, and not those which know
    them and fail when two writers come at the same instant.
    """
    name = f"{FOLDER}/probe-{uuid.uuid4().hex}"
    try:
        first = store.put(name, b"first")
        try:
            store.put(name, b"second", mode="create")
            return "it writes over an object that was to be new (If-None-Match is ignored)"
        except AlreadyExistsError:
            pass
        store.put(name, b"third")
        try:
            store.put(name, b"fourth", mode={"e_tag": first["e_tag"]})
            return "it writes over an object that has changed (If-Match is ignored)"
        except PreconditionError:
            pass
    except (GenericError, NotSupportedError) as error:
        if "501" in str(error) or isinstance(error, NotSupportedError):
            return "it does not have conditional writes"
        raise
    finally:
        with contextlib.suppress(Exception):
            store.delete(name)
    return None

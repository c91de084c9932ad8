"""Where a repository is: a prefix in object storage, or a folder, and how a change of it is made to last.

What differs between the two is here and nowhere else. Object storage orders those who commit by conditional writes, and
an object is durable when the request is answered. A folder has neither: who commits holds its lock, everything that the
commit names is made durable before a reference names it, and the reference is replaced by a durable write.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import pathlib
import shutil
import stat
import tempfile
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import icechunk
from obstore.exceptions import AlreadyExistsError, GenericError, NotSupportedError, PreconditionError
from obstore.store import S3Store

from quantum_memory.cloud.errors import told
from quantum_memory.cloud.notes import FOLDER, FileNotes, Notes, ObjectNotes
from quantum_memory.durability.atomic import DurableFile, is_leftover, sync_folder, temporary_name
from quantum_memory.durability.files import current, is_at, sync_file_system
from quantum_memory.durability.locks import only_one
from quantum_memory.errors import ConflictError, StorageError, UnsafeError
from quantum_memory.formats.urls import S3, URL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import S3Config


_WAIT = 60.0
_DEEPEST = 8
"""Levels of prefixes below an address at which repositories are looked for."""

_LONGEST_CLEANING = datetime.timedelta(days=1)
_ALONE = "QMEM_SINGLE_WRITER"
"""Set to 1 by who knows that nobody else writes there, where the storage cannot keep writers apart."""

_NOT_CLEAN = "clean prefix"
_FIRST = ("snapshots/1CECHNKREP0F1RSTCMT0", "refs/branch.main/ref.json")
"""What a repository is made of that has no version yet, in the order in which Icechunk writes it."""

_IN_THE_WAY = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_REFERENCE = "reference"
_RANDOM_PART = len("0123456789abcdef.qmtmp")

_PROBED: dict[tuple[str, str | None], str | None] = {}
"""What was found, by this process, of each bucket that it has written to."""


class Place(Protocol):
    """A place for a repository.

    Attributes
    ----------
    notes
        The small files beside it.
    """

    @property
    def notes(self) -> Notes: ...

    def storage(self) -> icechunk.Storage:
        """Return where it is, for Icechunk."""

    def exists(self) -> bool:
        """Tell whether there is a repository; nothing is made."""

    def create(self) -> None:
        """Make an empty repository; where somebody else has just made one, that is it.

        Raises
        ------
        ConflictError
            There is something else.
        """

    def check_writable(self) -> None:
        """Refuse a place that cannot keep two writers apart.

        Raises
        ------
        UnsafeError
        """

    def move(self, repository: icechunk.Repository, branch: str, to: str, *, seen: str, durable: bool = True) -> None:
        """Let a branch end at a snapshot, durably, if it still ends where it was seen to.

        Raises
        ------
        ConflictError
            It does not.
        """

    def mend(self) -> None:
        """Bring back what was being changed when somebody was cut off."""

    def cleaning(self) -> contextlib.AbstractContextManager[None]:
        """Be the only one who removes something, for a block.

        Raises
        ------
        ConflictError
            Somebody else is.
        """

    def expiring(self) -> contextlib.AbstractContextManager[None]:
        """Let Icechunk write over snapshots in a block, after which they are durable, or as they were before."""

    def keep(self) -> None:
        """Make durable what others may have written without that."""

    def tag(self, repository: icechunk.Repository, name: str, snapshot: str) -> None:
        """Name a snapshot, durably.

        Raises
        ------
        ConflictError
            There is a tag of that name, or has been one.
        """

    def branch(self, repository: icechunk.Repository, name: str, snapshot: str) -> None:
        """Begin a branch at a snapshot, durably.

        Raises
        ------
        ConflictError
            There is a branch of that name.
        """

    def end(self, repository: icechunk.Repository, branch: str) -> None:
        """Remove a branch on which somebody has written; what goes wrong is left to whoever cleans up."""


def place_of(url: URL) -> Place:
    """Return the place that an address means."""
    return ObjectPlace(url) if url.scheme == S3 else FolderPlace(url)


class ObjectPlace:
    """A prefix in object storage that speaks S3.

    Credentials, region and endpoint are those of the environment (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
    ``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``), but for an endpoint in the address.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._endpoint = url.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self.notes: Notes = ObjectNotes(self.objects())

    def storage(self) -> icechunk.Storage:
        _quiet()
        return icechunk.s3_storage(
            bucket=self._url.bucket,
            prefix=self._url.key or None,
            region=_region(),
            endpoint_url=self._endpoint,
            allow_http=self._plain,
            force_path_style=self._endpoint is not None,
            from_env=True,
        )

    def objects(self, prefix: str | None = None) -> S3Store:
        """Return the objects under the prefix of the address, or under another one."""
        config: S3Config = {"region": _region()}
        if self._endpoint is not None:
            config |= {"endpoint": self._endpoint, "virtual_hosted_style_request": False}
        return S3Store(
            self._url.bucket,
            prefix=(self._url.key if prefix is None else prefix) or None,
            config=config,
            client_options={"allow_http": self._plain},
        )

    def exists(self) -> bool:
        return icechunk.Repository.exists(self.storage())

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
        for batch in store.list():
            for one in batch:
                if one["path"] not in first and not one["path"].startswith(f"{FOLDER}/"):
                    raise ConflictError(
                        f"there is something else, such as {one['path']:.80}, and no repository",
                        next_step="choose a prefix under which there is nothing",
                    )
        for name in _FIRST:
            with contextlib.suppress(AlreadyExistsError):
                store.put(name, first[name], mode="create")

    def check_writable(self) -> None:
        if os.environ.get(_ALONE) == "1":
            return
        where = (self._url.bucket, self._endpoint)
        if where not in _PROBED:
            _PROBED[where] = probe(self.objects())
        if (why := _PROBED[where]) is not None:
            raise UnsafeError(
                f"this storage does not keep two writers apart: {why}",
                path=str(self._url),
                next_step=f"use one that has conditional writes, or let there be one writer, and set {_ALONE}=1",
            )

    def move(
        self,
        repository: icechunk.Repository,
        branch: str,
        to: str,
        *,
        seen: str,
        durable: bool = True,  # noqa: ARG002 - an object always is
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

    def tag(self, repository: icechunk.Repository, name: str, snapshot: str) -> None:
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

    def end(self, repository: icechunk.Repository, branch: str) -> None:
        with contextlib.suppress(icechunk.IcechunkError):
            repository.delete_branch(branch)

    @property
    def _plain(self) -> bool:
        return (self._endpoint or "").startswith("http://")


class FolderPlace:
    """A folder on a local disk."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._root = os.path.realpath(url.key)
        self.notes: Notes = FileNotes(self._root)

    def storage(self) -> icechunk.Storage:
        _quiet()
        return icechunk.local_filesystem_storage(self._root)

    def exists(self) -> bool:
        # Icechunk makes the folder that it is to look into, and panics where it cannot.
        try:
            mode = current().stat(self._root).st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError.from_os_error(error, "look into its folder", self._root) from error
        if not stat.S_ISDIR(mode):
            raise ConflictError("it is no folder", next_step="give the folder of a repository, or a name that is free")
        return icechunk.Repository.exists(self.storage())

    def create(self) -> None:
        files, parent = current(), os.path.dirname(self._root)
        try:
            os.makedirs(parent, exist_ok=True)
            self._remove_unfinished(parent)
            with _locked_folder_in(parent, os.path.basename(self._root)) as made:
                try:
                    self.make(made)
                    sync_file_system(made)
                    files.rename(made, self._root)  # which is there, or is not
                except BaseException:
                    shutil.rmtree(made, ignore_errors=True)
                    raise
                sync_folder(files, parent)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise StorageError.from_os_error(error, "make a repository in this folder", self._root) from error
            if not self.exists():
                raise ConflictError(
                    "there is something else in this folder, and no repository",
                    next_step="choose a folder that is empty, or not there yet",
                ) from error

    @staticmethod
    def make(folder: str) -> None:
        """Make an empty repository in an empty folder."""
        _quiet()
        icechunk.Repository.create(icechunk.local_filesystem_storage(folder))

    def _remove_unfinished(self, parent: str) -> None:
        """Remove what was to become this repository, and whose makers have died; those who live hold its lock."""
        files, begin = current(), temporary_name(os.path.basename(self._root))[:-_RANDOM_PART]
        for name in files.names(parent):
            path = os.path.join(parent, name)
            if not is_leftover(name) or name[:-_RANDOM_PART] != begin or not os.path.isdir(path):
                continue
            with contextlib.suppress(OSError):
                fd = files.open(path, os.O_RDONLY)
                try:
                    if files.try_lock(fd):
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    files.close(fd)

    def check_writable(self) -> None:
        pass  # the lock says it

    def move(self, repository: icechunk.Repository, branch: str, to: str, *, seen: str, durable: bool = True) -> None:
        with self._locked():
            if repository.lookup_branch(branch) != seen:
                raise moved()
            if durable:
                sync_file_system(self._root)
            self._write_reference(f"branch.{branch}", to, durable=durable)

    def keep(self) -> None:
        sync_file_system(self._root)

    def tag(self, repository: icechunk.Repository, name: str, snapshot: str) -> None:  # noqa: ARG002 - as the other has
        with self._locked():
            sync_file_system(self._root)
            if not self._new_reference(f"tag.{name}", snapshot):
                raise tag_exists(name)

    def branch(self, repository: icechunk.Repository, name: str, snapshot: str) -> None:  # noqa: ARG002 - as above
        with self._locked():
            sync_file_system(self._root)
            if not self._new_reference(f"branch.{name}", snapshot):
                raise branch_exists(name)

    def end(self, repository: icechunk.Repository, branch: str) -> None:
        with contextlib.suppress(icechunk.IcechunkError, OSError):
            repository.delete_branch(branch)
            current().rmdir(os.path.join(self._root, "refs", f"branch.{branch}"))  # which Icechunk leaves

    def mend(self) -> None:
        if not os.path.isdir(self._held):
            return
        try:
            with only_one(self._root, 0):
                self._put_back()
        except (ConflictError, StorageError, OSError):
            pass  # somebody is at it, or this user may only read; what is read tells

    @contextlib.contextmanager
    def cleaning(self) -> Iterator[None]:
        folder = os.path.join(self._root, FOLDER)
        os.makedirs(folder, exist_ok=True)
        try:
            with only_one(folder, 0):
                yield
        except ConflictError as error:
            raise ConflictError("somebody else is removing something", next_step="wait for it") from error

    @contextlib.contextmanager
    def expiring(self) -> Iterator[None]:
        """Hold on to every snapshot by a second name, since Icechunk replaces some without making them durable."""
        files = current()
        with self._locked():
            self._put_back()
            os.makedirs(self._held, exist_ok=True)
            for name in files.names(self._snapshots):
                files.link(os.path.join(self._snapshots, name), os.path.join(self._held, name))
            for folder in (self._held, os.path.dirname(self._held), self._root):
                sync_folder(files, folder)
            yield  # where it fails, or is cut off, who comes next puts back what was there
            sync_file_system(self._root)
            shutil.rmtree(self._held)
            sync_folder(files, os.path.dirname(self._held))

    def _put_back(self) -> None:
        """Give snapshots back that were held on to, if there are any."""
        files = current()
        if not os.path.isdir(self._held):
            return
        for name in files.names(self._held):
            # Of two names of one file this does nothing, and leaves both.
            files.rename(os.path.join(self._held, name), os.path.join(self._snapshots, name))
        sync_folder(files, self._snapshots)
        shutil.rmtree(self._held)
        sync_folder(files, os.path.dirname(self._held))

    @property
    def _snapshots(self) -> str:
        return os.path.join(self._root, "snapshots")

    @property
    def _held(self) -> str:
        return os.path.join(self._root, FOLDER, "expiring")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if os.environ.get(_ALONE) == "1":
            yield
            return
        with only_one(self._root, _WAIT):
            yield

    def _new_reference(self, name: str, snapshot: str) -> bool:
        """Make a reference that is there as a whole, or not, and return False where there is one, or has been one."""
        files, refs = current(), os.path.join(self._root, "refs")
        self._remove_unmade()
        made = os.path.join(self._root, temporary_name(_REFERENCE))
        try:
            files.mkdir(made)
            self._write(made, snapshot, overwrite=False)
            files.rename(made, os.path.join(refs, name))
            sync_folder(files, refs)
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            if error.errno in _IN_THE_WAY:
                return False
            raise StorageError.from_os_error(error, "make a reference", self._root) from error
        return True

    def _remove_unmade(self) -> None:
        """Remove references that were never made: whoever holds the lock knows that their makers have died."""
        for name in current().names(self._root):
            if is_leftover(name) and name.startswith(f".{_REFERENCE}."):
                shutil.rmtree(os.path.join(self._root, name), ignore_errors=True)

    def _write_reference(self, name: str, snapshot: str, *, durable: bool) -> None:
        """Write what Icechunk's own ``refs/NAME/ref.json`` is, which it replaces without making anything durable."""
        self._write(os.path.join(self._root, "refs", name), snapshot, overwrite=True, durable=durable)

    @staticmethod
    def _write(folder: str, snapshot: str, *, overwrite: bool, durable: bool = True) -> None:
        with DurableFile(os.path.join(folder, "ref.json"), overwrite=overwrite, durable=durable) as file:
            file.write(f'{{"snapshot":"{snapshot}"}}'.encode())


def repositories_below(url: URL) -> list[str] | None:
    """Return the addresses of the repositories below an address; None where there is one at the address itself.

    Raises
    ------
    StorageError
        The storage cannot be reached, or refuses.
    """
    with told(url, "look for repositories"):
        if url.name is not None or place_of(url).exists():
            return None
        if url.scheme == S3:
            keys = _keys_below(ObjectPlace(url).objects(""), url.key, _DEEPEST)
        else:
            keys = sorted(folder for folder, parts, _ in os.walk(url.key) if {"refs", "snapshots"} <= set(parts))
    return [str(replace(url, key=key)) for key in keys]


def _keys_below(store: S3Store, key: str, depth: int) -> list[str]:
    found = store.list_with_delimiter(f"{key}/" if key else None)["common_prefixes"]
    below = [prefix.rstrip("/") for prefix in found]
    names = {prefix.rpartition("/")[2] for prefix in below}
    if {"refs", "snapshots"} <= names:
        return [key]
    return [one for prefix in below for one in _keys_below(store, prefix, depth - 1)] if depth else []


@contextlib.contextmanager
def _locked_folder_in(parent: str, name: str) -> Iterator[str]:
    """Make a folder for what is to get a name in another folder, and hold its lock for a block."""
    files = current()
    while True:
        made = os.path.join(parent, temporary_name(name))
        files.mkdir(made)
        fd = files.open(made, os.O_RDONLY)
        try:
            # Until it is locked, somebody may take it for a leftover, and remove it.
            if _may_lock(fd) and is_at(files, fd, made):
                yield made
                return
        finally:
            files.closerange(fd, fd + 1)


def _may_lock(fd: int) -> bool:
    """Lock a folder; where there are no locks, there is nobody who would remove it either."""
    try:
        return current().try_lock(fd)
    except OSError:
        return True


def _quiet() -> None:
    """Keep Icechunk from writing its log to the standard output, where nobody has asked for it."""
    if "ICECHUNK_LOG" not in os.environ:
        icechunk.set_logs_filter("off")


def moved() -> ConflictError:
    """Return what is said to who comes second."""
    return ConflictError("somebody else has written a newer version meanwhile")


def branch_exists(name: str) -> ConflictError:
    """Return what is said of a branch that cannot be made."""
    return ConflictError(f"there is a tag or a branch {name!r} already", next_step="choose another name")


def tag_exists(name: str) -> ConflictError:
    """Return what is said of a tag that cannot be made."""
    return ConflictError(
        f"there is a tag {name!r} already, or there has been one", next_step="tags stay; choose another name"
    )


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

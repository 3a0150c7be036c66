"""A folder as a store (`file://`): for archives on disks, for tests and for the demo."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import tempfile
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from stat import S_ISREG

from retainer.errors import KeyTaken, ListingBroken, StoreFailed, StoreRefused
from retainer.model.diagnosis import Found
from retainer.model.lifecycle import LifecycleRule
from retainer.model.setting import OWN_PREFIX, Store
from retainer.patience import Patience
from retainer.ports import (
    Begun,
    Certain,
    Checksum,
    Deletion,
    Hidden,
    Look,
    Seen,
    StoreFailure,
    StoreReader,
    Stretch,
    Version,
    looked_and_read,
    untold,
)
from retainer.stop import Stop

_PIECE = 1 << 20
_TEMPORARY = f"{OWN_PREFIX}tmp/"
_GOING = f"{OWN_PREFIX}going/"
_RECORDS = f"{OWN_PREFIX}records/"


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"


class LocalReader:
    """Reads one folder. Symbolic links are not followed and are no objects."""

    def __init__(
        self,
        store: Store,
        stop: Stop | None = None,
        patience: Patience | None = None,
        *,
        quick: bool = False,
    ) -> None:
        """`patience` and `quick` change nothing here: a folder answers at once or not at all."""
        self.name = store.name
        self.store = store
        self.root = Path(store.prefix)
        self._stop = stop or Stop()
        self._newest = 0.0

    def _path(self, key: str) -> Path:
        """Where a key lies. Raises StoreFailed for one that leads out of the folder, also by a link
        on the way."""
        if (
            key.startswith("/")
            or "\0" in key
            or any(piece in ("", ".", "..") for piece in key.split("/"))
        ):
            raise StoreFailed(f"{self.name}: the key `{key}` would leave the folder")
        path = self.root / key
        self._no_link(path.parent)
        return path

    def _no_link(self, folder: Path) -> None:
        while folder != self.root:
            if folder.is_symlink():
                raise StoreFailed(
                    f"{self.name}: {folder} is a link, and none is followed inside a store",
                    hint="put the folder itself there",
                )
            folder = folder.parent

    def list(self, under: str = "") -> Iterator[Seen]:
        base = self.root / under
        if under:
            try:
                self._no_link(Path(f"{base}"))
            except StoreFailed as error:
                raise ListingBroken(error.message, hint=error.hint) from None
        if not self.root.is_dir():
            raise ListingBroken(
                f"list {self.name}: the folder {self.root} is not there",
                hint="create it, or correct its url",
            )
        if under and not base.is_dir():
            return
        folders = [base]
        try:
            while folders:
                self._stop.check()
                folder = folders.pop()
                with os.scandir(folder) as entries:
                    for entry in entries:
                        path = Path(entry.path)
                        key = path.relative_to(self.root).as_posix()
                        if not under and (key + "/").startswith(OWN_PREFIX):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(path)
                        elif entry.is_file(follow_symlinks=False):
                            stat = entry.stat(follow_symlinks=False)
                            self._newest = max(self._newest, stat.st_mtime)
                            yield Seen(key, stat.st_size, _version(stat), lock_read=True)
            if not under:
                yield from self._moved_aside()
        except OSError as error:
            raise ListingBroken(f"list {self.name}: {error.strerror} ({error.filename})") from None

    def _moved_aside(self) -> Iterator[Seen]:
        """What a delete moved aside before it was killed is still there; the next run ends that
        delete, or puts it back."""
        for key in self.unfinished():
            if not os.path.lexists(self.root / key):
                stat = (self.root / _GOING / key).lstat()
                yield Seen(key, stat.st_size, _version(stat), lock_read=True)

    def whole(self, key: str, most: int) -> tuple[Look, bytes] | None:
        return looked_and_read(self, key, most)

    def unfinished(self) -> Sequence[str]:
        """The keys of deletes that a kill cut short: the file was moved aside, and not yet
        removed."""
        going = self.root / _GOING
        try:
            return sorted(
                path.relative_to(going).as_posix()
                for path in going.rglob("*")
                if path.is_file() or path.is_symlink()
            )
        except OSError as error:
            raise StoreFailed(f"look at {self.name}: {error.strerror}") from None

    def list_at_once(
        self, bounds: Sequence[str], known: Sequence[Stretch] = ()
    ) -> Generator[Seen | Stretch]:
        yield from self.list()

    def some_between(self, first: str, last: str, pages: int) -> Iterator[Seen]:
        return iter(())

    def can_lock(self) -> bool:
        return False

    def lifecycle(self) -> Sequence[LifecycleRule]:
        """A folder has no rules of its own."""
        return ()

    def traits(self) -> Sequence[Found]:
        try:
            leads_there = all(each.stat().st_mode & 0o001 for each in self.root.parents)
            is_open = leads_there and self.root.stat().st_mode & 0o004
        except OSError:
            return ()
        if not is_open:
            return ()
        said = "every user of this machine can read what lies there"
        return (Found(self.name, "unsure", said, f"chmod o= {self.root}"),)

    def keeps_deleted(self) -> str | None:
        return None

    def keeps_removed(self) -> str | None:
        return None

    def hidden(self, seen: Seen) -> Hidden | None:
        """A folder keeps nothing of what is deleted."""
        return None

    def versions(self, under: str) -> Iterator[Version]:
        """A folder has one of each file."""
        if under.endswith("/"):
            found = self.list(under)
        else:
            look = self.look(under)
            found = iter([look.seen] if look else [])
        return (Version(seen, seen.version, is_current=True) for seen in found)

    def look(self, key: str) -> Look | None:
        try:
            stat = self._path(key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreFailed(f"look at {self.name}:{key}: {error.strerror}") from None
        try:
            metadata = json.loads(
                (self.root / _RECORDS / f"{key}.json").read_text(encoding="utf-8")
            )
        except (OSError, ValueError):
            metadata = {}
        if not S_ISREG(stat.st_mode):
            raise StoreFailed(
                f"look at {self.name}:{key}: something lies there that is no file",
                hint="look at it, and move it away",
            )
        return Look(
            Seen(key, stat.st_size, _version(stat), lock_read=True),
            None,
            metadata,
            age=self._age(key, stat),
        )

    def _age(self, key: str, stat: os.stat_result) -> timedelta | None:
        """How long ago an object of retainer's own was written, by the clock that stamps this
        folder's files."""
        if not key.startswith(OWN_PREFIX):
            return None
        return self._stamped_now() - datetime.fromtimestamp(stat.st_mtime, UTC)

    def _stamped_now(self) -> datetime:
        return datetime.now(UTC)

    def read(self, seen: Seen) -> Iterator[bytes]:
        count = 0
        try:
            with self._path(seen.key).open("rb") as stream:
                if _version(os.fstat(stream.fileno())) != seen.version:
                    raise StoreFailed(
                        f"read {self.name}:{seen.key}: it changed since it was seen",
                        hint="plan again",
                    )
                while piece := stream.read(_PIECE):
                    if not seen.key.startswith(OWN_PREFIX):
                        self._stop.check()
                    count += len(piece)
                    yield piece
        except OSError as error:
            raise StoreFailed(f"read {self.name}:{seen.key}: {error.strerror}") from None
        if count != seen.size:
            raise StoreFailed(
                f"read {self.name}:{seen.key}: {count} bytes came, {seen.size} were seen"
            )

    def server_time(self) -> datetime:
        """Files tell when they were written, so the clock is not before the newest of them. Whether
        it is ahead only others can tell."""
        return max(self._stamped_now(), datetime.fromtimestamp(self._newest, UTC))


class LocalWriter(LocalReader):
    """Changes one folder, always on a condition: a create links a finished file, a delete moves
    aside and looks once more."""

    def _stamped_now(self) -> datetime:
        """The clock that stamps the files of this folder: on a share that of the machine it lies
        on."""
        try:
            folder = self.root / _TEMPORARY
            self._there("ask")
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"0")
                probe.flush()
                return datetime.fromtimestamp(os.fstat(probe.fileno()).st_mtime, UTC)
        except (OSError, StoreFailed):
            return datetime.now(UTC)

    def create(
        self,
        key: str,
        chunks: Iterator[bytes],
        size: int | None,
        metadata: Mapping[str, str],
        content_type: str,
        begun: Begun = untold,
        lock_until: datetime | None = None,
        over: Seen | None = None,
        encoding: str = "",
    ) -> Look:
        path = self._path(key)
        self._there("write")
        temporary = self.root / _TEMPORARY / uuid.uuid4().hex
        begun(temporary.name)
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
                stat = os.fstat(stream.fileno())
            if over is not None and _version(path.lstat()) != over.version:
                raise FileExistsError
            record = self.root / _RECORDS / f"{key}.json"
            if metadata and (over is not None or not path.exists()):
                record.parent.mkdir(parents=True, exist_ok=True)
                record.write_text(json.dumps(dict(metadata)), encoding="utf-8")
            path.parent.mkdir(parents=True, exist_ok=True)
            if over is not None:
                temporary.replace(path)
            else:
                os.link(temporary, path)
            _sync(path.parent)
        except FileExistsError:
            raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
        except OSError as error:
            said, hint = (
                f"write {self.name}:{key}: {error.strerror}",
                "is the disk full or read-only?",
            )
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise StoreRefused(said, hint=hint, store=self.name) from None
            raise StoreFailed(said, hint=hint) from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return Look(Seen(key, stat.st_size, _version(stat)))

    def _there(self, verb: str) -> None:
        """The folder itself is never made: it would hide that a disk is not mounted."""
        if not self.root.is_dir():
            raise StoreFailed(
                f"{verb} {self.name}: the folder {self.root} is not there",
                hint="create it; is its disk mounted?",
            )

    def abandon(self, key: str, upload: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{32}", upload):
            raise StoreFailed(
                f"clear up {self.name}:{key}: `{upload}` is no name that retainer gives to a file"
            )
        try:
            (self.root / _TEMPORARY / upload).unlink(missing_ok=True)
        except OSError as error:
            raise StoreFailed(f"clear up {self.name}:{key}: {error.strerror}") from None

    def copies_from(self, source: StoreReader) -> bool:
        return False

    def copy_within(
        self,
        source: StoreReader,
        seen: Seen,
        checksum: Checksum,
        key: str,
        metadata: Mapping[str, str],
        content_type: str,
        begun: Begun = untold,
        lock_until: datetime | None = None,
    ) -> Seen | None:
        return None

    def lock(self, seen: Seen, until: datetime) -> None:
        raise StoreFailed(f"lock {self.name}:{seen.key}: a folder has no locks")

    def restore(self, seen: Seen) -> None:
        raise StoreFailed(f"restore {self.name}:{seen.key}: a folder has no archive")

    def lock_version(self, seen: Seen, until: datetime) -> None:
        """A folder locks nothing."""

    def remove(self, version: Version) -> Deletion:
        return self.delete(version.seen)

    def delete(self, seen: Seen) -> Deletion:
        path, aside = self._path(seen.key), self.root / _GOING / seen.key
        try:
            if _version(path.lstat()) != seen.version:
                return Deletion.CHANGED
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.rename(aside)
            if _version(aside.lstat()) != seen.version:
                self._put_back(aside, path)
                return Deletion.CHANGED
            aside.unlink()
            with suppress(FileNotFoundError):  # another delete took the folder, empty by then
                _sync(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            return Deletion.GONE
        except OSError as error:
            raise StoreFailed(f"delete {self.name}:{seen.key}: {error.strerror}") from None
        self._forget(path, seen.key)
        return Deletion.DELETED

    def _forget(self, path: Path, key: str) -> None:
        """Remove what is left of a file that is gone: its record, and folders that it leaves
        empty."""
        with suppress(OSError):
            (self.root / _RECORDS / f"{key}.json").unlink(missing_ok=True)
        with suppress(OSError):
            for folder in path.parents:
                if folder == self.root:
                    break
                folder.rmdir()

    def _put_back(self, aside: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(aside, path)
        aside.unlink()

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        raise StoreFailed(f"delete in {self.name}: files are deleted one by one")

    def impatient(self) -> LocalWriter:
        return self

    def conditions(self) -> Certain:
        """A folder honours them by construction; to ask changes nothing."""
        self._there("probe")
        return Certain()

    def prove_on(self, seen: Seen, content: bytes) -> Seen:
        return seen

    def bring_back(self, hidden: Hidden) -> Seen:
        raise StoreFailed(f"bring back {self.name}:{hidden.seen.key}: a folder keeps nothing")

    def put_back(self, key: str) -> bool:
        aside, path = self.root / _GOING / key, self._path(key)
        try:
            if path.exists() and aside.samefile(path):
                aside.unlink()
            elif os.path.lexists(path):
                return False
            else:
                self._put_back(aside, path)
        except FileNotFoundError:
            return True  # somebody else did
        except OSError as error:
            raise StoreFailed(f"clear up {self.name}:{key}: {error.strerror}") from None
        return True

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        path = self._path(seen.key)
        self._there("write")
        temporary = self.root / _TEMPORARY / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                if _version(path.lstat()) != seen.version:
                    return None
                with temporary.open("xb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                stat = temporary.stat()
                temporary.replace(path)
                _sync(path.parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreFailed(f"write {self.name}:{seen.key}: {error.strerror}") from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return Seen(seen.key, len(content), _version(stat))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

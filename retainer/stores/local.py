"""A folder as a store (`file://`): for archives on disks, for tests and for the demo."""

from __future__ import annotations

import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from retainer.errors import KeyTaken, ListingBroken, StoreFailed
from retainer.model.setting import OWN_PREFIX, Store
from retainer.ports import Begun, Checksum, Conditions, Deletion, Look, Seen, StoreFailure, StoreReader, untold

_PIECE = 1 << 20
_TEMPORARY = f"{OWN_PREFIX}tmp/"
_GOING = f"{OWN_PREFIX}going/"
_RECORDS = f"{OWN_PREFIX}records/"


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"


class LocalReader:
    """Reads one folder. Symbolic links are not followed and are no objects."""

    def __init__(self, store: Store) -> None:
        self.name = store.name
        self.store = store
        self.root = Path(store.prefix)

    def _path(self, key: str) -> Path:
        if key.startswith("/") or any(piece in ("", ".", "..") for piece in key.split("/")):
            raise StoreFailed(f"{self.name}: the key `{key}` would leave the folder")
        return self.root / key

    def list(self, under: str = "") -> Iterator[Seen]:
        base = self.root / under
        if not self.root.is_dir():
            raise ListingBroken(f"list {self.name}: the folder {self.root} is not there", hint="create it, or correct its url")
        if under and not base.is_dir():
            return
        folders = [base]
        try:
            while folders:
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
                            yield Seen(key, stat.st_size, _version(stat), lock_read=True)
        except OSError as error:
            raise ListingBroken(f"list {self.name}: {error.strerror} ({error.filename})") from None

    def can_lock(self) -> bool:
        return False

    def look(self, key: str) -> Look | None:
        try:
            stat = self._path(key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreFailed(f"look at {self.name}:{key}: {error.strerror}") from None
        try:
            metadata = json.loads((self.root / _RECORDS / f"{key}.json").read_text())
        except (OSError, ValueError):
            metadata = {}
        return Look(Seen(key, stat.st_size, _version(stat), lock_read=True), None, metadata)

    def read(self, seen: Seen) -> Iterator[bytes]:
        count = 0
        try:
            with self._path(seen.key).open("rb") as stream:
                if _version(os.fstat(stream.fileno())) != seen.version:
                    raise StoreFailed(f"read {self.name}:{seen.key}: it changed since it was seen", hint="plan again")
                while piece := stream.read(_PIECE):
                    count += len(piece)
                    yield piece
        except OSError as error:
            raise StoreFailed(f"read {self.name}:{seen.key}: {error.strerror}") from None
        if count != seen.size:
            raise StoreFailed(f"read {self.name}:{seen.key}: {count} bytes came, {seen.size} were seen")

    def server_time(self) -> datetime:
        return datetime.now(UTC)


class LocalWriter(LocalReader):
    """Changes one folder, always on a condition: a create links a finished file, a delete moves aside and looks once more."""

    def create(
        self, key: str, chunks: Iterator[bytes], size: int | None, metadata: Mapping[str, str], content_type: str, begun: Begun = untold,
        lock_until: datetime | None = None, over: Seen | None = None,
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
                record.write_text(json.dumps(dict(metadata)))
            path.parent.mkdir(parents=True, exist_ok=True)
            if over is not None:
                temporary.replace(path)
            else:
                os.link(temporary, path)
            _sync(path.parent)
        except FileExistsError:
            raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
        except OSError as error:
            raise StoreFailed(f"write {self.name}:{key}: {error.strerror}", hint="is the disk full or read-only?") from None
        finally:
            temporary.unlink(missing_ok=True)
        return Look(Seen(key, stat.st_size, _version(stat)))

    def _there(self, verb: str) -> None:
        """The folder itself is never made: it would hide that a disk is not mounted."""
        if not self.root.is_dir():
            raise StoreFailed(f"{verb} {self.name}: the folder {self.root} is not there", hint="create it; is its disk mounted?")

    def abandon(self, key: str, upload: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{32}", upload):
            raise StoreFailed(f"clear up {self.name}:{key}: `{upload}` is no name that retainer gives to a file")
        try:
            (self.root / _TEMPORARY / upload).unlink(missing_ok=True)
        except OSError as error:
            raise StoreFailed(f"clear up {self.name}:{key}: {error.strerror}") from None

    def copies_from(self, source: StoreReader) -> bool:
        return False

    def copy_within(
        self, source: StoreReader, seen: Seen, checksum: Checksum, key: str, metadata: Mapping[str, str], content_type: str,
        begun: Begun = untold, lock_until: datetime | None = None,
    ) -> Seen | None:
        return None

    def lock(self, seen: Seen, until: datetime) -> None:
        raise StoreFailed(f"lock {self.name}:{seen.key}: a folder has no locks")

    def restore(self, seen: Seen) -> None:
        raise StoreFailed(f"restore {self.name}:{seen.key}: a folder has no archive")

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
            _sync(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            return Deletion.GONE
        except OSError as error:
            raise StoreFailed(f"delete {self.name}:{seen.key}: {error.strerror}") from None
        with suppress(OSError):
            (self.root / _RECORDS / f"{seen.key}.json").unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root:
                    break
                folder.rmdir()
        return Deletion.DELETED

    def _put_back(self, aside: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(aside, path)
        aside.unlink()

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        raise StoreFailed(f"delete in {self.name}: files are deleted one by one")

    def conditions(self) -> Conditions:
        """A folder honours both by construction. Files that a killed run had moved aside are put back first."""
        try:
            self._there("probe")
            going = self.root / _GOING
            for aside in sorted(going.rglob("*")) if going.is_dir() else ():
                path = self.root / aside.relative_to(going)
                if aside.is_file() and path.exists() and aside.samefile(path):
                    aside.unlink()
                elif aside.is_file() and not path.exists():
                    self._put_back(aside, path)
            return Conditions(create=True, delete=True, batch_delete=False, checksum=False)
        except OSError as error:
            raise StoreFailed(f"probe {self.name}: {error.strerror}") from None

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        path = self._path(seen.key)
        temporary = self.root / _TEMPORARY / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                if _version(path.lstat()) != seen.version:
                    return None
                temporary.write_bytes(content)
                stat = temporary.stat()
                temporary.replace(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreFailed(f"write {self.name}:{seen.key}: {error.strerror}") from None
        return Seen(seen.key, len(content), _version(stat))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Writes files atomically: a reader never sees half a file.

File systems of clusters, network drives and other systems lack some operations. Files are then
written without them, and a warning says so once.
"""

import errno
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dvae.errors import BusyError

__all__ = ["check_writable", "is_locked", "lock_folder", "remove_parts", "write_file", "write_json"]

_PART = ".part"
_LACKING = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers if it lacks an operation."""
_LOG = logging.getLogger(__name__)
_warned: set[str] = set()


@contextmanager
def write_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file, which replaces `path` once it is written and flushed to disk.

    A power cut, a full disk or an exception leave the old file unchanged.

    Args:
        path: The file to write.
        mode: "w", for text in UTF-8, or "wb".

    Raises:
        OSError: If the file cannot be written; its file name is `path`.
    """
    temporary = _part(path)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with temporary.open(mode, **text) as file:
            yield file
            file.flush()
            _sync(file.fileno(), path)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        # On a read-only file system, even removing a file that does not exist is an error.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Checks that a file can be written, before the work whose result it takes; makes its folder.

    Raises:
        OSError: If it cannot be written; its file name is `path`.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _part(path)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _named(error, path) from error


def remove_parts(folder: Path) -> None:
    """Removes the temporary files that killed processes left in a folder and its subfolders."""
    for path in folder.rglob(f".*{_PART}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically."""
    with write_file(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Locks a folder for this process; the system releases the lock when the process ends.

    Raises:
        BusyError: If another process holds the lock.
    """
    with (folder / ".lock").open("w") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            raise BusyError(
                f"{folder}: expected a folder that no other run writes to, found a run in "
                "progress; wait until it ends, or choose another folder"
            ) from error
        except OSError as error:
            _go_without("locks", error, folder, "nothing keeps a second run out of the folder")
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    try:
        with lock_folder(folder):
            return False
    except BusyError:
        return True


def _lock(file: IO[str]) -> None:
    """Locks an open file.

    Raises:
        BlockingIOError: If another process has locked it; on Windows a PermissionError.
        OSError: If the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    """Flushes a folder to disk, so that a renaming in it survives a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        # Windows opens no folders; elsewhere, a folder may be writable but not readable.
        return
    try:
        _sync(handle, folder)
    finally:
        os.close(handle)


def _sync(handle: int, path: Path) -> None:
    """Flushes an open file or folder to disk."""
    try:
        os.fsync(handle)
    except OSError as error:
        kind = "folders" if path.is_dir() else "files"
        _go_without(f"flushing of {kind}", error, path, "a power cut may lose what was saved last")


def _go_without(operation: str, error: OSError, path: Path, risk: str) -> None:
    """Warns, once in a process, that a file system lacks an operation; raises any other error."""
    if error.errno not in _LACKING:
        raise _named(error, path) from error
    if operation not in _warned:
        _warned.add(operation)
        _LOG.warning(
            "%s: this file system has no %s (%s): %s", path, operation, error.strerror, risk
        )


def _part(path: Path) -> Path:
    """A new temporary file beside a file; its name is short, since that of the file may be long."""
    return path.with_name(f".{secrets.token_hex(8)}{_PART}")


def _named(error: OSError, path: Path) -> OSError:
    """The same error with the name of a file."""
    return OSError(error.errno, error.strerror or str(error), str(path))

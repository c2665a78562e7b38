"""Writes files and folders atomically: a reader never sees a half of either."""

import fcntl
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dvae.errors import BusyError

__all__ = ["lock_folder", "remove_parts", "write_file", "write_folder", "write_json"]

_PART = ".part"
_locks: set[IO[Any]] = set()


def _close_locks() -> None:
    for file in _locks:
        file.close()
    _locks.clear()


# A lock ends with its process: children that outlive it for a while must not hold it.
os.register_at_fork(after_in_child=_close_locks)


@contextmanager
def write_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file, which replaces `path` once it is written and flushed to disk.

    A power cut, a full disk or an exception leave the old file unchanged.

    Args:
        path: The file to write.
        mode: "w" or "wb".

    Raises:
        OSError: If the file cannot be written; its file name is `path`.
    """
    temporary = _temporary(path)
    try:
        with temporary.open(mode, newline=None if "b" in mode else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Creates a temporary folder, which becomes `path` once its files are flushed to disk.

    Args:
        path: The folder to write; it must not exist.

    Raises:
        OSError: If the folder cannot be written; its file name is `path`.
    """
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        temporary.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_parts(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder and its subfolders."""
    for path in list(folder.rglob(f".*{_PART}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically."""
    with write_file(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


@contextmanager
def lock_folder(folder: Path, waiting: str | None = None) -> Iterator[None]:
    """Locks a folder for this process; the system releases the lock when the process ends.

    Args:
        folder: The folder.
        waiting: If another process holds the lock, logs this message and waits; None refuses.

    Raises:
        BusyError: If another process holds the lock, and this one shall not wait.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if waiting is None:
                raise BusyError(
                    f"{folder}: expected a folder that no other run writes to, found a run in "
                    "progress; wait until it ends, or choose another folder"
                ) from error
            logging.getLogger(__name__).info(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        _locks.add(file)
        try:
            yield
        finally:
            _locks.discard(file)


def _sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to disk, so that they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

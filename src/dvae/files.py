"""Writes files atomically: a reader never sees half a file."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dvae.errors import BusyError

__all__ = ["lock_folder", "remove_parts", "write_file", "write_json"]

_PART = ".part"


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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    try:
        with temporary.open(mode, newline=None if "b" in mode else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{folder}: expected a folder that no other run writes to, found a run in "
                "progress; wait until it ends, or choose another folder"
            ) from error
        yield


def _sync_folder(folder: Path) -> None:
    """Flushes a folder to disk, so that a renaming in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

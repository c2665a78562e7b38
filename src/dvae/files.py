"""Files that are whole or absent, whatever happens while they are written."""

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
    """Opens a file beside its place; flushes it to disk and renames it when all went well.

    A power cut, a full disk or an exception leave what was there before.

    Args:
        path: Where the file is to be.
        mode: "w" or "wb".

    Raises:
        OSError: If the file cannot be written; it names `path`.
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
    """Removes what killed processes have left half-written in a folder and below it."""
    for path in folder.rglob(f".*{_PART}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    with write_file(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps a folder for this process, and is let go of when the process ends, however it does.

    Raises:
        BusyError: If another process has it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{folder}: expected a folder that no other run writes to, found one that does; "
                "wait for it, or choose another folder"
            ) from error
        yield


def _sync_folder(folder: Path) -> None:
    """Makes a renaming in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

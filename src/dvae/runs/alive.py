"""Whether the process of a run is alive."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["identity", "is_alive"]


def identity() -> dict[str, Any]:
    """Names this process: host, number and start, since numbers are used again."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _state_and_start(pid)[1]}


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether a process is alive; assumed for one on another machine.

    Args:
        process: What `identity` returned in that process; old runs have no `started`.
    """
    # On Windows, os.kill would end the process.
    if process["host"] != socket.gethostname() or os.name == "nt":
        return True
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    state, start = _state_and_start(process["pid"])
    # A zombie has ended, but nobody has asked for its exit code yet.
    if state == "Z":
        return False
    known = process.get("started")
    return None in (start, known) or start == known


def _state_and_start(pid: int) -> tuple[str, int | None]:
    """State of a process, and its start in clock ticks since that of the system (proc(5))."""
    try:
        # The name of the program, in parentheses, may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", None
    return fields[0], int(fields[19])

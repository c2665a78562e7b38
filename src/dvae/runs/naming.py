"""Names of the folders of a sweep's runs."""

import hashlib
import re

__all__ = ["run_name"]

_LONGEST = 255
"""Bytes of a name that every common file system allows."""
_KEPT = 200
"""Bytes of a longer name that are kept."""
_ILLEGAL = re.compile(r'[<>:"/\\|?*%\x00-\x1f]|[. ]\Z')
"""Characters that some system does not allow in a name, or at its end; % marks replaced ones."""


def run_name(overrides: str) -> str:
    """The name of a run's folder, from the overrides that tell it apart in a sweep.

    Characters that cannot be in a name are replaced as in URLs, such as / by %2F. A name that is
    too long ends with a hash of the whole, so that different overrides have different names, and
    the same overrides find their run again.

    Args:
        overrides: For example `optimizer.lr=0.01,seed=0`.
    """
    name = _ILLEGAL.sub(lambda match: f"%{ord(match.group()):02X}", overrides)
    content = name.encode("utf-8", "surrogateescape")
    if len(content) <= _LONGEST:
        return name
    digest = hashlib.sha256(content).hexdigest()[:12]
    return f"{content[:_KEPT].decode('utf-8', 'ignore')}...{digest}"

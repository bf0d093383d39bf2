"""Where checkpoints may lie: a local directory, or a URL of any store that fsspec knows (`s3://bucket/run`, `gs://...`, `memory://...`).

Both are handled as pathlib paths. What reads checkpoints uses nothing but `/`, `name`, `iterdir`, `exists`, `is_dir`, `read_bytes`,
`read_text`, `open("rb")` and `stat().st_size`, which a path in a store has as well. Credentials and endpoints come from the
environment, as the store's own tools take them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from megatron.components import STORES
from megatron.errors import MissingRequirement, NeoXError

_LOCAL = ("file://", "local://")

# A listing must show what other processes have written since: no store's answers are kept.
_FRESH = {"use_listings_cache": False}

# s3fs tries five times what its client has given up; with the client's own five an unreachable endpoint would take minutes.
_S3_CLIENT = {"connect_timeout": 3, "retries": {"mode": "standard", "total_max_attempts": 3}}
_OPTIONS = {protocol: {"config_kwargs": _S3_CLIENT} for protocol in ("s3", "s3a")}


def place(text: str | Path) -> Path:
    """The path of a directory, or of a URL. A path is given back as it is.

    A path in a store is no `pathlib.Path` by its class (`is_local` asks that), but has its reading methods. It must not be carried
    into a forked process: make it there. Raises MissingRequirement when the store's package is not installed, NeoXError for a
    protocol that fsspec does not know.
    """
    if not isinstance(text, str):
        return text
    for prefix in _LOCAL:
        if text.startswith(prefix):
            return Path(text.removeprefix(prefix))
    if "://" not in text:
        return Path(text)
    return _path_in_store(text)


def is_local(path: Path) -> bool:
    """Whether a place is a path of this machine's file systems."""
    return isinstance(path, Path)


def _path_in_store(url: str) -> Path:
    from fsspec.registry import get_filesystem_class  # local checkpoints do without the time that these imports take

    protocol = url.partition("://")[0]
    try:
        get_filesystem_class(protocol)
        from upath import UPath
    except ImportError as error:
        raise MissingRequirement(f"{url} needs a package that is not installed: {_advice(protocol, error)}") from error
    except ValueError as error:
        raise NeoXError(
            f'{url} cannot be opened: "{protocol}" is none of the protocols that fsspec knows, such as s3, gs, abfs'
        ) from error
    options: dict[str, Any] = {**_FRESH, **_OPTIONS.get(protocol, {})}
    return cast("Path", UPath(url.rstrip("/"), **options))


def _advice(protocol: str, error: ImportError) -> str:
    store = STORES.get(protocol)
    return f"pip install -r requirements/{store.requirement}" if store else str(error)

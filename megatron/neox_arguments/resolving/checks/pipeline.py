"""How layers are given to pipeline stages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict
from megatron.registry import did_you_mean

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

METHODS = ("type:transformer", "parameters", "uniform")
LAYERS = ("embedding", "transformer", "norm", "head")
"""Names of layers that the pattern of `type:REGEX` may match."""


def check_partition_method(args: Draft) -> None:
    """The method is known, and its pattern matches a layer."""
    kind, _, pattern = args.pipe_partition_method.partition(":")
    key = ("pipe_partition_method",)
    if kind not in ("type", "parameters", "uniform"):
        hint = did_you_mean(args.pipe_partition_method, METHODS)
        raise Conflict(key, f"choose one of type:REGEX, parameters, uniform{hint}")
    if kind != "type":
        return
    try:
        found = any(re.search(pattern, name, re.IGNORECASE) for name in LAYERS)
    except re.error as error:
        raise Conflict(
            key, f"{pattern} is no regular expression ({error.msg}); correct it, or use parameters"
        ) from None
    if not found:
        raise Conflict(key, f"no layer matches {pattern}; choose among {', '.join(LAYERS)}, as in type:transformer")

"""What is known of a checkpoint as values that JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from megatron.checkpointing.inspecting.contents import Contents
from megatron.checkpointing.inspecting.listing import Listing
from megatron.checkpointing.inspecting.page import overhead
from megatron.data.ledger.segments import Ledger

if TYPE_CHECKING:
    from megatron.checkpointing.inspecting.differences import Comparison
    from megatron.checkpointing.inspecting.statistics import Statistics


def inspection_report(contents: Contents, measured: Mapping[str, Statistics], digest: str | None) -> dict[str, Any]:
    """Everything of one checkpoint; statistics and the logical hash only where values were read."""
    content = contents.state.content
    return {
        "checkpoint": str(contents.path),
        "iteration": contents.state.iteration,
        "run_state": contents.state.run_state,
        "scalars": contents.state.scalars,
        **{key: content.get(key) for key in ("saved_at", "world_size", "versions", "source")},
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": tensor.dtype, **statistics_report(measured.get(name))}
            for name, tensor in contents.tensors.items()
        },
        "value_bytes": contents.value_bytes,
        "bytes_on_disk": contents.size,
        "overhead": overhead(contents),
        "logical_sha256": digest,
        "settings": contents.settings,
        "origins": contents.origins,
        "data": None if contents.ledger is None else TypeAdapter(Ledger).dump_python(contents.ledger, mode="json"),
    }


def statistics_report(found: Statistics | None) -> dict[str, Any]:
    """The statistics of a tensor; empty when its values were not read."""
    return {} if found is None else {key: value for key, value in asdict(found).items() if key != "elements"}


def listing_report(listing: Listing) -> list[dict[str, Any]]:
    """The checkpoints of a directory."""
    return [
        {**asdict(one), "path": str(one.path), "saved_at": one.saved_at and one.saved_at.isoformat()}
        for one in listing.checkpoints
    ]


def comparison_report(found: Comparison, *, tolerance: float | None) -> dict[str, Any]:
    """Every tensor that differs, with the deviations, and counters and settings that do."""
    return {
        "equal": found.is_equal(tolerance),
        "equal_to_the_bit": found.is_equal(None),
        "tensors": len(found.tensors),
        "differing": [asdict(one) for one in found.tensors if not one.is_equal],
        "counters": found.counters,
        "settings": found.settings,
    }


def to_json(value: Any) -> str:
    """The value on one line; null for numbers that JSON does not have."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

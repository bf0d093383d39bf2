"""Sliding windows that `config.json` gives layer by layer: ours are of all layers or of none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from megatron.conversion.families.common import unless_null
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.settings import Computed, Config, Untranslatable, value_of

_SLIDING, _FULL = "sliding_attention", "full_attention"


def _window_of(kinds: Iterable[str], window: int | None) -> dict[str, int | None]:
    """The window of all layers. kinds: of each layer; window: of the sliding ones."""
    found = set(kinds)
    if found - {_SLIDING, _FULL}:
        raise Untranslatable(f"layer_types has {', '.join(sorted(found - {_SLIDING, _FULL}))}, not built here")
    if len(found) > 1:
        raise Untranslatable(
            "some layers have a sliding window and others have none (layer_types, max_window_layers), and here all are alike"
        )
    if found == {_FULL}:
        return {"sliding_window_width": None}
    if window is None:
        raise Untranslatable(f"layer_types has {_SLIDING} layers, and there is no sliding_window")
    return {"sliding_window_width": window}


def _kinds_in(config: Config) -> list[str] | None:
    kinds: list[str] | None = config.get("layer_types")
    if kinds is not None and len(kinds) != config["num_hidden_layers"]:
        raise Untranslatable(f"layer_types is of {len(kinds)} layers, and there are {config['num_hidden_layers']}")
    return kinds


def _read_qwen(config: Config) -> dict[str, int | None]:
    window = value_of(config, "sliding_window", unless_null("sliding_window", 4096))
    if not value_of(config, "use_sliding_window", False):
        window = None
    kinds = _kinds_in(config)
    if kinds is None:
        first = value_of(config, "max_window_layers", 28)
        kinds = [
            _SLIDING if window is not None and layer >= first else _FULL for layer in range(config["num_hidden_layers"])
        ]
    return _window_of(kinds, window)


def _write_qwen(architecture: Architecture) -> dict[str, Any]:
    window = architecture.sliding_window_width
    if window is None:
        return {"use_sliding_window": False}
    return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}


def _read_ministral(config: Config) -> dict[str, int | None]:
    window = value_of(config, "sliding_window", unless_null("sliding_window", 4096))
    kinds = _kinds_in(config)
    return _window_of(kinds if kinds is not None else [_FULL if window is None else _SLIDING], window)


def _write_ministral(architecture: Architecture) -> dict[str, Any]:
    window = architecture.sliding_window_width
    return {
        # transformers asks for a width even where no layer looks at it.
        "sliding_window": window or architecture.max_position_embeddings,
        "layer_types": [_FULL if window is None else _SLIDING] * architecture.num_layers,
    }


QWEN_WINDOW = Computed(
    ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"), _read_qwen, _write_qwen
)
"""Qwen2 and Qwen3: the first `max_window_layers` layers have none."""
MINISTRAL_WINDOW = Computed(("sliding_window", "layer_types"), _read_ministral, _write_ministral)

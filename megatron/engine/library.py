"""Imports DeepSpeed the way this framework needs it; every other file of this package takes `deepspeed` from here.

* No compiler: DeepSpeed builds a shared-memory collective with g++ as soon as a CPU world is initialised (half a minute, a cache
  shared by all environments, and a lock file that hangs later runs if the build is killed). It is declared unavailable, and a
  private cache is set for what a user's own DeepSpeed options may still build.
* No slow import: DeepSpeed's Muon is compiled at import, which pulls in inductor. It is imported here with `torch.compile`
  standing still.
* No noise: the accelerator is named, so that DeepSpeed need not warn that it found none; its logger speaks of warnings only; its bf16
  optimizer does not print the memory in use; that it calls collectives which torch has renamed is not our user's concern.
* fp16 on every CPU: torch computes it, with or without instructions for it; DeepSpeed would refuse without.
* ZeRO-3 fetches and releases the weights of a layer by hooks on the tensors that enter and leave it, and looks for them in tuples and
  dictionaries only. It is shown how to look into a `Stream`; without, backward passes meet weights that are not there.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from megatron.model.documents import Documents
from megatron.model.dropout_keys import DropoutKeys
from megatron.model.stream import Stream


def _prepare_environment() -> None:
    version = importlib.metadata.version("deepspeed")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "deepy-neox"
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(cache / f"torch_extensions_deepspeed_{version}"))
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


@contextlib.contextmanager
def _without_compiling() -> Iterator[None]:
    """Let `@torch.compile` leave functions as they are."""
    compile_function = torch.compile

    def keep(function: Callable[..., Any] | None = None, **options: Any) -> Any:
        return function if function is not None else keep

    torch.compile = keep  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_function


def _import_deepspeed() -> Any:
    _prepare_environment()
    library: Any = importlib.import_module("deepspeed")
    with _without_compiling():
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    # Only the shared-memory collective looks here; a dictionary given beforehand also saves probing every operator.
    library.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
    library.runtime.bf16_optimizer.see_memory_usage = _say_nothing
    if library.accelerator.get_accelerator().device_name() == "cpu":
        library.accelerator.get_accelerator().is_fp16_supported = lambda: True
    _show_streams(library.runtime.zero.parameter_offload)
    return library


def _say_nothing(*values: Any, **options: Any) -> None:
    """Stands for a function that prints."""


def _show_streams(hooks: Any) -> None:
    """Let ZeRO-3's hooks reach the hidden states of the streams that a layer takes and returns."""
    apply_elsewhere = hooks.apply_to_tensors_only

    def apply_to_tensors(
        function: Callable[..., Any], value: Any, warning_msg_fn: Callable[[Any], str] | None = None
    ) -> Any:
        if isinstance(value, Stream):
            return value.with_hidden(function(value.hidden))
        if isinstance(value, Documents | DropoutKeys):  # their integers have no gradients to wait for
            return value
        if type(value) is tuple:
            return tuple(apply_to_tensors(function, item, warning_msg_fn) for item in value)
        return apply_elsewhere(function, value, warning_msg_fn=warning_msg_fn)

    hooks.apply_to_tensors_only = apply_to_tensors


deepspeed = _import_deepspeed()

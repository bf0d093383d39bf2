"""The optional packages that a configuration asks for are installed, before processes start that need them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

from megatron.components import NORMS, STORES, TOKENIZERS, WRITERS
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.resolving.checks.evaluation import is_evaluation
from megatron.neox_arguments.resolving.checks.fp8 import LIBRARY_KEYS
from megatron.neox_arguments.resolving.checks.run import needs_training_keys
from megatron.neox_arguments.resolving.checks.stores import URL_KEYS, protocol_of
from megatron.registry import Registry

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

PACKAGES = {
    "SPMTokenizer": "sentencepiece",
    "TiktokenTokenizer": "tiktoken",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "comet": "comet_ml",
}
"""What each component imports that has a file of `requirements/` of its own."""

BUILT_HERE = ("transformer_engine",)
"""Packages that build against the torch that is there."""

WRITER_KEYS = {"tensorboard_dir": "tensorboard", "use_wandb": "wandb", "use_comet": "comet"}
"""The keys that choose a metric writer."""


def check_packages(args: Draft) -> None:
    """What is chosen from the menu has its package (checked when a script is run)."""
    for key, package, file in _needed(args) if args.values["user_script"] else ():
        if not _is_installed(package):
            reason = f'this needs the package "{package}", which is not installed'
            isolation = " --no-build-isolation" if package in BUILT_HERE else ""
            raise Conflict((key,), f"{reason}; add it with pip install{isolation} -r requirements/{file}")


def _needed(args: Draft) -> Iterator[tuple[str, str, str | None]]:
    """(key, package, file of `requirements/`) of what is chosen."""
    for key, registry, name in _chosen(args):
        if name in PACKAGES:
            yield key, PACKAGES[name], registry.requirement(name)
    for key in URL_KEYS:
        store = STORES.get(protocol_of(getattr(args, key)) or "")
        if store is not None:
            yield key, store.package, store.requirement
    if needs_training_keys(args):
        for key in _keys_of_transformer_engine(args):
            yield key, "transformer_engine", "requirements-transformer-engine.txt"
    if args.eval_tasks and (is_evaluation(args) or needs_training_keys(args)):
        yield "eval_tasks", "lm_eval", "requirements-lm-eval.txt"


def _chosen(args: Draft) -> Iterator[tuple[str, Registry, str]]:
    """(key, menu, name on it) of the components that may need a package."""
    yield "tokenizer_type", TOKENIZERS, args.tokenizer_type
    for key, writer in WRITER_KEYS.items():
        if getattr(args, key) and needs_training_keys(args):
            yield key, WRITERS, writer


def _keys_of_transformer_engine(args: Draft) -> Iterator[str]:
    yield from (key for key in LIBRARY_KEYS if getattr(args, key))
    if NORMS.requirement(args.norm) is not None:
        yield "norm"


def _is_installed(package: str) -> bool:
    # A folder of that name in the working directory, such as wandb leaves, is no package.
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None

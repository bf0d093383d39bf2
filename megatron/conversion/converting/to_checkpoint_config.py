"""The configuration of a converted model: its architecture and tokenizer as a YAML file to be given beside those of a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from megatron.conversion.agreement import yaml_text
from megatron.conversion.mapping.architecture import Architecture, architecture_of, config_keys, differences
from megatron.conversion.mapping.shapes import model_args
from megatron.errors import CheckpointError, NeoXError
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer

CONFIG = "config.yml"
FOLDER = "tokenizer"
_KINDS = {"tokenizer.json": "HFTokenizer", "tokenizer.model": "SPMTokenizer"}
_A_RUN = {"train_iters": 1, "train_micro_batch_size_per_gpu": 1}
_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class CopiedTokenizer:
    """tokenizer: None where the model came without one that can be read; keys: of the configuration; remark: why there is none."""

    tokenizer: Tokenizer | None
    keys: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""


def copy_tokenizer(model: Path, place: Path, *, final: Path) -> CopiedTokenizer:
    """Copy the tokenizer of a model's directory into a folder of `place`, a directory that will be called `final`."""
    name = next((name for name in _KINDS if (model / name).is_file()), None)
    if name is None:
        return CopiedTokenizer(
            None, remark=f"{model} has no tokenizer.json and no tokenizer.model: set tokenizer_type and vocab_file"
        )
    folder = place / FOLDER
    folder.mkdir()
    for file in (name, *_COMPANIONS):
        if (model / file).is_file():
            shutil.copyfile(model / file, folder / file)
    keys = {"tokenizer_type": _KINDS[name], "vocab_file": str(folder / name)}
    try:
        tokenizer = build_tokenizer(NeoXArgs.from_resolved(keys))
    except NeoXError as error:
        shutil.rmtree(folder)
        return CopiedTokenizer(None, remark=f"its tokenizer cannot be used: {error}")
    return CopiedTokenizer(tokenizer, {**keys, "vocab_file": str(final / FOLDER / name)})


def config_text(architecture: Architecture, copied: CopiedTokenizer, *, description: str, final: Path) -> str:
    """The content of `config.yml`, with where its values come from as comments."""
    keys = config_keys(architecture)
    rows = keys.pop("vocab_size")
    if keys["train_impl"] != "rm":
        del keys["train_impl"]
    tokens = None if copied.tokenizer is None else copied.tokenizer.vocab_size
    parts = [
        f"# The model of {description},\n# converted into the checkpoint beside this file. Give it beside the other files of a run, and with it:\n"
        f"#   load: {final}\n#   finetune: true\n",
        "# Architecture: translated from the settings of the model, and compared with its tensors.\n" + _lines(keys),
    ]
    if copied.keys:
        parts.append("# Tokenizer: copied from the model.\n" + _lines(copied.keys))
    else:
        parts.append(f"# Tokenizer: {copied.remark}\n")
    if tokens == rows:
        parts.append(f"# Vocabulary: {rows} rows, one for each entry of the tokenizer.\n")
    else:
        known = "" if tokens is None else f", of which the tokenizer has {tokens}"
        parts.append(f"# Vocabulary: rows of the embedding{known}.\n" + _lines({"vocab_size": rows}))
    parts.append(
        "# Rows that a run adds to these are padding of its own: they count for nothing and are never saved.\n"
        + _lines({"make_vocab_size_divisible_by": NeoXArgs.model_fields["make_vocab_size_divisible_by"].default})
    )
    return "\n".join(parts)


def check_config_text(text: str, architecture: Architecture, copied: CopiedTokenizer) -> None:
    """Read `config.yml` as a run would. Raises CheckpointError when it asks for another model than this."""
    values = yaml.safe_load(text)
    rows = values.pop("vocab_size", None) or (copied.tokenizer.vocab_size if copied.tokenizer else 0)
    model = {key: value for key, value in values.items() if key not in {*copied.keys, "train_impl"}}
    args = NeoXArgs.from_dict({**model, **_A_RUN, "seq_length": architecture.max_position_embeddings})
    args = args.model_copy(update={"train_impl": values.get("train_impl", args.train_impl)})
    lost = [
        f"{key} {found!r} where {wanted!r} belongs"
        for key, (wanted, found) in differences(architecture, architecture_of(args, vocab_size=rows)).items()
    ]
    if lost:
        raise CheckpointError(f"{CONFIG} was not written as it should be: it asks for {', '.join(lost)}")


def checkpoint_settings(architecture: Architecture, copied: CopiedTokenizer, *, precision: str) -> NeoXArgs:
    """The settings that the checkpoint says it is of."""
    tokens = None if copied.tokenizer is None else copied.tokenizer.vocab_size
    rows = None if tokens == architecture.vocab_size else architecture.vocab_size
    return model_args(architecture).model_copy(update={**copied.keys, "vocab_size": rows, "precision": precision})


def _lines(keys: Mapping[str, Any]) -> str:
    return "".join(f"{key}: {yaml_text(value)}\n" for key, value in keys.items())

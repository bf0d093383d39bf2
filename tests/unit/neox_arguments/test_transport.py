from __future__ import annotations

from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls
from megatron.neox_arguments.transport import decode, encode
from tests.conftest import REPOSITORY
from tests.unit.neox_arguments.minimal import build


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"optimizer": {"type": "Adam", "params": {"lr": "6e-4", "betas": (0.9, 0.95)}}, "precision": "fp16"},
        {"attention_config": [[["flash", "global"], "all"]], "extra_save_iters": [1, 2], "prompt_end": "\n\"'é"},
        {"train_iters": None, "train_epochs": 3, "min_lr": 0.1 + 0.2 - 0.3, "pipe_parallel_size": 1, "zero_stage": 2},
        {"comet_others": {"a": None, "1": [1, {"b": 2.5}]}},
    ],
)
def test_decoding_gives_back_exactly_what_was_encoded(keys: dict[str, Any]) -> None:
    args = build(**keys)
    copy = decode(encode(args))
    assert copy == args
    assert copy.to_dict() == args.to_dict()


def test_decoding_gives_back_where_values_come_from() -> None:
    args = NeoXArgs.from_values(apply_overrides(read_ymls(["configs/125M.yml"], directory=str(REPOSITORY)), ["lr=1"]))
    origins = decode(encode(args)).origins()
    assert origins == args.origins()
    assert origins["lr"] == "command line"
    assert origins["hidden_size"].startswith(f"{REPOSITORY}/configs/125M.yml:")


def test_encoded_arguments_are_one_word() -> None:
    text = encode(build())
    assert text.replace("-", "").replace("_", "").replace("=", "").isalnum()


@pytest.mark.parametrize("text", ["", "hello", "e30=", encode(build())[:-9]])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        decode(text)

"""Running out of memory ends with what fills it and a change that fits."""

from __future__ import annotations

import re

import pytest
import torch

from megatron.errors import NeoXError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.layout import Layout
from megatron.planning.memory.relief import smallest_relief
from megatron.planning.memory.stage_memory import peak_memory
from megatron.training.out_of_memory import explained_out_of_memory, out_of_memory_message
from tests.unit.neox_arguments.minimal import MINIMAL, build

LARGE = {
    "num_layers": 16,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "seq_length": 2048,
    "precision": "bfloat16",
    "tokenizer_type": "CharLevelTokenizer",
    "train_micro_batch_size_per_gpu": 8,
    "train_batch_size": None,
}


def large(**changes: object) -> NeoXArgs:
    return build(**{**LARGE, **changes})


def changed(args: NeoXArgs, words: tuple[str, ...]) -> NeoXArgs:
    """The arguments after `key=value` words on the command line."""
    written = {key: value for key, value in {**MINIMAL, **LARGE}.items() if value is not None}
    return NeoXArgs.from_values(
        apply_overrides(ConfigValues.from_dict(written), words), world_size=args.global_num_gpus
    )


@pytest.mark.parametrize("share", [0.8, 0.6, 0.42])
def test_the_change_named_needs_what_is_said_and_keeps_the_batch(share: float) -> None:
    args = large()
    before = peak_memory(args, Layout.of(args), vocab_size=512).total
    relief = smallest_relief(args, vocab_size=512, most=int(before * share))
    assert relief is not None
    after = changed(args, relief.words)
    assert peak_memory(after, Layout.of(after), vocab_size=512).total == relief.total <= before * share
    assert after.train_batch_size == args.train_batch_size


def test_smaller_changes_come_first() -> None:
    args = large()
    before = peak_memory(args, Layout.of(args), vocab_size=512).total
    words = [smallest_relief(args, vocab_size=512, most=int(before * share)).words for share in (0.9, 0.6, 0.42)]
    assert [len(word) for word in words] == sorted(len(word) for word in words)
    assert words[0] == ('attention_config=[[["flash"],"all"]]',)


def test_nothing_is_proposed_when_nothing_is_enough() -> None:
    assert smallest_relief(large(), vocab_size=512, most=2**20) is None
    message = out_of_memory_message(
        large(), "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has", device_bytes=2**30
    )
    assert "deepy.py plan" in message


def test_the_error_names_the_largest_component_first_and_a_change() -> None:
    with (
        pytest.raises(NeoXError, match=r"Tried to allocate 2\.00 GiB") as caught,
        explained_out_of_memory(large()),
    ):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."
        )
    sizes = re.search(r"needs ([\d.]+) GiB: (\w+) ([\d.]+) GiB", str(caught.value))
    assert sizes is not None
    assert sizes[2] == "activations"
    assert "smallest change that should fit" in str(caught.value)
    assert "total capacity" not in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), explained_out_of_memory(large()):
        raise ZeroDivisionError

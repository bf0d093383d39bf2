"""`generate.py` in one process: what it writes, and mistakes that are told before a model is built."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.conversion.converting.write import write_checkpoint
from megatron.errors import NeoXError
from megatron.generation import decode, load
from megatron.generation.complete import CompletionSettings
from megatron.generation.run import completion_settings, generate, remarks
from megatron.generation.sampling import SamplingSettings
from megatron.initialize import shutdown
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.char_level import VOCAB_SIZE
from tests.unit.conversion.in_memory import MemorySource, weights_of
from tests.unit.model.builders import DEFAULTS, VARIANTS

SETTINGS: dict[str, Any] = {**DEFAULTS, **VARIANTS["llama"], "max_position_embeddings": 32}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(MemorySource(weights_of(SETTINGS, rows=VOCAB_SIZE)), folder, config_yaml="")
    return folder


@pytest.fixture(autouse=True)
def _left_as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a process of its own may leave behind: the world, the variables of its rank, a pool of threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = dict(os.environ)
    yield
    shutdown()
    os.environ.clear()
    os.environ.update(before)


def arguments(checkpoints: Path, folder: Path, **changes: Any) -> NeoXArgs:
    return NeoXArgs.from_dict(
        {
            **SETTINGS,
            "tokenizer_type": "CharLevelTokenizer",
            "load": str(checkpoints),
            "sample_output_file": str(folder / "samples.jsonl"),
            "maximum_tokens": 6,
            "temperature": 1.0,
            **changes,
        }
    )


def samples(args: NeoXArgs) -> list[dict[str, Any]]:
    """What is written, without the one thing that may differ."""
    generate(args)
    assert not torch.distributed.is_initialized()
    lines = Path(args.sample_output_file).read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "duration_seconds"} for line in lines]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building a model fails the test."""

    def build(*inputs: object, **options: object) -> None:
        raise AssertionError("a model is built")

    monkeypatch.setattr(load, "build_inference_model", build)


def test_samples_depend_on_the_seed_and_not_on_the_batch(
    tmp_path: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\na\tsecond :smile:\n")
    settings = {"sample_input_file": str(prompts), "num_samples": 3}
    together = samples(arguments(checkpoints, tmp_path, **settings))
    assert [each["prompt"] for each in together] == ["one"] * 3 + ["a\tsecond :smile:"] * 3
    printed = capsys.readouterr().out  # as it is: no tab becomes spaces, no name a picture
    assert all(f"\n{each['prompt']}{each['text']}\n" in printed for each in together)
    assert len({tuple(each["tokens"]) for each in together}) == 6
    assert all(len(each["log_probabilities"]) == each["length"] == 6 for each in together if not each["finished"])
    apart, other = (
        samples(arguments(checkpoints, tmp_path, **settings, **changes))
        for changes in ({"generation_batch_size": 2}, {"seed": 5})
    )
    for one, same in zip(together, apart, strict=True):
        assert one.pop("log_probabilities") == pytest.approx(same.pop("log_probabilities"), abs=1e-5)
        assert one == same
    assert [each["tokens"] for each in other] != [each["tokens"] for each in together]


def test_unconditional_samples_begin_a_document_and_end_at_stop_tokens(tmp_path: Path, checkpoints: Path) -> None:
    (free,) = samples(arguments(checkpoints, tmp_path, num_samples=1, return_logits=True))
    assert (free["prompt"], len(free["logits"]), len(free["logits"][0])) == ("", 6, VOCAB_SIZE)
    (stopped,) = samples(arguments(checkpoints, tmp_path, stop_tokens=[free["tokens"][2]]))
    assert (stopped["tokens"], stopped["finish_reason"]) == (free["tokens"][:2], "stop")
    assert (free["finished"], stopped["finished"]) == (free["finish_reason"] == "eod", True)


def test_every_key_says_how_prompts_are_completed(tmp_path: Path, checkpoints: Path) -> None:
    stops = {"stop_strings": ["a", "b"], "stop_tokens": [4, 5]}
    sampled = {"maximum_tokens": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.25, "seed": 9, "return_logits": True}
    assert completion_settings(arguments(checkpoints, tmp_path, **stops, **sampled)) == CompletionSettings(
        7, SamplingSettings(0.5, 3, 0.25), seed=9, keep_logits=True, stop_strings=("a", "b"), stop_tokens=(4, 5)
    )


@pytest.mark.parametrize(("recompute", "caches"), [(False, 1), (True, 3)])
def test_the_cache_and_the_checkpoint_are_those_that_are_configured(
    recompute: bool, caches: int, tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = [], []

    def make(**options: Any) -> decode.KeyValueCache:
        made.append(cache := keys_and_values(**options))
        return cache

    def read(*inputs: Any, **options: Any) -> Any:
        asked.append((options["iteration"], options["verification"]))
        return weights(*inputs, **options)

    keys_and_values, weights = decode.KeyValueCache, load.load_weights
    monkeypatch.setattr(decode, "KeyValueCache", make)
    monkeypatch.setattr(load, "load_weights", read)
    changes = {"recompute": recompute, "maximum_tokens": 2, "iteration": 0, "verify_checkpoint": "full"}
    (sample,) = samples(arguments(checkpoints, tmp_path, **changes))
    assert (sample["length"], len(made), asked) == (2, caches, [(0, "full")])


@pytest.mark.parametrize(
    ("prompts", "changes", "message"),
    [
        (b"ok\n" + b"x" * 32, {}, r"the prompt in line 2 has 32 tokens, and the model reads at most 32 .*shorten"),
        (b"ok\n\xff", {}, "byte 3 is not UTF-8"),
        (b"\n", {}, "holds no prompt"),
        (b"ok", {"sample_output_file": "/"}, "cannot be written"),
        (b"ok", {"stop_tokens": [1, 512]}, "names 512, and the tokenizer has the tokens 0 to 511"),
        (b"ok", {"iteration": 7}, "no checkpoint of iteration 7: complete checkpoints: global_step0"),
        (b"ok", {"tokenizer_type": "HFTokenizer", "vocab_file": "no.json"}, "no.json"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_mistakes_are_told_before_a_model_is_built(
    prompts: bytes, changes: dict[str, Any], message: str, tmp_path: Path, checkpoints: Path
) -> None:
    (tmp_path / "prompts.txt").write_bytes(prompts)
    changes = {"sample_input_file": str(tmp_path / "prompts.txt"), **changes}
    with pytest.raises(NeoXError, match=message) as told:
        generate(arguments(checkpoints, tmp_path, **changes))
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("no_model")
def test_checkpoints_beside_a_misspelt_directory_are_named(tmp_path: Path, checkpoints: Path) -> None:
    with pytest.raises(NeoXError, match=f"does not exist, but there are checkpoints in .*{checkpoints.name}"):
        generate(arguments(checkpoints.with_name("checkpionts"), tmp_path, load_if_exists=True))


def test_what_changes_nothing_is_said(tmp_path: Path, checkpoints: Path) -> None:
    def said(**changes: Any) -> list[str]:
        return list(remarks(arguments(checkpoints, tmp_path, **changes)))

    assert said(num_samples=2, top_p=0.9) == []
    filters, copies = said(temperature=0, num_samples=2, top_p=0.9, top_k=3)
    assert "top_k and top_p change nothing" in filters
    assert "the 2 samples of a prompt are copies" in copies
    unread, unwritten = said(text_gen_type="interactive", sample_input_file="prompts.txt", return_logits=True)
    assert "text_gen_type is interactive: prompts.txt is not read" in unread
    assert "no logits are written" in unwritten

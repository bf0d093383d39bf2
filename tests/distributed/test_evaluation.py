"""What a model answers lm-eval in every layout is what lm-eval's own `hf` model answers with its export to transformers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers.processors import TemplateProcessing

from megatron.checkpointing.loading.weights import clear_padding, weight_tensors
from megatron.conversion.converting.to_hugging_face import to_hugging_face
from megatron.conversion.fill import fill
from megatron.conversion.opening import OpenedModel
from megatron.evaluation.evaluate import evaluate_tasks
from megatron.evaluation.library import quiet
from megatron.evaluation.settings import EvaluationSettings
from megatron.evaluation.tasks import Tasks, find_tasks
from megatron.evaluation.work import Workers
from megatron.generation.decode import Decoder
from megatron.generation.model import build_inference_model
from megatron.initialize import join_world
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.hf import HFTokenizer
from megatron.tokenizer.train import train_bpe
from tests.distributed.matrix.ranks import temporary_groups
from tests.evaluation_tasks import WORDS, write_tasks
from tests.unit.conversion.in_memory import MemorySource, opened
from tests.unit.model.builders import VARIANTS, build_args
from tests.worlds import run_world

LENGTH = 64
TOLERANCE = 1e-4
TASKS = ("small_choice", "small_texts", "small_words")
TEXT = "def f(x):\n    return self.x + 1\n\nclass A:\n    pass\n" + " ".join(WORDS)

LAYOUTS: Mapping[str, Mapping[str, int]] = {
    "one process": {},
    "tensor 2": {"model_parallel_size": 2},
    "pipe 2": {"pipe_parallel_size": 2},
    "data 2": {},
    "tensor 2, pipe 2": {"model_parallel_size": 2, "pipe_parallel_size": 2},
    "data 2, tensor 2": {"model_parallel_size": 2},
}
WORLDS = {1: ["one process"], 2: ["tensor 2", "pipe 2", "data 2"], 4: ["tensor 2, pipe 2", "data 2, tensor 2"]}

PAIRS = [
    ("def f(x):", " return x"),
    ("def f(x): ", "return self.x"),  # the space goes to what follows it
    ("class A:\n    ", "pass"),
    *(("import", end) for end in (" a", " b", " c", "x", "x1")),  # some read the same tokens
    ("", "class A"),
    ("", "<|endoftext|>def"),
    ("<|endoftext|>def", " f"),
    ("</s>def", " f"),
    ("Ünïcödé 日本", "語 🙂"),
    ("lambda self: " * 40, "yield"),  # longer than the model reads
    ("self", "." * LENGTH),
    ("<s>def", " f(x)"),
]
TEXTS = ["", "self", TEXT, TEXT * 2, "<|endoftext|>" + TEXT, "日本語 " * 30]
PROMPTS: Sequence[tuple[str, Mapping[str, Any]]] = [
    *((f"{word} ", {"until": ["\n\n"], "max_gen_toks": 20}) for word in WORDS),
    *((f"{word} self", {"until": [" ", "e", "f("], "max_gen_toks": 20, "temperature": 0.0}) for word in WORDS),
    ("import " * 60, {"max_gen_toks": 30, "do_sample": False, "temperature": 0.7, "top_p": 0.9}),
    ("日本", {"until": "x", "max_new_tokens": 9, "num_beams": 1}),
]


@dataclass(frozen=True)
class Kind:
    """A model of ours. settings: of its run; rows: of its vocabulary; directory: its export."""

    variant: str
    settings: Mapping[str, Any]
    rows: int
    directory: Path


@dataclass
class Answers:
    """What a model of lm-eval says to the requests above, and what it gets in the tasks."""

    pairs: list[tuple[float, bool]] = field(default_factory=list)
    texts: list[float] = field(default_factory=list)
    generated: list[str] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    samples: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """Answers of lm-eval's own model. pairs: those above, and some that the model would write itself."""

    pairs: Sequence[tuple[str, str]]
    answers: Answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory of tasks, and lm-eval ready for forks, which keep data sets there as well."""
    folder = write_tasks(tmp_path_factory.mktemp("evaluation") / "tasks").parent
    for name in ("lm_eval.evaluator", "lm_eval.models.huggingface"):
        importlib.import_module(name)
    datasets = importlib.import_module("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield folder


@pytest.fixture(scope="module")
def kinds(folder: Path) -> dict[str, Kind]:
    """NeoX with a plain tokenizer, and Llama with grouped heads and one that puts a token before every text."""
    plain = train_bpe([TEXT], vocab_size=330)
    engine = tokenizers.Tokenizer.from_str(
        train_bpe([TEXT], vocab_size=340, special_tokens=("<s>", "</s>")).definition()
    )
    engine.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    begins = HFTokenizer(engine.to_str(), origin="a test")
    return {"pythia": _export("pythia", plain, folder), "llama": _export("llama", begins, folder)}


def _export(variant: str, tokenizer: HFTokenizer, folder: Path) -> Kind:
    file = folder / variant / "tokenizer.json"
    tokenizer.save(file)
    settings = {
        "max_position_embeddings": LENGTH,
        "seq_length": LENGTH,
        "tokenizer_type": "HFTokenizer",
        "vocab_file": str(file),
        "make_vocab_size_divisible_by": 2,  # so that both tensor ranks have tokens that are likely
    }
    model = _opened(variant, rows=tokenizer.vocab_size, saved=True, **settings)
    directory = folder / variant / "export"
    conversion = to_hugging_face(model, directory)
    assert conversion.equal
    assert conversion.remarks == ()
    return Kind(variant, settings, tokenizer.vocab_size, directory)


def _opened(variant: str, **settings: Any) -> OpenedModel:
    """A model that likes to write a special token, which does not end a text and is no part of it."""
    model = opened(variant, **settings)
    assert isinstance(model.source, MemorySource)
    (head,) = (tensor for name, tensor in model.source.tensors.items() if "final_linear" in name)
    head[{"pythia": 1, "llama": 0}[variant]] *= 3  # <|padding|> and <s>
    return model


@pytest.fixture(scope="module")
def references(kinds: dict[str, Kind], folder: Path) -> dict[str, Reference]:
    """In a fork, as what reads data sets has threads."""
    return run_world(1, _ask_theirs, kinds, folder)[0]


@pytest.fixture(scope="module")
def ours(kinds: dict[str, Kind], references: dict[str, Reference], folder: Path) -> dict[tuple[str, str], Answers]:
    """By kind and layout."""
    found = {}
    for size, layouts in WORLDS.items():
        found.update(run_world(size, _ask_ours, kinds, references, layouts, folder)[0])
    return found


@quiet()
def _ask_theirs(rank: int, kinds: dict[str, Kind], folder: Path) -> dict[str, Reference]:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = {}
    for name, kind in kinds.items():
        model = AutoModelForCausalLM.from_pretrained(kind.directory, dtype=torch.float32)
        theirs = HFLM(model, tokenizer=AutoTokenizer.from_pretrained(kind.directory), batch_size=4)
        pairs = [*PAIRS, *_likeliest(theirs)]
        results = simple_evaluate(
            theirs,
            tasks=list(TASKS),
            task_manager=TaskManager(include_defaults=False, include_path=str(folder / "tasks")),
            bootstrap_iters=0,
        )
        answers = _ask(theirs, pairs)
        answers.metrics = {task: _numbers(values) for task, values in results["results"].items()}
        answers.samples = {task: _responses(samples) for task, samples in results["samples"].items()}
        found[name] = Reference(pairs, answers)
    return found


def _likeliest(model: Any) -> list[tuple[str, str]]:
    """Short texts and the token that a model writes next, where that is text by itself."""
    starts = [word[:size] for word in WORDS for size in (2, 3, 4)]
    ends = model.generate_until(_requests([(start, {"max_gen_toks": 1}) for start in starts]))
    return [(start, end) for start, end in zip(starts, ends, strict=True) if end and "\ufffd" not in end]


def _ask_ours(
    rank: int, kinds: dict[str, Kind], references: dict[str, Reference], layouts: Sequence[str], folder: Path
) -> dict[tuple[str, str], Answers]:
    found = {}
    settings = EvaluationSettings(
        TASKS, include_path=str(folder / "tasks"), batch_size=3, log_samples=True, bootstrap_iterations=0
    )
    tasks = find_tasks(settings) if rank == 0 else None
    for layout in layouts:
        for name, kind in kinds.items():
            with temporary_groups():
                answers = _answers(kind, layout, references[name].pairs, settings, tasks)
            if answers is not None:
                found[name, layout] = answers
    return found


def _answers(
    kind: Kind, layout: str, pairs: Sequence[tuple[str, str]], settings: EvaluationSettings, tasks: Tasks | None
) -> Answers | None:
    from megatron.evaluation.harness import HarnessModel

    world_size = torch.distributed.get_world_size()
    args = build_args(**VARIANTS[kind.variant], **kind.settings, **LAYOUTS[layout], global_num_gpus=world_size)
    groups = join_world(args).groups
    model = build_inference_model(args, vocab_size=kind.rows, groups=groups, device=torch.device("cpu"))
    source = _opened(kind.variant, rows=kind.rows, **kind.settings).source
    fill(weight_tensors(model), source, group=groups.world, prepare=lambda: clear_padding(model))
    tokenizer = build_tokenizer(args)
    decoder = Decoder(model, vocab_size=tokenizer.vocab_size, max_positions=LENGTH)
    workers = Workers(decoder, tokenizer, groups, vocab_size=kind.rows, batch_size=3)
    answers = workers.run(lambda: _ask(HarnessModel(workers, tokenizer, max_length=LENGTH), pairs))
    evaluation = evaluate_tasks(
        model, tokenizer, settings, groups=groups, vocab_size=kind.rows, max_positions=LENGTH, tasks=tasks
    )
    if answers is not None:
        answers.metrics = evaluation.metrics
        answers.samples = {task: _responses(samples) for task, samples in evaluation.samples.items()}
    return answers


def _ask(model: Any, pairs: Sequence[tuple[str, str]]) -> Answers:
    return Answers(
        pairs=model.loglikelihood(_requests(pairs)),
        texts=model.loglikelihood_rolling(_requests([(text,) for text in TEXTS])),
        generated=model.generate_until(_requests(PROMPTS)),
    )


def _requests(arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    kind = "loglikelihood"  # nobody asks
    return [Instance(kind, {}, each, number, ("a task", number, 1)) for number, each in enumerate(arguments)]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name.removesuffix(",none"): value for name, value in values.items() if isinstance(value, float | int)}
    return {name: float(value) for name, value in numbers.items() if name not in ("sample_len",)}


def _responses(samples: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What was answered to each document, flat."""
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return [
        list(value) if isinstance(value, tuple) else value
        for sample in ordered
        for response in sample["resps"]
        for value in response
    ]


EVERYWHERE = pytest.mark.parametrize("layout", LAYOUTS)
EVERY_KIND = pytest.mark.parametrize("kind", ["pythia", "llama"])
Found = dict[tuple[str, str], Answers]


@EVERYWHERE
@EVERY_KIND
def test_log_likelihoods_are_those_of_the_export(
    kind: str, layout: str, ours: Found, references: dict[str, Reference]
) -> None:
    mine, theirs = ours[kind, layout].pairs, references[kind].answers.pairs
    assert [value for value, _ in mine] == pytest.approx([value for value, _ in theirs], abs=TOLERANCE, rel=0)
    assert [flag for _, flag in mine] == [flag for _, flag in theirs]
    assert {flag for _, flag in theirs} == {True, False}


@EVERYWHERE
@EVERY_KIND
def test_texts_of_any_length_are_as_likely_as_with_the_export(
    kind: str, layout: str, ours: Found, references: dict[str, Reference]
) -> None:
    mine, theirs = ours[kind, layout].texts, references[kind].answers.texts
    assert mine == pytest.approx(theirs, abs=TOLERANCE, rel=0)
    assert (
        min(theirs) < -500
    )  # several windows; sums of much more are no better than 1e-4 in fp32, in which they are taken there


@EVERYWHERE
@EVERY_KIND
def test_answers_are_the_very_texts_of_the_export(
    kind: str, layout: str, ours: Found, references: dict[str, Reference]
) -> None:
    mine, theirs = ours[kind, layout].generated, references[kind].answers.generated
    assert mine == theirs
    assert len({*theirs}) > len(WORDS)
    assert any(len(long) > len(short) for long, short in zip(theirs[: len(WORDS)], theirs[len(WORDS) :], strict=False))


@EVERYWHERE
@EVERY_KIND
def test_tasks_give_the_samples_and_metrics_of_the_export(
    kind: str, layout: str, ours: Found, references: dict[str, Reference]
) -> None:
    mine, theirs = ours[kind, layout], references[kind].answers
    assert mine.metrics.keys() == theirs.metrics.keys() == set(TASKS)
    for task in TASKS:
        assert mine.metrics[task] == pytest.approx(theirs.metrics[task], rel=1e-5)
        assert mine.samples[task] == _almost(theirs.samples[task])


def _almost(responses: Sequence[Any]) -> list[Any]:
    """Responses that compare equal within the tolerance: a log-likelihood alone or with a flag, or a text."""
    return [
        [_almost_number(value) for value in each] if isinstance(each, list | tuple) else _almost_number(each)
        for each in responses
    ]


def _almost_number(value: Any) -> Any:
    return pytest.approx(value, abs=TOLERANCE, rel=0) if isinstance(value, float) else value

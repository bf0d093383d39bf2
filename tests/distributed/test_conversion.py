"""Models of Hugging Face transformers in engines of every layout: they compute what transformers computes, and go back to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.checkpointing.saving.save import save_checkpoint
from megatron.conversion.export.weights import export_weights
from megatron.conversion.loading import is_of_another_program, load_into_engine
from megatron.conversion.mapping.architecture import Architecture, config_keys
from megatron.conversion.opening import open_model
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.data.batch import Batch, build_batch
from megatron.data.cut_sequence import cut_sequence
from megatron.engine.build import build_engine
from megatron.engine.protocol import Objective
from megatron.initialize import join_world
from megatron.model.gpt import build_layer_specs
from megatron.mpu.groups import Group, ProcessGroups
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import padded_vocab_size
from megatron.training.objectives.next_token import NextTokenObjective
from tests import deepspeed_world  # noqa: F401  prepares torch and DeepSpeed for forked ranks
from tests.distributed.matrix.ranks import temporary_groups
from tests.hugging_face_models import LENGTH, MODELS, build_model, logits_of, random_tokens
from tests.worlds import run_world

ROWS = 2
TOLERANCES = {"fp32": 1e-5, "bfloat16": 0.05}
"""Of the largest logit: fp32 sums taken in another order, or a computation in half precision; its masters are exact all the same."""
RESULTS = Path(__file__).parent / "conversion.md"
PREAMBLE = """# Models of Hugging Face transformers in every layout

Written by `make matrix`. Random weights in shrunk published configurations are loaded with `load: hf:...`: the numbers are the largest differences of a
logit from transformers' own (fp32, eager attention). What each layout saves is exported again, and equal to the original file to the bit in every cell.
An empty cell is a layout that does not divide the heads or the MLP of the model.

"""


@dataclass(frozen=True)
class Layout:
    """sizes: keys of the configuration; zero: stage."""

    sizes: Mapping[str, int]
    zero: int = 0
    world: int = 4
    precision: str = "fp32"

    def fits(self, architecture: Architecture) -> bool:
        """Whether its heads and its MLP can be divided."""
        tensor, context = (self.sizes.get(f"{axis}_parallel_size", 1) for axis in ("model", "context"))
        divided = (architecture.num_kv_heads, architecture.mlp_width, architecture.num_attention_heads // context)
        return all(size % tensor == 0 for size in divided)

    def __hash__(self) -> int:
        return hash((*self.sizes.items(), self.zero, self.precision))


LAYOUTS: Mapping[str, Layout] = {
    "one process": Layout({}, world=1),
    "tensor 2": Layout({"model_parallel_size": 2}),
    "tensor 4": Layout({"model_parallel_size": 4}, zero=1),
    "pipe 2": Layout({"pipe_parallel_size": 2}),
    "tensor 2, pipe 2": Layout({"model_parallel_size": 2, "pipe_parallel_size": 2}, zero=1),
    "data 4, ZeRO 1": Layout({}, zero=1),
    "data 4, ZeRO 3": Layout({}, zero=3),
    "context 2": Layout({"context_parallel_size": 2}, zero=1),
    "data 4, ZeRO 2, bf16": Layout({}, zero=2, precision="bfloat16"),
    "pipe 2, bf16": Layout({"pipe_parallel_size": 2}, precision="bfloat16"),
}


@dataclass(frozen=True)
class Task:
    """A model, in a directory, with its logits [b, s, v] of tokens [b, s + 1] less the last one, in the layouts that are tried."""

    name: str
    directory: Path
    tokens: Tensor
    logits: Tensor
    layouts: tuple[str, ...]


@dataclass
class Found:
    """By rank. error: the largest of a logit here, None where there are none; lost: tensors that came back otherwise (first rank only)."""

    error: float | None
    lost: list[str] = field(default_factory=list)


class Recording:
    """An objective that keeps the logits it is given."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.logits: list[Tensor] = []

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        self.logits.append(logits.detach().clone())
        return self.objective.loss_sum(logits, batch)

    def weight(self, batch: Batch) -> Tensor:
        return self.objective.weight(batch)


def model_names() -> list[str]:
    """One model of each family, and those in which something else is special."""
    first = {model.family: name for name, model in reversed(MODELS.items()) if "CausalLM" in model.architecture}
    special = [name for name in ("llama-2-70b", "llama-3.2", "llama-biases") if name in MODELS]
    return sorted({*first.values(), *special})


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """What transformers computes."""
    folder = tmp_path_factory.mktemp("models")
    made = []
    for name in model_names():
        directory = folder / name
        changes = {"intermediate_size": 88} if MODELS[name].config.get("intermediate_size") == 86 else {}  # for 4 ranks
        build_model(name, changes=changes).save_pretrained(directory)
        tokens = random_tokens(name, rows=ROWS, length=LENGTH + 1)
        architecture = HuggingFaceSource(directory).architecture
        layouts = tuple(layout for layout in LAYOUTS if LAYOUTS[layout].fits(architecture))
        made.append(Task(name, directory, tokens, logits_of(directory, tokens[:, :-1]), layouts))
    return made


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest, tasks: list[Task]) -> Iterator[dict[tuple[str, str], float]]:
    """The largest error of a logit by model and layout; all of them are written to the results where that is asked for."""
    errors: dict[tuple[str, str], float] = {}
    yield errors
    if request.config.getoption("--update-matrix"):
        head = [("model", "largest logit", *LAYOUTS), ("---",) * (2 + len(LAYOUTS))]
        numbers = ((errors.get((task.name, layout)) for layout in LAYOUTS) for task in tasks)
        cells = (["" if number is None else f"{number:.1e}" for number in row] for row in numbers)
        rows = [
            *head,
            *((task.name, f"{largest_logit(task):.1f}", *row) for task, row in zip(tasks, cells, strict=True)),
        ]
        RESULTS.write_text(PREAMBLE + "".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("world", "models", "each"),
    [
        (1, 3, 1),
        (4, None, 2),
        *(pytest.param(world, None, None, marks=(pytest.mark.matrix, pytest.mark.timeout(1500))) for world in (1, 4)),
    ],
)
def test_models_of_transformers_compute_the_same_in_every_layout_and_go_back_to_the_bit(
    tasks: list[Task],
    world: int,
    models: int | None,
    each: int | None,
    tmp_path: Path,
    measured: dict[tuple[str, str], float],
) -> None:
    """The first so many models, each in so many layouts, in turn; None stands for all."""
    chosen = [in_turn(task, world, number, each) for number, task in enumerate(tasks[:models])]
    reports = run_world(world, run_all, chosen, tmp_path, timeout_seconds=1200)
    names = reports[0].keys()
    largest = {task.name: largest_logit(task) for task in tasks}
    assert {name.partition(", ")[2] for name in names} == {
        name for name, layout in LAYOUTS.items() if layout.world == world
    }
    assert {name.partition(", ")[0] for name in names} == {task.name for task in chosen}
    for name in names:
        errors = [report[name].error for report in reports if report[name].error is not None]
        assert errors, name
        model, _, layout = name.partition(", ")
        measured[model, layout] = max(errors)
        tolerance = TOLERANCES[LAYOUTS[layout].precision] * largest[model]
        assert max(errors) <= tolerance, (name, errors)
        assert reports[0][name].lost == [], name


def largest_logit(task: Task) -> float:
    """What errors are measured by; at least 1."""
    return max(1.0, float(task.logits.abs().max()))


def in_turn(task: Task, world: int, number: int, each: int | None) -> Task:
    """The task of this number in `each` of the layouts of this size, others than the task before."""
    layouts = [name for name in task.layouts if LAYOUTS[name].world == world]
    wanted = len(layouts) if each is None else each
    return replace(task, layouts=tuple(layouts[(number * wanted + turn) % len(layouts)] for turn in range(wanted)))


def run_all(rank: int, tasks: Sequence[Task], folder: Path) -> dict[str, Found]:
    """Every task in its layouts."""
    groups: dict[tuple[tuple[str, int], ...], ProcessGroups] = {}
    found = {}
    for task in tasks:
        for name in task.layouts:
            key = f"{task.name}, {name}"
            try:
                found[key] = run(task, LAYOUTS[name], folder / key.replace(" ", "-"), groups)
            except Exception as error:
                raise RuntimeError(key) from error
    return found


def run(task: Task, layout: Layout, folder: Path, known: dict[tuple[tuple[str, int], ...], ProcessGroups]) -> Found:
    """Load, compute, save, and export what was saved."""
    source = HuggingFaceSource(task.directory)
    args = arguments(source, layout, load=f"hf:{task.directory}")
    sizes = tuple(layout.sizes.items())
    if sizes not in known:
        known[sizes] = join_world(args).groups
    groups = known[sizes]
    rows = source.architecture.vocab_size
    with temporary_groups():
        specs = build_layer_specs(args, vocab_size=rows, padded_vocab_size=padded_vocab_size(args, rows))
        objective = Recording(NextTokenObjective(group=groups.tensor, vocab_size=rows))
        engine = build_engine(args, specs=specs, objective=objective, groups=groups, device="cpu")
        assert is_of_another_program(args.load or "", groups.world)
        assert load_into_engine(args, engine, vocab_size=rows) == {}
        batch = cut_sequence(build_batch(task.tokens), groups.context)
        engine.evaluate_step([batch] if engine.reads_data else None)
        error = largest_error(objective.logits, task.logits, groups)
        save_checkpoint(folder, engine, iteration=0, run_state={}, save_optimizer=False)
        engine.library_engine.destroy()  # type: ignore[attr-defined]
    lost = changed_tensors(source, args, folder) if groups.world.rank == 0 else []
    return Found(error, lost)


def arguments(source: HuggingFaceSource, layout: Layout, **settings: Any) -> NeoXArgs:
    """The configuration of a run of this model in a layout."""
    return NeoXArgs.from_dict(
        {
            **config_keys(source.architecture),
            "seq_length": LENGTH,
            "train_iters": 1,
            "train_micro_batch_size_per_gpu": ROWS,
            "global_num_gpus": layout.world,
            "precision": layout.precision,
            "pipe_parallel_size": 0,
            "attention_config": [[["global"], "all"]],
            "zero_optimization": {"stage": layout.zero, "stage3_param_persistence_threshold": 100},
            "optimizer": {"type": "Adam", "params": {"lr": 0.01}},
            "make_vocab_size_divisible_by": 8,
            **layout.sizes,
            **settings,
        }
    )


def largest_error(logits: Sequence[Tensor], expected: Tensor, groups: ProcessGroups) -> float | None:
    """The largest error of this rank's logits [b, s/c, v/t]; None on stages that have none."""
    if not logits:
        return None
    (mine,) = logits
    wanted = part(expected, groups.context, dim=1)
    columns = mine.shape[2]
    begin = groups.tensor.rank * columns
    wanted = wanted[..., begin : begin + columns]  # what is beyond is padding
    return float((mine[..., : wanted.shape[2]] - wanted).abs().max())


def part(tensor: Tensor, group: Group, *, dim: int) -> Tensor:
    """This rank's part."""
    return tensor.chunk(group.size, dim=dim)[group.rank]


def changed_tensors(source: HuggingFaceSource, args: NeoXArgs, folder: Path) -> list[str]:
    """The tensors of the original that are not the same, to the bit, in what is exported from the checkpoints in `folder`."""
    ours = open_model(folder, args=args)
    assert ours.architecture.vocab_size == source.architecture.vocab_size
    exported = folder / "exported"
    exported.mkdir()
    export_weights(ours.source, source.architecture, source.family, exported, dtype=torch.float32)
    from safetensors.torch import load_file

    before = load_file(source.directory / "model.safetensors")
    after = {name: tensor for file in exported.glob("*.safetensors") for name, tensor in load_file(file).items()}
    return sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or not torch.equal(before[name], after[name])
    )

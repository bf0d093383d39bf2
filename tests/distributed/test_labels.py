"""Training with label data, from files to losses, in every kind of layout: what is masked is as if it were never predicted."""

from __future__ import annotations

import logging
import random
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from megatron.data.datasets import build_datasets
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.data.loaders import StepLoader
from megatron.data.samplers import BatchPlan
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.optim.build import build_optimizer
from megatron.optim.lr_schedules import learning_rate
from tests.deepspeed_world import CLIPPING, ROWS, Case, start_engine
from tests.toy_model import SEQUENCE, VOCABULARY
from tests.unit.data.test_datasets import arguments
from tests.worlds import run_world

STEPS = 3
ANSWERS = 30  # tokens from this number on are those of answers; a document is a question and an answer
LAYOUTS = {
    "tensor 2": Case(tensor=2),
    "data 2": Case(data=2, accumulation=2),
    "pipe 2": Case(pipe=2, accumulation=2),
}
LABELS = {
    "none": None,
    "everything": lambda token: token,
    "answers": lambda token: token if token >= ANSWERS else -100,
    "nothing": lambda _: -100,
}


class Trained(NamedTuple):
    losses: list[float]
    norms: list[float | None]
    evaluation: tuple[float, float]
    warnings: int = 0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and its labels of each kind."""
    place = tmp_path_factory.mktemp("labelled")
    generator = random.Random(0)
    documents = []
    for _ in range(40):
        question = generator.choices(range(ANSWERS), k=generator.randint(1, 9))
        documents.append(question + generator.choices(range(ANSWERS, VOCABULARY), k=generator.randint(1, 6)))
    for name, label in {"text": lambda token: token, **LABELS}.items():
        if label is not None:
            with IndexedDatasetWriter(place / name, dtype="u2" if name == "text" else "i4") as writer:
                for document in documents:
                    writer.add_document([label(token) for token in document])
    return place


def keys(directory: Path, kind: str) -> Any:
    text = [str(directory / "text")]
    return arguments(
        **{f"{part}_data_paths": text for part in ("train", "valid", "test")},
        train_label_data_paths=None if LABELS[kind] is None else [str(directory / kind)],
        seq_length=SEQUENCE,
    )


def train(_: int, directory: Path) -> dict[tuple[str, str], Trained]:
    """What every layout and kind of labels gives on this rank."""
    trained = {}
    warned: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = warned.append  # type: ignore[method-assign]
    logging.getLogger("megatron.engine.common").addHandler(handler)
    for name, case in LAYOUTS.items():
        for kind in LABELS:
            warned.clear()
            run = start_engine(case)
            groups = run.groups
            data = build_datasets(
                keys(directory, kind),
                train_samples=STEPS * ROWS,
                valid_samples=0,
                test_samples=0,
                world=groups.world,
            )
            assert data.train is not None
            micro = ROWS // (case.data * case.accumulation)
            loader = StepLoader(
                data.train,
                BatchPlan.constant(micro, case.accumulation, case.data, groups.data.rank),
                vocab_size=VOCABULARY,
                steps=STEPS,
                tensor_group=groups.tensor,
                reads_data=run.engine.reads_data,
            )
            batches = list(loader)
            results = [run.engine.train_step(batch, lr=learning_rate(run.args, k)) for k, batch in enumerate(batches)]
            evaluation = run.engine.evaluate_step(batches[0])
            losses, norms = [result.loss for result in results], [result.grad_norm for result in results]
            trained[name, kind] = Trained(losses, norms, evaluation, len(warned))
    return trained


@pytest.fixture(scope="module")
def of_ranks(directory: Path) -> list[dict[tuple[str, str], Trained]]:
    return run_world(2, train, directory)


@cache
def computed_directly(directory: Path) -> Trained:
    """Losses and norms of answers alone: plain torch on one process, which tokens count told by their numbers."""
    case = Case()
    args = case.arguments()
    model = SequentialModel(case.specs(), BuildContext(), seed=args.seed)
    optimizer = build_optimizer(args, model.parameters())
    train = build_datasets(keys(directory, "none"), train_samples=STEPS * ROWS, valid_samples=0, test_samples=0).train
    assert train is not None
    rows = [torch.tensor(train[i]) for i in range(STEPS * ROWS)]

    def loss_of(step: int) -> tuple[torch.Tensor, int]:
        text = torch.stack(rows[step * ROWS : (step + 1) * ROWS])
        positions = torch.arange(SEQUENCE).expand(ROWS, -1)
        logits = model(text[:, :-1], positions)[..., :VOCABULARY]
        answers = text[:, 1:] >= ANSWERS
        return F.cross_entropy(logits[answers], text[:, 1:][answers], reduction="sum"), int(answers.sum())

    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, step)
        total, count = loss_of(step)
        (total / count).backward()
        norms.append(float(clip_grad_norm_(model.parameters(), CLIPPING)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item() / count)
    total, count = loss_of(0)
    return Trained(losses, norms, (total.item(), count))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_that_mask_nothing_change_nothing(layout: str, of_ranks: list[dict[tuple[str, str], Trained]]) -> None:
    for rank in of_ranks:
        assert rank[layout, "everything"] == rank[layout, "none"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_are_those_of_the_labelled_tokens(
    layout: str, directory: Path, of_ranks: list[dict[tuple[str, str], Trained]]
) -> None:
    expected = computed_directly(directory)
    for rank in of_ranks:
        assert rank[layout, "answers"].losses == pytest.approx(expected.losses, rel=2e-6)
        assert rank[layout, "answers"].norms == pytest.approx(expected.norms, rel=5e-6)
        assert rank[layout, "answers"].evaluation == pytest.approx(expected.evaluation, rel=2e-6)
    assert of_ranks[0][layout, "none"].losses != pytest.approx(expected.losses, rel=1e-2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_without_any_labelled_token_count_as_nothing(
    layout: str, of_ranks: list[dict[tuple[str, str], Trained]]
) -> None:
    for rank in of_ranks:
        assert rank[layout, "nothing"][:3] == ([0.0] * STEPS, [0.0] * STEPS, (0.0, 0.0))
        assert rank[layout, "answers"].warnings == 0
    assert sorted(rank[layout, "nothing"].warnings for rank in of_ranks) == [0, STEPS]  # one rank tells it

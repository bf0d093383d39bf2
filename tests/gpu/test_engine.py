"""Training engines on one GPU give the losses and norms of plain torch on the CPU; their checkpoints load on the CPU to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.loading.weights import load_weights
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.data.batch import Batch
from megatron.engine.build import build_engine
from megatron.engine.protocol import Engine, FullTensor, Piece
from megatron.initialize import World
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.shard import shard_of
from megatron.optim.lr_schedules import learning_rate
from tests.deepspeed_world import ROWS, Case, reference_run
from tests.gpu.compare import CPU
from tests.toy_model import ToyObjective, global_batch, micro_batches
from tests.unit.checkpointing.fakes import FakeEngine, fake_engine, full_values

pytestmark = pytest.mark.gpu

STEPS = 4
ACCUMULATION = 2
LIMITS = {"fp32": 1e-5, "bfloat16": 1e-2, "fp16": 2e-3}
"""Relative, of losses; norms may be four times as far off."""


def case(precision: str = "fp32", *, pipe: int = 0, zero: int = 1, **overrides: object) -> Case:
    scaling = {"fp16": {"enabled": True, "initial_scale_power": 8}} if precision == "fp16" else {}
    return Case(
        pipe=pipe,
        zero=zero,
        accumulation=ACCUMULATION,
        gpt=True,
        precision=precision,
        overrides={**scaling, **overrides},
    )


def start(case: Case, world: World) -> Engine:
    return build_engine(
        case.arguments(),
        specs=case.specs(),
        objective=ToyObjective(world.groups.tensor),
        groups=world.groups,
        device=world.device,
    )


def batches(step: int, device: torch.device) -> list[Batch]:
    whole = global_batch(step, ROWS)
    on_device = Batch(**{name: value.to(device) for name, value in vars(whole).items() if value is not None})
    return micro_batches(on_device, count=ACCUMULATION, rank=0, ranks=1)


@pytest.mark.parametrize(("pipe", "zero"), [(0, 1), (0, 2), (0, 3), (1, 1)])
@pytest.mark.parametrize("precision", LIMITS)
def test_an_engine_gives_the_losses_and_norms_of_plain_torch_on_the_cpu(
    precision: str, pipe: int, zero: int, world: World
) -> None:
    settings = case(precision, pipe=pipe, zero=zero)
    engine, args = start(settings, world), settings.arguments()
    expected = reference_run(settings, STEPS)
    results = [engine.train_step(batches(step, world.device), lr=learning_rate(args, step)) for step in range(STEPS)]
    limit = LIMITS[precision]
    assert not any(result.skipped for result in results)
    assert [result.loss for result in results] == pytest.approx(expected.losses, rel=limit)
    assert [result.grad_norm for result in results] == pytest.approx(expected.norms, rel=4 * limit)
    loss, weight = engine.evaluate_step(batches(STEPS, world.device))
    assert weight == expected.evaluation[1]
    assert loss == pytest.approx(expected.evaluation[0], rel=limit)


@pytest.mark.parametrize("pipe", [0, 1])
def test_a_step_never_makes_the_whole_device_wait(pipe: int, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's timers would, before and after every micro-batch; the few values a step reads wait for their own stream."""
    from megatron.engine.library import deepspeed

    settings = case("bfloat16", pipe=pipe)
    engine = start(settings, world)
    waits: list[int] = []
    monkeypatch.setattr(deepspeed.accelerator.get_accelerator(), "synchronize", lambda *_: waits.append(1))
    for step in range(STEPS):  # the timers begin at the third
        engine.train_step(batches(step, world.device), lr=0.01)
    assert not waits


@pytest.mark.parametrize("precision", LIMITS)
def test_a_checkpoint_saved_on_the_gpu_loads_on_the_cpu_to_the_bit(
    precision: str, world: World, tmp_path: Path
) -> None:
    settings = case(precision)
    engine = start(settings, world)
    for step in range(STEPS):
        engine.train_step(batches(step, world.device), lr=0.01)
    save_checkpoint(tmp_path, engine, iteration=STEPS, run_state={})
    saved = engine.state_tensors()

    model = SequentialModel(settings.specs(), BuildContext(device=CPU), seed=None)
    load_weights(tmp_path, model)
    for parameter in model.parameters():
        info = shard_of(parameter)
        assert torch.equal(parameter[: info.valid_rows], whole(saved[f"{info.name}/weight"])), info.name

    on_cpu = FakeEngine({name: FullTensor(full.shape, (zeros(full.shape),)) for name, full in saved.items()})
    load_checkpoint(tmp_path, on_cpu)
    assert {name.rpartition("/")[2] for name in saved} == {"weight", "exp_avg", "exp_avg_sq"}
    assert on_cpu.holds({name: whole(full) for name, full in saved.items()})
    assert on_cpu.scalars["optimizer_step"] == STEPS


def test_any_bits_travel_between_the_devices_unchanged(device: torch.device, tmp_path: Path) -> None:
    """NaNs, denormals and views with gaps, from the GPU to the CPU and back."""
    bits = full_values(seed=1)
    with device:
        on_device = fake_engine(seed=2).fill(on(device, bits))
    save_checkpoint(tmp_path / "of_gpu", on_device, iteration=1, run_state={})
    on_cpu = fake_engine(seed=3)
    load_checkpoint(tmp_path / "of_gpu", on_cpu)
    assert on_cpu.holds(bits)

    save_checkpoint(tmp_path / "of_cpu", on_cpu, iteration=1, run_state={})
    with device:
        again = fake_engine(seed=4)
    load_checkpoint(tmp_path / "of_cpu", again)
    assert again.holds(on(device, bits))


def on(device: torch.device, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def zeros(shape: tuple[int, ...]) -> Piece:
    """A piece on the CPU that is the whole tensor."""
    return Piece((0,) * len(shape), torch.zeros(shape))


def whole(full: FullTensor) -> torch.Tensor:
    """A full tensor on the CPU, from the pieces of the only process."""
    result = torch.full(full.shape, float("nan"))
    for piece in full.pieces:
        where = tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.tensor.shape, strict=True))
        result[where] = piece.tensor.detach().cpu()
    return result

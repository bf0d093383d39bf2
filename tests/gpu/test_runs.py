"""`deepy.py` on one GPU: training in every precision, resuming to the bit, crossing over to the CPU, and generating text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.training.speed import peak_flops_per_second
from tests.end_to_end.runs import TrainedRun, run_deepy, write_config

pytestmark = pytest.mark.gpu

ITERATIONS = 20
SETTINGS: dict[str, Any] = {
    "num_gpus": 1,
    "train_iters": ITERATIONS,
    "lr_decay_iters": ITERATIONS,
    "checkpoint_factor": ITERATIONS // 2,
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 2,
    "num_workers": 2,
    "attention_config": [[["flash"], "all"]],
}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "checkpoint_activations": True, "checkpoint_num_layers": 1}
LOSS_LIMITS = {"fp32": 1e-5, "bfloat16": 1e-2, "fp16": 2e-3}
"""Relative, against fp32 on the CPU. The CPU itself is 2e-3 off in bf16, 2e-4 in fp16, and 1.5e-7 when it sums in another order."""


@dataclass(frozen=True)
class Runner:
    """Runs `deepy.py` on the GPU of the tests, or on the CPU of its machine."""

    device: torch.device
    data: Path

    def run(self, directory: Path, script: str, *words: object, on_cpu: bool = False) -> TrainedRun:
        """Run a script to its end; fails the test when the run fails."""
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}
        environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"} | hidden
        done = run_deepy(directory, script, *words, environment=environment)
        assert done.exit_code == 0, done.printed
        return done

    def train(self, directory: Path, *words: object, on_cpu: bool = False, **changes: Any) -> TrainedRun:
        """Train the small model in `directory`."""
        config = write_config(directory, self.data, **{**SETTINGS, **changes})
        return self.run(directory, "train.py", config, *words, on_cpu=on_cpu)


@pytest.fixture(scope="module")
def runner(device: torch.device, small_data: Path) -> Runner:
    return Runner(device, small_data)


@pytest.fixture(scope="module")
def cpu_run(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """fp32 on the CPU."""
    return runner.train(tmp_path_factory.mktemp("cpu"), on_cpu=True)


@pytest.fixture(scope="module")
def gpu_run(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """fp32 on the GPU."""
    return runner.train(tmp_path_factory.mktemp("gpu"))


def test_fp32_gives_the_losses_and_norms_of_the_cpu(gpu_run: TrainedRun, cpu_run: TrainedRun) -> None:
    assert cpu_run.losses[-1] < cpu_run.losses[0] / 2
    assert gpu_run.losses == pytest.approx(cpu_run.losses, rel=LOSS_LIMITS["fp32"])
    norms, expected = ([step["grad_norm"] for step in run.steps.values()] for run in (gpu_run, cpu_run))
    assert norms == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "fp16"])
@pytest.mark.parametrize("pipe", [0, 1])
def test_half_precision_gives_nearly_the_losses_of_fp32(
    precision: str, pipe: int, runner: Runner, cpu_run: TrainedRun, tmp_path: Path
) -> None:
    scaling = {"fp16": {"enabled": True, "initial_scale_power": 10}} if precision == "fp16" else {}
    run = runner.train(tmp_path, precision=precision, pipe_parallel_size=pipe, **scaling)
    assert not any(step["skipped"] for step in run.steps.values())
    assert run.losses == pytest.approx(cpu_run.losses, rel=LOSS_LIMITS[precision])


def test_utilisation_and_memory_are_measured(runner: Runner, gpu_run: TrainedRun) -> None:
    steps = list(gpu_run.steps.values())
    assert len(steps) == ITERATIONS
    # Weights, gradients and moments of this model need half a megabyte; a process on a CPU would have hundreds resident.
    assert all(2**19 < step["memory_bytes"] < 2**28 for step in steps) or runner.device.type == "cpu"
    if peak_flops_per_second(runner.device, None) is None:
        pytest.skip("the peak of this device is not known")
    assert all(0 < step["mfu"] < 1 for step in steps)


@pytest.mark.parametrize("precision", ["fp32", "bfloat16"])
def test_a_stopped_run_continues_with_the_same_losses_to_the_bit(
    precision: str, runner: Runner, tmp_path: Path
) -> None:
    """With dropout, recomputation and loader processes: everything that has a state."""
    changes = {"precision": precision, **DROPOUT}
    whole = runner.train(tmp_path / "whole", **changes)
    runner.train(tmp_path / "parts", f"exit_interval={ITERATIONS // 2 - 2}", **changes)
    parts = runner.train(tmp_path / "parts", **changes)
    assert f"continuing after iteration {ITERATIONS // 2 - 2}" in parts.printed
    assert parts.losses == whole.losses


def test_a_run_begun_on_the_gpu_goes_on_on_the_cpu(runner: Runner, gpu_run: TrainedRun, tmp_path: Path) -> None:
    half = ITERATIONS // 2
    there = {"load": str(gpu_run.directory / "checkpoints"), "iteration": half}
    moved = runner.train(tmp_path, on_cpu=True, **there)
    assert f"continuing after iteration {half}" in moved.printed
    assert moved.losses == pytest.approx(gpu_run.losses[half:], rel=LOSS_LIMITS["fp32"])


def test_greedy_text_is_that_of_the_cpu(runner: Runner, gpu_run: TrainedRun, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("import self\ndef\nclass lambda yi\n")
    texts = []
    for on_cpu in (False, True):
        output = tmp_path / f"samples_{on_cpu}.jsonl"
        words = (f"sample_input_file={prompts}", f"sample_output_file={output}", "maximum_tokens=16")
        runner.run(tmp_path, "generate.py", gpu_run.directory / "config.yml", *words, on_cpu=on_cpu)
        # How long it took is the one thing that may differ.
        texts.append([line.split('"duration_seconds"')[0] for line in output.read_text().splitlines()])
    assert len(texts[0]) == 3
    assert texts[0] == texts[1]

from __future__ import annotations

from dataclasses import replace

import pytest

from megatron.doctor.facts.checkpoints import CheckpointNeeds
from megatron.doctor.facts.config_files import NamedFile
from megatron.doctor.facts.disks import Disk
from megatron.doctor.facts.torch_facts import TorchFacts
from megatron.doctor.findings import Finding
from megatron.doctor.judging.configs import judge_copy, judge_features, judge_files, judge_places, judge_room
from tests.unit.doctor.builders import GIB, ON_GPUS, TORCH, V100
from tests.unit.planning.builders import arguments

NEEDS = CheckpointNeeds("/run", 10 * GIB, at_once=4, present=0)
DISK = Disk("/run", True, 50 * GIB, 99 * GIB)
WITH_KERNELS = {"flash-attn": "2.8.3", "triton": "3.5"}
WITH_KERNELS_FOR_HOPPER = {"flash-attn-3": "3.0.0"}


def about(findings: list[Finding], subject: str) -> Finding | None:
    return next((finding for finding in findings if finding.subject == subject), None)


def test_a_precision_that_the_gpus_lack_is_a_failure() -> None:
    old = replace(ON_GPUS, devices=(V100,))
    found = about(judge_features(arguments(precision="bfloat16"), old, {}), "precision")
    assert found is not None
    assert (found.level, found.text) == ("failure", "bfloat16, which Tesla V100 cannot compute")
    assert about(judge_features(arguments(precision="fp16"), old, {}), "precision") == Finding(
        "precision", "ok", "fp16 on these GPUs"
    )
    assert about(judge_features(arguments(precision="bfloat16"), TORCH, {}), "precision") == Finding(
        "precision", "ok", "bfloat16 on the CPU"
    )


@pytest.mark.parametrize("keys", [{"fp8": "tensorwise", "precision": "bfloat16"}, {"te_mha": True}])
def test_fp8_on_a_gpu_that_lacks_it_is_a_failure(keys: dict[str, object]) -> None:
    (name,) = keys.keys() - {"precision"}
    old = replace(ON_GPUS, devices=(V100,))
    found = about(judge_features(arguments(**keys), old, {}), "fp8")
    text = f"{name}, which Tesla V100 cannot compute: it takes compute capability 8.9"
    assert found == Finding("fp8", "failure", text, f"remove {name}")
    new = replace(ON_GPUS, devices=(replace(V100, name="H100", capability=(9, 0)),))
    assert about(judge_features(arguments(**keys), new, {}), "fp8") == Finding("fp8", "ok", f"{name} on these GPUs")
    amd = about(judge_features(arguments(**keys), replace(new, rocm="6.4"), {}), "fp8")
    assert amd is not None
    assert amd.level == "failure"
    on_cpu = about(judge_features(arguments(**keys), TORCH, {}), "fp8")
    assert on_cpu == Finding("fp8", "ok", f"{name} on the CPU, which is slower with it")
    assert about(judge_features(arguments(), old, {}), "fp8") is None


FLASH = {"attention_config": [[["flash"], 12]]}
FLEX = {"attention_config": [[["flex"], 12]]}


@pytest.mark.parametrize(
    ("keys", "installed", "level"),
    [
        (FLASH, WITH_KERNELS, None),
        (FLASH, {}, "ok"),
        ({**FLASH, "sliding_window_width": 512}, WITH_KERNELS_FOR_HOPPER, None),
        ({**FLASH, "sliding_window_width": 512, "pos_emb": "alibi"}, WITH_KERNELS_FOR_HOPPER, "warning"),
        ({**FLASH, "sliding_window_width": 512}, {}, "warning"),
        ({**FLASH, "sliding_window_width": 2048}, {}, "ok"),
        ({**FLASH, "reset_attention_mask": True}, {}, "warning"),
        ({**FLASH, "reset_attention_mask": True, "head_dim": 512}, {}, None),
        ({**FLASH, "reset_attention_mask": True, "precision": "fp32"}, {}, None),
        (FLEX, {}, "failure"),
        (FLEX, WITH_KERNELS, None),
        ({}, {}, None),
    ],
)
def test_attention_without_its_package_costs_what_the_config_makes_of_it(
    keys: dict[str, object], installed: dict[str, str], level: str | None
) -> None:
    found = about(judge_features(arguments(**keys), ON_GPUS, installed), "attention")
    assert (found and found.level) == level


def test_on_a_cpu_no_attention_needs_a_package() -> None:
    assert about(judge_features(arguments(**FLEX), TORCH, {}), "attention") is None


def test_a_cpu_lacks_kernels_of_gpus() -> None:
    def judged(backend: str, where: TorchFacts) -> Finding | None:
        return about(judge_features(arguments(**FLASH, sdpa_backend=backend), where, WITH_KERNELS), "attention")

    assert judged("math", TORCH) is judged("flash", TORCH) is judged("cudnn", ON_GPUS) is None
    found = judged("cudnn", TORCH)
    assert found is not None
    assert found.level == "failure"


def test_a_package_that_cannot_be_imported_is_none() -> None:
    broken = replace(ON_GPUS, imports={"flash_attn": "undefined symbol"})
    found = about(judge_features(arguments(**FLASH, reset_attention_mask=True), broken, WITH_KERNELS), "attention")
    assert found is not None
    assert found.level == "warning"
    broken = replace(ON_GPUS, imports={"triton": "undefined symbol"})
    found = about(judge_features(arguments(**FLEX), broken, WITH_KERNELS), "attention")
    assert found is not None
    assert found.level == "failure"


def test_data_that_are_missing_are_failures_and_the_rest_is_one_line() -> None:
    files = [NamedFile("data_path", "a.bin", 2 * GIB), NamedFile("data_path", "a.idx", problem="does not exist")]
    missing, there = judge_files(files)
    assert (missing.level, missing.text) == ("failure", "a.idx does not exist")
    assert (there.level, there.text) == ("ok", "1 file, 2.0 GiB, can be read")


@pytest.mark.parametrize(
    ("needs", "level", "text"),
    [
        (NEEDS, "ok", "a checkpoint takes 10.0 GiB, 4 of them 40.0 GiB; 50.0 GiB are free in /run"),
        (replace(NEEDS, at_once=6), "warning", "6 of them 60.0 GiB, and 50.0 GiB are free"),
        (replace(NEEDS, at_once=6, present=2), "ok", "4 of them 40.0 GiB"),
        (replace(NEEDS, at_once=6, present=6), "ok", "a checkpoint takes 10.0 GiB;"),
        (replace(NEEDS, bytes=60 * GIB), "failure", "a checkpoint takes 60.0 GiB, and 50.0 GiB are free"),
    ],
)
def test_checkpoints_need_room_for_those_that_will_lie_together(needs: CheckpointNeeds, level: str, text: str) -> None:
    (found,) = judge_room(needs, DISK)
    assert found.level == level
    assert text in found.text


def test_a_run_that_saves_nothing_needs_no_room() -> None:
    assert judge_room(None, None) == []


def test_places_that_cannot_be_written_are_failures() -> None:
    bad, good = judge_places({"save": replace(DISK, problem="read-only"), "log_dir": DISK})
    assert (bad.subject, bad.level, bad.text) == ("save", "failure", "/run: read-only")
    assert good.text == "can be written: log_dir /run (50.0 GiB free)"


def test_the_copy_that_async_save_keeps_must_fit_into_memory() -> None:
    args = arguments(4, async_save=True, save="/run", checkpoint_factor=10)
    fits = judge_copy(args, NEEDS, processes=2, available=6 * GIB)
    assert [finding.level for finding in fits] == ["ok"]
    assert "5.0 GiB" in fits[0].text, "half of the processes are here"
    assert judge_copy(args, NEEDS, processes=2, available=4 * GIB)[0].level == "failure"
    assert judge_copy(arguments(4), NEEDS, processes=2, available=4 * GIB) == []

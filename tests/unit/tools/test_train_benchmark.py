"""The benchmark of training: what is counted, who takes turns when, what it makes of the times; and one run of it, beside transformers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron.environment import CPU_ALLOCATOR
from tools.benchmark import train_turns
from tools.benchmark.speed_tables import README, training_table, with_tables
from tools.benchmark.techniques_table import TECHNIQUES, Technique, effects, markdown_of, ways_of
from tools.benchmark.train_cases import CASES, of_json
from tools.benchmark.train_job import PRODUCTS, batch
from tools.benchmark.train_ours import accepted, batch_of
from tools.benchmark.train_products import products_of
from tools.benchmark.train_report import allowed, differences, ratios, report_of, table_of, with_other_losses
from tools.benchmark.train_rounds import Measured
from tools.benchmark.train_targets import CPU, OF_CUDA_CASES, ONLY_LOSSES, problems_of
from tools.benchmark.train_turns import rotated
from tools.benchmark.train_ways import AT_ITS_BEST, OURS, WAYS, Way, environment_of

ROOT = Path(__file__).resolve().parents[3]
EVERY_CASE = [case for cases in CASES.values() for case in cases]


@pytest.mark.parametrize("case", EVERY_CASE, ids=lambda case: case.name)
def test_the_floor_is_of_all_products_that_the_flops_are_counted_of(case: Any) -> None:
    products = products_of(case)
    assert sum(count * product.flops for product, count in products.items()) == case.flops
    assert of_json(json.loads(json.dumps(case.to_json()))) == case


def test_a_case_gets_as_few_rows_as_let_two_copies_fit() -> None:
    case = CASES["cuda"][0]
    assert case.fitting(2 * case.bytes).rows == case.rows
    fewer = case.fitting(2 * case.bytes - 1)
    assert fewer.rows == case.rows // 2
    assert 2 * fewer.bytes < 2 * case.bytes
    assert case.fitting(0).rows == 1


def test_every_process_reads_the_same_tokens_and_the_last_of_a_row_predicts_nothing() -> None:
    case = CASES["tiny"][0]
    first, second, third = (batch(case, step) for step in range(3))
    assert first.equal(third)
    assert not first.equal(second)
    ours = batch_of(first)
    assert ours.labels[:, :-1].equal(first[:, 1:])
    assert ours.loss_mask.sum().item() == case.rows * (case.length - 1)
    assert not ours.loss_mask[:, -1].any()


def test_out_of_the_box_a_program_has_none_of_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CPU_ALLOCATOR.items():
        monkeypatch.setenv(name, value)
    assert not set(CPU_ALLOCATOR) & set(environment_of(WAYS["transformers"], device="cpu"))
    tuned = environment_of(WAYS["transformers, tuned"], device="cpu")
    assert {name: tuned[name] for name in CPU_ALLOCATOR} == CPU_ALLOCATOR
    assert tuned["PATH"] == os.environ["PATH"]


def test_a_way_that_cannot_be_measured_says_why() -> None:
    titan = Way("torchtitan", only="llama")
    assert Way("no_such_package").reason_against(gated=True, device="cpu") == "no_such_package is not installed"
    assert WAYS["ours, fp8"].reason_against(gated=True, device="cpu") == "needs a GPU"
    assert WAYS["ours, fp8"].reason_against(gated=True, device="cuda") is None
    assert titan.reason_against(gated=False, device="cpu") in {
        "torchtitan has no such model",
        "torchtitan is not installed",
    }


def test_keys_that_are_refused_are_left_out_by_name() -> None:
    keys = {**CASES["tiny"][0].keys(), "precision": "bfloat16"}
    args, refused = accepted(keys, {"weight_decay": 0.25, "no_such_key": 1, "hidden_dropout": 7})
    assert refused == ["no_such_key", "hidden_dropout"]
    assert args.weight_decay == 0.25


def test_another_one_begins_each_round() -> None:
    assert [rotated("ABC", turn) for turn in range(4)] == [[*"ABC"], [*"BCA"], [*"CAB"], [*"ABC"]]


CHILD = """
import sys, json, time
job = json.loads(sys.stdin.readline())
for line in sys.stdin:
    if job == "dies":
        sys.exit("no room at all")
    if job == "sleeps":
        time.sleep(60)
    print(json.dumps({"failed": "out of memory"} if job == "fails" else {"did": json.loads(line)["steps"]}), flush=True)
"""


def test_a_process_that_dies_sleeps_or_fails_is_told_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_turns, "CHILD", tmp_path / "child.py")
    (tmp_path / "child.py").write_text(CHILD)
    children = {
        job: train_turns.Child(job, environment=os.environ, log=tmp_path / job)  # type: ignore[arg-type]
        for job in ("works", "dies", "sleeps", "fails")
    }
    try:
        for together in (True, False):
            answers, failures = train_turns.on_each(
                children,
                lambda child: child.steps(3, seconds=1.0 if child.log.name == "sleeps" else 60.0),
                together=together,
            )
            assert answers == {"works": {"did": 3}}
            assert set(failures) == {"dies", "sleeps", "fails"}
            if together:
                assert failures["dies"] == "ended with status 1: no room at all"
                assert failures["sleeps"] == "took longer than 1 s"
                assert failures["fails"] == "out of memory"
    finally:
        for child in children.values():
            child.close()


def measured_of(seconds: dict[str, list[float]], losses: dict[str, list[float]] | None = None) -> Measured:
    """Rounds in which each way takes these seconds, and as many gigabytes as its name has letters."""
    rounds: list[dict[str, Any]] = [
        {
            name: {"seconds": taken[turn], "cpu_seconds": taken[turn], "peak_bytes": len(name) << 30}
            for name, taken in seconds.items()
        }
        for turn in range(len(seconds[OURS]))
    ]
    for each in rounds:
        each[PRODUCTS] = {"ceiling": 1e12, "floor_seconds": 0.5}
    return Measured(rounds, losses or {name: [6.0, 5.0] for name in seconds})


def test_the_worst_round_counts() -> None:
    case = CASES["cpu"][0]
    measured = measured_of(
        {OURS: [1.0, 2.0, 1.0], "transformers": [5.0, 6.0, 4.5], "litgpt, compiled": [1.3, 2.6, 1.2]}
    )
    assert ratios(measured.rounds, "transformers", "seconds") == {"median": 4.5, "worst": 3.0}
    report = report_of(case, measured)
    assert report["ways"][OURS]["tokens_per_second"] == case.tokens / 1.0
    assert report["ways"][OURS]["of_ceiling"] == pytest.approx(case.flops / 1e12)
    assert report["ways"][OURS]["of_floor"] == 0.5
    assert problems_of(report, CPU) == [
        "ours is 1.20 times as fast as litgpt, compiled, not 1.25",
        "ours is 3.00 times as fast as transformers, not 4.0",
    ]
    assert problems_of(report, ONLY_LOSSES) == []
    assert [line.split("  ")[0] for line in table_of(case.name, report)[3:6]] == list(report["ways"])


def test_memory_fp8_and_the_ceiling_have_targets() -> None:
    report = report_of(
        CASES["cuda"][0],
        measured_of({OURS: [1.0, 1.0, 1.0], "transformers, tuned": [9.0] * 3, "ours, fp8": [0.5, 0.9, 0.5]}),
    )
    assert problems_of(report, CPU) == []
    report["ways"][OURS]["peak_bytes"] = report["ways"]["transformers, tuned"]["peak_bytes"]
    assert problems_of(report, CPU) == ["ours takes 1.00 of the memory of transformers, not 0.7"]
    report["ways"][OURS]["of_ceiling"] = 0.5
    assert problems_of(report, OF_CUDA_CASES["Pythia 1.4B"]) == ["ours reaches 0.50 of the ceiling, not 0.65"]
    assert problems_of(report, OF_CUDA_CASES["Llama 8B-shaped"]) == ["fp8 is 1.11 times as fast, not 1.25"]


def test_other_losses_are_a_problem_and_so_is_nan() -> None:
    losses = {OURS: [6.0, 5.0, 4.0], "litgpt": [6.0, 5.03], "transformers": [6.001, 5.0], "torchtitan": [math.nan, 5.0]}
    apart = differences(losses, list(losses))
    assert apart[OURS] == {"largest": pytest.approx(1e-3), "mean": pytest.approx(5e-4)}
    assert with_other_losses({"differences": apart, "largest_difference": 2e-2}) == ["litgpt", "torchtitan"]
    assert differences({OURS: [1.0]}, [OURS])[OURS]["largest"] == 0


def test_a_way_without_updates_has_other_losses_however_little_they_change() -> None:
    falling = [6.0, 5.9, 5.996, 5.896]
    assert allowed(falling) == pytest.approx(0.002)
    assert allowed([6.0, 5.9, 5.0]) == allowed([6.0]) == allowed([]) == 2e-2
    losses = {OURS: [6.0, 5.9, 6.0, 5.9], "transformers": falling}
    report = {"differences": differences(losses, list(losses)), "largest_difference": allowed(falling)}
    assert with_other_losses(report) == [OURS]


def test_ours_that_fails_is_a_problem() -> None:
    failed = Measured(left_out={OURS: "out of memory"})
    assert problems_of(report_of(CASES["cpu"][0], failed), CPU) == ["ours cannot be measured: out of memory"]


def test_a_technique_is_measured_against_all_others_on() -> None:
    ways, skipped = ways_of(TECHNIQUES, device="cpu", gated=True)
    assert ways[OURS].settings == AT_ITS_BEST
    assert skipped["`rope_fusion`"] == "needs a GPU"
    assert ways["`compile`, without"].settings == {**AT_ITS_BEST, "compile": False}
    assert "`compile`, with" not in ways
    assert not ways["variables of the launcher, without"].tuned
    on_gpu, skipped = ways_of(TECHNIQUES, device="cuda", gated=False)
    assert skipped == dict.fromkeys(("`rmsnorm_fusion`", "`use_flashattn_swiglu`"), "this model has none")
    assert on_gpu["`rope_fusion`, without"].settings_on("cuda")["rope_fusion"] is False


def test_the_effect_of_a_technique_is_what_a_step_takes_without_it() -> None:
    some: dict[str, Technique] = {"A": Technique({"compile": False}), "B": Technique({}, {"fp8": "tensorwise"})}
    measured = measured_of({OURS: [1.0, 1.0, 2.0], "A, without": [1.5, 1.5, 2.5], "B, with": [0.5, 0.5, 0.5]})
    found = effects(some, measured, device="cpu")
    assert found["A"]["faster"] == {"median": 1.5, "worst": 1.25}
    assert found["A"]["memory"] == len(OURS) / len("A, without")
    assert found["B"]["faster"] == {"median": 2.0, "worst": 2.0}
    measured.notes["A, without"] = ["without compile"]
    assert list(effects(some, measured, device="cpu")) == ["B"]
    assert markdown_of({"NeoX": {"effects": found}, "Llama": {"effects": {}}})[2:] == [
        "| A | 1.50 (1.25) | 0.40 |  |  |",
        "| B | 2.00 (2.00) | 1.75 |  |  |",
    ]


def test_the_tables_of_readme_are_those_of_the_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run tools/benchmark/speed_tables.py"
    assert [text.count(f"<!-- speed: {name} -->") for name in ("train", "techniques")] == [1, 1]


def test_a_table_has_ways_as_rows_and_models_as_columns() -> None:
    seconds = {OURS: [1.0, 1.0], "transformers": [4.0, 5.0]}
    case = CASES["cpu"][0]
    report = report_of(case, measured_of(seconds))
    assert list(training_table({"NeoX": report, "Llama": {**report, "ways": {OURS: report["ways"][OURS]}}})) == [
        "| | NeoX, 4 x 512 tokens | Llama, 4 x 512 tokens |",
        "| --- | --- | --- |",
        f"| ours | 2,048, {case.flops / 1e12:.2f} of the ceiling, 4.0 GiB | 2,048, {case.flops / 1e12:.2f} of the ceiling, 4.0 GiB |",
        "| transformers | 455: 4.50 (4.00), 12.0 GiB |  |",
        "| *products of matrices alone* | 1.00 TFLOP/s, 4,096 | 1.00 TFLOP/s, 4,096 |",
    ]


def test_a_run_beside_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    output = tmp_path / "train.json"
    words = ["--tiny", "--models", "Llama tiny", "--ways", "transformers", "litgpt, eager", "--rounds", "2", "--check"]
    settings = ["--settings", json.dumps({"deepspeed": False, "no_such_key": True})]
    command = [sys.executable, str(ROOT / "tools/benchmark/train.py"), *words, *settings, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    case = json.loads(output.read_text())["cases"]["Llama tiny"]
    ours, theirs = case["ways"][OURS], case["ways"]["transformers"]
    assert ours["notes"] == ["without no_such_key"]
    assert len(ours["losses"]) == len(theirs["losses"]) == 2 + 2 * 1
    assert 0 < case["largest_difference"] == (theirs["losses"][0] - theirs["losses"][2]) / 2
    assert case["differences"][OURS]["largest"] < case["largest_difference"] / 2
    for way in (ours, theirs):
        assert way["tokens_per_second"] > 0
        assert 1 << 20 < way["peak_bytes"] < 1 << 30
    assert len(case["rounds"]) == 2
    assert all({OURS, "transformers", PRODUCTS} <= set(each) for each in case["rounds"])
    assert case["left_out"].get("litgpt, eager", "litgpt is not installed") == "litgpt is not installed"
    assert "ours faster" in done.stdout

"""`deepy.py parity`: what it refuses, what it says of two runs, and that it can say no. Real runs: tests/end_to_end/test_parity.py."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest

from megatron.cli.parity import main, parse_parity_args
from megatron.cli.parity_configs import changed, kept, left_out, prepare
from megatron.cli.parity_report import description, numbers, record, verdict
from megatron.cli.parity_result import TOLERANCE, Pair, Step, first_difference, largest_deviations, steps_of
from megatron.cli.styled import Line
from megatron.errors import ConfigError, NeoXError
from megatron.neox_arguments.reading.load import read_ymls
from tests.conftest import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "20B.yml")
WEIGHT, MOMENT = "2.mlp.linear1.weight/weight", "2.mlp.linear1.weight/exp_avg"


def records(*losses: float, norm: float = 2.0) -> list[dict[str, Any]]:
    """Records of a run, the last step evaluated."""
    made: list[dict[str, Any]] = [{"iteration": i, "loss": loss, "grad_norm": norm} for i, loss in enumerate(losses, 1)]
    return [*made, {"iteration": len(losses), "validation/loss": 5.0, "validation/perplexity": 148.4}]


def tensors(*moments: float) -> dict[int, dict[str, float]]:
    return {iteration: {WEIGHT: 0.0, MOMENT: moment} for iteration, moment in enumerate(moments, 1)}


def text_of(lines: list[Line] | Line) -> str:
    whole = lines if isinstance(lines, list) and lines and isinstance(lines[0], list) else [lines]
    return "\n".join("".join(text for text, _ in line) for line in whole)  # type: ignore[misc]


def test_runs_within_the_tolerance_are_equal() -> None:
    steps = steps_of(records(6.0, 5.0), records(6.0, 5.0 * (1 + 1e-7)), tensors(0.0, 4e-7), iterations=2)
    assert first_difference(steps) is None
    assert text_of(verdict(steps)) == "equal: 2 steps and 2 tensors agree to 4.0e-07; fp32 allows 1e-05 (relative)"
    assert {found.kind for found in largest_deviations(steps)} == {
        *("loss", "gradient norm", "validation loss", "weights", "first moments")
    }


def test_the_first_differing_step_and_its_worst_tensor_are_named() -> None:
    steps = steps_of(records(6.0, 5.1, 4.0), records(6.0, 5.0, 4.5), tensors(0.0, 0.5, 0.9), iterations=3)
    assert text_of(verdict(steps)) == (
        f"NOT EQUAL: first differing step 2, tensor {MOMENT} deviates by 5.0e-01 (1 of 2 deviate; so does loss); allowed is 1e-05"
    )


def test_a_scalar_alone_makes_a_difference() -> None:
    steps = steps_of(records(6.0, norm=2.0), records(6.0, norm=2.1), tensors(0.0), iterations=1)
    assert text_of(verdict(steps)) == (
        "NOT EQUAL: first differing step 1, no tensor, gradient norm deviates by 4.8e-02; allowed is 1e-05"
    )


@pytest.mark.parametrize("value", ["nan", "inf", None])
def test_what_is_not_finite_is_not_equal(value: str | None) -> None:
    broken = [{"iteration": 1, "loss": value, "grad_norm": 1.0}]
    steps = steps_of(broken, broken, tensors(0.0), iterations=1)
    assert first_difference(steps) is steps[0]


def test_a_missing_step_or_checkpoint_is_not_equal() -> None:
    steps = steps_of(records(6.0, 5.0)[:1], records(6.0, 5.0), tensors(0.0, 0.0), iterations=2)
    assert first_difference(steps) is steps[1]
    steps = steps_of(records(6.0, 5.0), records(6.0, 5.0), tensors(0.0), iterations=2)
    assert first_difference(steps) is steps[1]


def test_a_deviation_is_relative_to_the_one_process() -> None:
    assert Pair(1.1, 1.0).deviation == pytest.approx(0.1)
    assert Pair(0.0, 0.0).deviation == 0.0
    assert Pair(0.5, 0.0).deviation == 0.5
    assert Pair(math.nan, 1.0).deviation == math.inf
    assert not Step(1, {"loss": Pair(1.0, 1.0)}, {WEIGHT: TOLERANCE}).differs()
    assert Step(1, {"loss": Pair(1.0, 1.0)}, {WEIGHT: TOLERANCE * 1.01}).differs()


def test_the_report_says_what_was_kept_left_out_and_changed(tmp_path: Path) -> None:
    compared = prepare(read_ymls([CONFIG]), tmp_path, processes=2).compared
    assert "tensor parallelism" in kept(compared)
    assert left_out(compared.full, compared.layout) == ["several pipeline stages"]
    shown = text_of(list(description(compared)))
    assert "several pipeline stages (all are kept with --processes 4)" in " ".join(shown.split())
    rows = {" ".join(line.split()[:2]): line.split()[2:] for line in shown.splitlines()[1:] if line.strip()}
    assert rows["pipeline stages"] == ["4", "1", "1"]
    assert rows["tensor ranks"] == ["2", "2", "1"]
    assert changed(compared.config)[0] == "fp32 in place of fp16"


def test_numbers_have_a_row_a_step_and_full_precision_goes_to_json(tmp_path: Path) -> None:
    compared = prepare(read_ymls([CONFIG]), tmp_path, processes=4).compared
    steps = steps_of(records(6.123456789123, 5.0), records(6.0, math.nan), tensors(0.0, math.inf), iterations=2)
    assert len([line for line in text_of(list(numbers(steps))).splitlines() if line.split()[:1] in (["1"], ["2"])]) == 2
    found = json.loads(json.dumps(record(["a.yml"], compared, steps), allow_nan=False))
    assert found["equal"] is False
    assert (found["first_differing_step"], found["steps"][1]["tensors"][MOMENT]) == (1, "inf")
    assert found["steps"][0]["scalars"]["loss"]["layout"] == 6.123456789123


@pytest.mark.parametrize(
    "words", [[], ["a.yml", "--processes", "0"], ["a.yml", "--processes", "two"], ["a.yml", "--jsn", "x"]]
)
def test_a_wrong_command_line_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_parity_args(words)
    assert caught.value.code == 2
    assert "deepy.py parity: error: " in capsys.readouterr().err


def test_a_mistake_in_the_config_is_told() -> None:
    with pytest.raises(ConfigError, match="ZeRO 2 and 3 do not work with more than one pipeline stage"):
        main([CONFIG, "zero_optimization.stage=3"])


def test_what_is_not_built_is_refused_in_the_words_of_a_run() -> None:
    with pytest.raises(ConfigError, match="mixture of experts is not supported yet"):
        main([CONFIG, "moe_num_experts=8"])


def test_a_file_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    for file, problem in (
        (tmp_path / "nowhere" / "out.json", "its directory does not exist"),
        (tmp_path, "it is a directory"),
    ):
        with pytest.raises(NeoXError, match=problem):
            main([CONFIG, "--json", str(file)])


def test_a_directory_that_exists_is_not_written_to(tmp_path: Path) -> None:
    with pytest.raises(NeoXError, match="--keep takes a new directory"):
        main([CONFIG, "--keep", str(tmp_path)])


def test_a_config_that_cannot_be_run_leaves_no_directory_in_the_way_of_the_corrected_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        main([CONFIG, "num_layers=-4", "--keep", str(tmp_path / "kept")])
    assert not (tmp_path / "kept").exists()


def test_nowhere_to_put_the_runs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(NeoXError, match="set TMPDIR to one, or give --keep"):
        main([CONFIG])

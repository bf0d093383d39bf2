"""Mistakes in a config are told at once, all of them, before anything starts."""

from __future__ import annotations

import itertools
import resource
from pathlib import Path

from tests.end_to_end.runs import run_deepy, write_config


def processor_seconds() -> float:
    """Processor time of finished child processes: what a user waits on a machine that has nothing else to do."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def excerpts(printed: str) -> list[tuple[str, str]]:
    """The lines of the config that are shown, each with the carets below it."""
    lines = printed.splitlines()
    return [
        (above, below) for above, below in itertools.pairwise(lines) if set(below.partition("|")[2].strip()) == {"^"}
    ]


def test_three_mistakes_give_three_errors_with_their_lines_in_under_a_second(tmp_path: Path) -> None:
    config = write_config(tmp_path, tmp_path / "absent")
    lines = config.read_text().splitlines()
    lines += [
        "numm_layers: 3",
        "zero_optimization: {stage: 3}",
        "pipe_parallel_size: 2",
        "num_gpus: 2",
        "train_iters: ten",
    ]
    config.write_text("\n".join(lines) + "\n")
    started = processor_seconds()
    run = run_deepy(tmp_path, "train.py", config)
    seconds = processor_seconds() - started

    errors = [line for line in run.printed.splitlines() if line.startswith("error: ")]
    assert run.exit_code == 1
    assert len(errors) == 3, run.printed
    (unknown,) = (line for line in errors if "numm_layers" in line)
    assert "num_layers" in unknown.split("numm_layers", 1)[1]
    assert f"{config}:{lines.index('numm_layers: 3') + 1}" in unknown
    (wrong_type,) = (line for line in errors if '"train_iters"' in line)
    assert f"{config}:{lines.index('train_iters: ten') + 1}" in wrong_type
    (combination,) = (line for line in errors if "pipe_parallel_size" in line)
    assert "stage" in combination
    assert f"{config}:{lines.index('pipe_parallel_size: 2') + 1}" in combination
    assert "Traceback" not in run.printed
    underlined = {below[above.index("|") :].count("^") for above, below in excerpts(run.printed)}
    assert underlined == {len("numm_layers"), len("3"), len("2"), len("ten")}
    assert not (tmp_path / "logs").exists()
    assert seconds < 1, f"took {seconds:.2f} s"

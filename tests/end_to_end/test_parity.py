"""`deepy.py parity` with real runs: equal where they are, and not where ranks have a mistake."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.end_to_end.runs import ON_CPU, run_deepy, start_deepy

PYTHIA = REPOSITORY / "configs" / "pythia" / "410M.yml"

NO_GRADIENTS_OF_NORMS = """
import os

if os.environ.get("RANK") == "1":
    from megatron.model.norms.base import Norm

    Norm._shared = lambda norm, parameter: parameter.detach() + 0 * parameter
"""
"""Python's hook for the start of an interpreter: gradients of norms are 0 in the second copy of the model."""


def test_a_pipeline_of_tensor_ranks_has_the_numbers_of_one_process(tmp_path: Path) -> None:
    layout = ("pipe_parallel_size=2", "model_parallel_size=2", "hidden_dropout=0.1", "attention_dropout=0.1")
    kept, output = tmp_path / "kept", tmp_path / "out.json"
    done = run_deepy(tmp_path, "parity", PYTHIA, *layout, "--json", output, "--keep", kept)
    assert done.exit_code == 0, done.printed
    assert re.search(r"^equal: 4 steps and \d+ tensors agree to ", done.printed, flags=re.MULTILINE)
    found = json.loads(output.read_text())
    assert found["equal"] is True
    assert [found["runs"][name]["processes"] for name in ("layout", "one process")] == [4, 1]
    assert len(found["steps"]) == 4
    for step in found["steps"]:
        assert {"2.mlp.linear1.weight/weight", "2.mlp.linear1.weight/exp_avg_sq"} <= set(step["tensors"])
    for name in ("layout", "one_process"):
        records = map(json.loads, (kept / name / "logs" / "metrics.jsonl").read_text().splitlines())
        losses = [record["loss"] for record in records if "loss" in record]
        assert losses == [step["scalars"]["loss"][name] for step in found["steps"]]


def test_a_mistake_in_a_copy_of_the_model_is_found_and_named(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_GRADIENTS_OF_NORMS)
    environment = {**ON_CPU, "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    # Without clipping, which scales them all, the gradients of other tensors are right.
    words = ("zero_optimization.stage=1", "gradient_clipping=0", "global_num_gpus=2")
    done = run_deepy(tmp_path, "parity", PYTHIA, *words, environment=environment)
    assert done.exit_code == 1, done.printed
    verdict = done.printed.splitlines()[-1]
    found = re.match(r"NOT EQUAL: first differing step 1, tensor (\S+) deviates .* \((\d+) of (\d+) deviate", verdict)
    assert found, done.printed
    assert "norm" in found[1]
    assert 0 < int(found[2]) < int(found[3]) / 2
    assert not list(tmp_path.glob("parity-*"))


def test_ctrl_c_leaves_nothing_running_and_nothing_behind(tmp_path: Path) -> None:
    environment = {**ON_CPU, "TMPDIR": str(tmp_path)}
    with start_deepy("parity", PYTHIA, environment=environment) as process:
        try:
            while not any(b"\0RANK=" in environment for environment in environments(tmp_path)):
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            printed, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, printed
    assert "interrupted: nothing is left running" in printed
    assert not list(tmp_path.glob("parity-*"))
    assert not environments(tmp_path)


def environments(temporary: Path) -> list[bytes]:
    """Those of the processes that have this directory for temporary files."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return [environment for environment in found if f"TMPDIR={temporary}\0".encode() in environment]

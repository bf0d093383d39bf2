"""The benchmark of checkpoints runs on a small case, and its report names no directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_and_the_report_are_written(tmp_path: Path) -> None:
    output, scratch = tmp_path / "report.json", tmp_path / "scratch"
    scratch.mkdir()
    words = ["--megabytes", "4", "--rounds", "1", "--directory", str(scratch), "--output", str(output), "--check"]
    script = ROOT / "tools/benchmark/checkpoint.py"
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    assert "total / raw" in done.stdout, done.stderr
    report = json.loads(output.read_text(encoding="utf-8"))
    assert [case["processes"] for case in report["cases"]] == [1, 2]
    verdicts = []
    for case in report["cases"]:
        (measured,) = case["rounds"]
        assert 3e6 < case["state_bytes"] < 5e6
        assert measured["raw"]["disk_bytes"] == case["state_bytes"]
        for way in ("torch.save", "safetensors", "dcp", "ours"):
            assert case["state_bytes"] < measured[way]["disk_bytes"] < 2 * case["state_bytes"]
            assert measured[way]["read_seconds"] > 0
        both = measured["ours"]["disk_bytes"], measured["ours, asynchronous"]["disk_bytes"]
        assert abs(both[0] - both[1]) < 1000  # the directory's name is in a file
        verdicts += [target["median"] <= target["target"] for target in case["targets"]]
    assert done.stdout.count("PASS") == verdicts.count(True)
    assert done.stdout.count("FAIL") == verdicts.count(False)
    assert done.returncode == (0 if all(verdicts) else 1)
    assert str(tmp_path) not in output.read_text(encoding="utf-8")
    assert not list(scratch.iterdir())

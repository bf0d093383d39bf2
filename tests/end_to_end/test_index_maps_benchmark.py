"""The benchmark of index maps runs on a small case, and its report names no machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_and_the_report_are_written(tmp_path):
    output = tmp_path / "report.json"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ["--documents", "2e4", "--blend", "3e4", "--directory", str(scratch), "--output", str(output)]
    script = ROOT / "tools/benchmark/index_maps.py"
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "documents/s" in done.stdout
    report = json.loads(output.read_text(encoding="utf-8"))
    (case,) = report["maps"]
    assert case["documents"] == 20_000
    assert case["samples"] == (case["tokens"] - 1) // 2048
    assert 0 < case["cpu_seconds"] < 60
    assert case["warm_start_seconds"] > 0
    assert report["blends"][0]["samples"] == 30_000
    assert str(tmp_path) not in output.read_text(encoding="utf-8")
    assert not list(scratch.iterdir())

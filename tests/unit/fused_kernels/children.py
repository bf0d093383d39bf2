"""Programs of this folder, run as processes of their own, and what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]


def lines_of(module: str, **environment: str) -> list[dict[str, Any]]:
    """The lines of JSON that `python -m module` prints with these variables added, among which Triton's are the only ones of theirs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    finished = subprocess.run(
        [sys.executable, "-m", f"tests.unit.fused_kernels.{module}"],
        cwd=REPOSITORY,
        env=kept | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]

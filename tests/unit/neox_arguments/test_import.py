from __future__ import annotations

import subprocess
import sys

from tests.conftest import REPOSITORY

PROGRAM = """
import sys, time
start = time.process_time()
import megatron.neox_arguments, megatron.neox_arguments.explaining.describe, megatron.neox_arguments.deepspeed_config
print(time.process_time() - start, sorted({"torch", "deepspeed", "numpy"} & set(sys.modules)))
"""


def test_the_configuration_imports_quickly_and_without_torch() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    seconds, heavy = run.stdout.split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert float(seconds) < 1.5

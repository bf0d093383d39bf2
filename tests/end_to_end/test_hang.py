"""A rank that stands still is named, and the run is ended, with nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from tests.end_to_end.runs import start_deepy, write_config
from tests.end_to_end.test_resume import descendants, process_of_rank, wait_for_iteration

TIMEOUT = 5.0
PATIENCE = 90.0
"""Seconds beyond it in which ranks hear each other (2), those that do not answer are ended (5), and a busy machine gets round to it."""

WHERE = r"(computing iteration \d+|reading the batch of iteration \d+|between iterations \d+ and \d+)"
"""What a rank may be doing at a random moment: steps of this model are so short that stopping one finds the others at the exchange before a step, too."""


def test_a_stopped_rank_is_named_and_the_run_ends(tmp_path: Path, small_data: Path) -> None:
    settings = {"train_iters": 100_000, "num_gpus": 2, "step_timeout": TIMEOUT}
    process = start_deepy("train.py", write_config(tmp_path / "run", small_data, **settings))
    wait_for_iteration(tmp_path / "run", 10, process)
    family = [process.pid, *descendants(process.pid)]
    os.kill(process_of_rank(process.pid, 1), signal.SIGSTOP)
    stopped = time.monotonic()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed
    assert TIMEOUT <= time.monotonic() - stopped < TIMEOUT + PATIENCE

    assert re.search(rf"rank 0 has been {WHERE} ", printed), printed
    assert 'File "' in printed.partition("its threads are in:")[2]
    cause = printed[printed.rindex("error") :]
    assert cause.startswith(
        "error (rank 0): the run hangs: no step was finished in the time it may take (step_timeout is 5 s). Rank 1 "
    )
    assert re.search(rf"Rank 1 does not answer: it was stopped, or its machine is gone; last it was {WHERE}", cause), (
        cause
    )
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)

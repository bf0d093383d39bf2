"""A run of two processes is killed by SIGKILL at twenty random moments and started again each time: nothing of it shows in the end.

The moments are drawn with a seed, printed with the table of what happened (`pytest -s`): KILLS_SEED repeats them.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron.data.indexed_dataset import IndexedDatasetWriter
from tests.distributed.kills.launch import Launch, free_port
from tests.distributed.kills.moments import PLACES, STEP, TIME, Moment, draw
from tests.distributed.kills.result import Result, check_same, newest, result_of, resumed_from, seeded
from tests.distributed.kills.table import Kill, table

ITERATIONS = 72
SAVED_EVERY = 2
STEPS_OF_A_LAUNCH = 6
"""How far a launch that is killed at any moment may come."""
CONFIG = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "seq_length": 8,
    "max_position_embeddings": 8,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "train_batch_size": 4,
    "train_iters": ITERATIONS,
    "lr": 1e-2,
    "split": "90,10,0",
    "eval_interval": 10,
    "eval_iters": 1,
    "num_workers": 0,
    "tokenizer_type": "CharLevelTokenizer",
    "checkpoint_factor": SAVED_EVERY,
    "keep_last_n_checkpoints": 2,
    "global_num_gpus": 2,
    "zero_optimization": {"stage": 1},
    "log_interval": 1,
    "load_if_exists": True,
}


def config_in(directory: Path, **changes: Any) -> dict[str, Any]:
    checkpoints = str(directory / "checkpoints")
    places = {"data_path": str(directory / "data"), "log_dir": str(directory), "save": checkpoints, "load": checkpoints}
    return {**CONFIG, **places, **changes}


def write_data(directory: Path) -> Path:
    directory.mkdir()
    generator = np.random.default_rng(0)
    with IndexedDatasetWriter(directory / "data", dtype=np.uint16) as writer:
        for _ in range(200):
            writer.add_document(generator.integers(0, 100, size=20))
    return directory


def trained(directory: Path, **changes: Any) -> float:
    """Train in a new directory without a disturbance; the seconds it takes."""
    write_data(directory)
    ended = Launch(config_in(directory, **changes), free_port(), directory / "printed").run()
    assert ended.codes == [0, 0], ended.printed
    return ended.seconds


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, float]:
    """The run that nothing disturbs, and how many seconds it takes from its start to the end of a few steps."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    trained(directory / "run")
    return result_of(directory / "run"), trained(directory / "beginning", train_iters=STEPS_OF_A_LAUNCH)


def killed_at(moment: Moment, directory: Path, number: int, port: int, **changes: Any) -> Kill:
    """Start the run and kill it."""
    before = newest(directory)
    ended = Launch(config_in(directory, **changes), port, directory / "printed" / str(number), moment).run()
    died = [code == -signal.SIGKILL for code in ended.codes]
    told = f"{moment}: exit codes {ended.codes}\n{ended.printed}"
    assert died == [not moment.alone or rank == moment.rank for rank in (0, 1)], told
    assert all(code != 0 for code in ended.codes), told
    after = newest(directory)
    assert after >= before, f"{moment}: the newest checkpoint was {before} and is {after} now"
    if number % 2 and (directory / "metrics.jsonl").exists():
        with (directory / "metrics.jsonl").open("a") as file:
            file.write('{"iteration": 1, "lo')  # so it looks when a kill comes in the middle of a line
    return Kill(
        number,
        str(moment),
        ended.doing or "starting",
        resumed_from(ended.printed),
        ended.survived_seconds,
        ended.seconds,
    )


@pytest.mark.parametrize("async_save", [False, True], ids=["saving", "saving_beside_training"])
def test_a_run_killed_twenty_times_ends_as_one_that_never_was(
    memory: Path, uninterrupted: tuple[Result, float], async_save: bool
) -> None:
    expected, seconds = uninterrupted
    directory = write_data(memory / "run")
    moments = draw(seeded(), seconds=seconds, steps=STEPS_OF_A_LAUNCH)
    assert len(moments) == 20
    assert {moment.place for moment in moments} == {*PLACES, TIME, STEP}
    port = free_port()
    kills: list[Kill] = []
    try:
        for number, moment in enumerate(moments, start=1):
            kills.append(killed_at(moment, directory, number, port, async_save=async_save))
    finally:
        print(table(kills))
    ended = Launch(config_in(directory, async_save=async_save), port, directory / "printed" / "last").run()
    assert ended.codes == [0, 0], ended.printed
    check_same(result_of(directory), expected)


@pytest.mark.parametrize(
    "place", ["naming the checkpoint", "pointing latest at it", "pruning", "deleting the pruned one"]
)
def test_a_run_killed_in_its_last_save_is_completed_by_the_next_start(memory: Path, place: str) -> None:
    steps = 3 * SAVED_EVERY
    trained(memory / "expected", train_iters=steps)
    expected = result_of(memory / "expected")
    directory = write_data(memory / "run")
    saves = (
        1 if place in ("pruning", "deleting the pruned one") else 3
    )  # the third one is the first to make one superfluous
    killed = Launch(
        config_in(directory, train_iters=steps), free_port(), directory / "printed" / "1", Moment(place, saves)
    )
    assert killed.run().codes[0] == -signal.SIGKILL  # the other rank has nothing left to do once all is saved
    ended = Launch(config_in(directory, train_iters=steps), free_port(), directory / "printed" / "last").run()
    assert ended.codes == [0, 0], ended.printed
    check_same(result_of(directory), expected)

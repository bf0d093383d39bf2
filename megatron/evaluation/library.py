"""lm-eval, imported only when it is needed, and kept quiet: what concerns the user comes through our log."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import torch

from megatron.errors import MissingRequirement

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # `datasets` would count downloads at the Hub
    "DISABLE_MULTIPROC": "1",  # or standard errors are drawn in forks of a process that has threads and a GPU
}
"""What the libraries are told where the user has not."""


def task_library() -> ModuleType:
    """`lm_eval.tasks`. Raises MissingRequirement when lm-eval is not installed."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import lm_eval.tasks
    except ModuleNotFoundError as error:
        raise MissingRequirement(
            f'evaluation needs the package "{error.name}": pip install -r requirements/requirements-lm-eval.txt'
        ) from error
    library: ModuleType = lm_eval.tasks
    return library


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Meanwhile nothing is printed by libraries, nor drawn as a bar. The log goes on, as its handler holds its stream."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Meanwhile every global source of random numbers begins at its seed; afterwards all go on where they were.

    lm-eval gives 0 to Python's own, and 1234 to the others.
    """
    ours, numpys, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    random.seed(0)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
        torch.set_rng_state(torchs)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def one_line(error: BaseException) -> str:
    """What an exception of a library says, in one line that ends without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = (lines[0] if lines else "").rstrip(".")
    return said if isinstance(error, OSError) and said else f"{type(error).__name__}{': ' if said else ''}{said}"

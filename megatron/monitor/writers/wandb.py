"""Weights & Biases: every number of a record by iteration, the resolved configuration, one run however often it is resumed.

Nothing here stops or slows training. Without a login, or when the server cannot be reached, the run is recorded in `log_dir`, as with
WANDB_MODE=offline, to be uploaded by `wandb sync`; while training, W&B sends from a process of its own. The variables of W&B
(WANDB_API_KEY, WANDB_MODE, WANDB_DIR, WANDB_RUN_ID, ...) keep their meaning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from megatron.log import get_logger
from megatron.monitor.writers.base import FIRST, Process, failures_end_the_writer, first_line, scalars
from megatron.monitor.writers.run_id import run_id
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.keys.monitoring import MonitoringArgs

logger = get_logger(__name__)

START_SECONDS = 20.0
"""How long the start of a run may wait for the server."""

END_SECONDS = 30.0
"""How long its end may: what is not sent then stays on disk."""


class WandbWriter:
    """Writes the names that TensorBoard shows, with the iteration as the step. Raises WriterFailed when not even files can be written."""

    def __init__(self, args: NeoXArgs, process: Process = FIRST) -> None:
        with failures_end_the_writer():
            self._run = start_run(args, process)
            # The server takes no step twice. What is trained again after a crash is the same again.
            self._first_iteration: int = self._run.step

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        if iteration < self._first_iteration:
            return
        with failures_end_the_writer():
            self._run.log(scalars(record), step=iteration)

    def close(self, *, failed: bool = False) -> None:
        with failures_end_the_writer():
            self._run.finish(exit_code=int(failed))
            wandb.teardown(exit_code=int(failed))  # waits until W&B's own process has written everything


def start_run(args: NeoXArgs, process: Process) -> Any:
    """The W&B run of this process: online when the environment allows it and that works, else offline."""
    session = wandb.setup(settings=_settings(args))
    facts = _facts(args, process)
    reason = None
    if session.settings.mode in ("offline", "dryrun", "disabled"):
        run = wandb.init(**facts)
    else:
        run, reason = _start_online(args, facts, resumed=process.resumed)
    if process.rank == 0:
        _tell(run, reason)
    return run


def _start_online(args: NeoXArgs, facts: Mapping[str, Any], *, resumed: bool) -> tuple[Any, str | None]:
    """The run, and why it is offline when it is."""
    try:
        # Asked before, because `init` would ask for a login at the terminal.
        if wandb.login(host=_host(args), prompt=False, verify=False):
            return wandb.init(**facts, resume="allow" if resumed else None), None
        reason = "nobody is logged in: run wandb login, or set WANDB_API_KEY"
    except Exception as error:
        reason = first_line(error)
    wandb.teardown(exit_code=1)  # the failed attempt holds the id
    wandb.setup(settings=_settings(args))
    return wandb.init(**facts, mode="offline"), reason


def _tell(run: Any, reason: str | None) -> None:
    if run.disabled:
        return
    if run.offline:
        where = f"metrics are recorded in {run.settings.sync_dir}; upload them with: wandb sync {run.settings.sync_dir}"
        if reason is None:
            logger.info("Weights & Biases is offline: %s", where)
        else:
            logger.warning("Weights & Biases cannot be used now (%s): %s", reason, where)
    else:
        logger.info("metrics at Weights & Biases: %s", run.url)


def _facts(args: NeoXArgs, process: Process) -> dict[str, Any]:
    """What `wandb.init` is told, whatever the mode."""
    directory = os.environ.get("WANDB_DIR") or args.log_dir
    Path(directory).mkdir(parents=True, exist_ok=True)  # W&B would take another one
    name = args.wandb_run_name
    if name and args.wandb_init_all_ranks:
        name = f"{name}-rank{process.rank}"
    return {
        "project": args.wandb_project,
        "entity": args.wandb_team,
        "group": args.wandb_group or (args.wandb_run_name if args.wandb_init_all_ranks else None),
        "name": name,
        "id": None if "WANDB_RUN_ID" in os.environ else run_id(args, process, service="wandb"),
        "dir": directory,
        "config": args.model_dump(mode="json", exclude_none=True),
        "save_code": False,
        "settings": _settings(args),
    }


def _settings(args: MonitoringArgs) -> wandb.Settings:
    # Its own output would tear the progress display, and capturing ours would make every print wait for it.
    host = {} if (url := _host(args)) is None else {"base_url": url}
    return wandb.Settings(silent=True, console="off", init_timeout=START_SECONDS, finish_timeout=END_SECONDS, **host)


def _host(args: MonitoringArgs) -> str | None:
    """The configured server; None for the default, which WANDB_BASE_URL may replace."""
    default = MonitoringArgs.model_fields["wandb_host"].default
    return None if args.wandb_host == default else args.wandb_host

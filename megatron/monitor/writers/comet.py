"""Comet: every number of a record by iteration, the resolved configuration, one experiment however often the run is resumed.

Nothing here stops or slows training. Without an API key, or when the server cannot be reached, the experiment is recorded in
`<log_dir>/comet`, as with COMET_START_ONLINE=false, to be uploaded by `comet upload`. The variables of Comet (COMET_API_KEY,
COMET_START_ONLINE, COMET_OFFLINE_DIRECTORY, COMET_EXPERIMENT_KEY, ...) keep their meaning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.log import get_logger
from megatron.monitor.writers.base import FIRST, Process, failures_end_the_writer, first_line, scalars
from megatron.monitor.writers.run_id import run_id
from megatron.neox_arguments import NeoXArgs

DEFAULTS = {
    "COMET_DISABLE_AUTO_LOGGING": "1",  # it would replace functions of torch to find out what we tell it anyway
    "COMET_LOGGING_CONSOLE": "CRITICAL",  # what goes wrong is told here, in one line
    "COMET_GET_OR_ADD_EXPERIMENT_RETRY_TOTAL": "1",  # the start of a run waits for no more than that
    "COMET_TIMEOUT_CLEANING": "30",  # seconds that the end of a run may wait for the server; by default an hour,
    "COMET_TIMEOUT_UPLOAD": "30",  # and three
}
"""Settings of Comet's that it reads when it is imported; the user's come first."""

for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)

import comet_ml  # noqa: E402

logger = get_logger(__name__)
logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would warn of every attempt to reach the server


class CometWriter:
    """Writes the names that TensorBoard shows, with the iteration as the step. Raises WriterFailed when not even files can be written."""

    def __init__(self, args: NeoXArgs, process: Process = FIRST) -> None:
        with failures_end_the_writer():
            self._experiment = start_experiment(args, process)
            self._experiment.log_parameters(args.model_dump(mode="json", exclude_none=True))
            self._experiment.log_others(dict(args.comet_others or {}))

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        with failures_end_the_writer():
            self._experiment.log_metrics(scalars(record), step=iteration)

    def close(self, *, failed: bool = False) -> None:
        with failures_end_the_writer():
            self._experiment.log_other("exit_code", int(failed))
            self._experiment.end()


def start_experiment(args: NeoXArgs, process: Process) -> Any:
    """The Comet experiment of the run: online when the environment allows it and that works, else offline."""
    directory = os.environ.get("COMET_OFFLINE_DIRECTORY") or str(Path(args.log_dir) / "comet")
    facts = _facts(args, process, directory)
    Path(directory).mkdir(parents=True, exist_ok=True)
    where = f"metrics are recorded in {directory}; upload the archive that is there in the end with: comet upload"
    if comet_ml.get_config("comet.start.online") is False:
        logger.info("Comet is offline: %s", where)
        return comet_ml.start(**facts, online=False)
    try:
        if comet_ml.get_config("comet.api_key"):
            experiment = comet_ml.start(**facts, online=True)
            logger.info("metrics at Comet: %s", experiment.url)
            return experiment
        reason = "there is no API key: run comet login, or set COMET_API_KEY"
    except Exception as error:
        reason = first_line(error)
    logger.warning("Comet cannot be used now (%s): %s", reason, where)
    return comet_ml.start(**facts, online=False)


def _facts(args: NeoXArgs, process: Process, directory: str) -> dict[str, Any]:
    """What `comet_ml.start` is told, whatever the mode."""
    known = "COMET_EXPERIMENT_KEY" in os.environ
    return {
        "workspace": args.comet_workspace,
        "project_name": args.comet_project,
        "experiment_key": None if known else run_id(args, process, service="comet"),
        "mode": "get_or_create",
        "experiment_config": comet_ml.ExperimentConfig(
            name=args.comet_experiment_name,
            tags=list(args.comet_tags or ()),
            offline_directory=directory,
            log_code=False,
            parse_args=False,
            auto_output_logging=False,
            display_summary_level=0,
        ),
    }

"""Which environment variables of deepy.py reach the ranks on other machines, beside those that a file `.deepspeed_env` sets.

They are sent over the connection to the agents, so that no command line holds them. Those that speak of one machine stay at home: which
of its devices are visible, its directories, the place of a process among others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from megatron.errors import ConfigError
from megatron.launcher.agent.options import REPOSITORY

FORWARDED = (
    *("NCCL_*", "RCCL_*", "GLOO_*", "UCX_*", "UCC_*", "FI_*", "IBV_*", "MV2_*", "MVP_*"),  # how machines talk
    *(
        "CUDA_*",
        "HIP_*",
        "HSA_*",
        "ROCR_*",
        "MIOPEN_*",
        "TRITON_*",
        "NVTE_*",
        "FLASH_ATTENTION_*",
    ),  # how devices compute
    *("OMP_*", "KMP_*", "GOMP_*", "MKL_*", "OPENBLAS_*", "MALLOC_*"),  # how cores compute
    *(
        "TORCH_*",
        "TORCHINDUCTOR_*",
        "PYTORCH_*",
        "DS_*",
        "DEEPSPEED_*",
        "PYTHON*",
        "LD_LIBRARY_PATH",
    ),  # how programs run
    *(
        "HF_*",
        "TRANSFORMERS_*",
        "TOKENIZERS_*",
        "WANDB_*",
        "COMET_*",
        "MLFLOW*",
        "AWS_*",
        "GOOGLE_*",
    ),  # other services, and the way to them
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"),
)
"""Patterns of names, as the shell matches file names."""

AT_HOME = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "PYTHONHOME",
    "PYTHONPATH",
    "DS_ENV_FILE",
)
"""Not forwarded by the patterns above, though they match."""

FILE_NAME = ".deepspeed_env"


def forwarded(environment: Mapping[str, str], patterns: Sequence[str] = ()) -> dict[str, str]:
    """The variables of `environment` for ranks on other machines. patterns: of names, beyond `FORWARDED`; they may name those `AT_HOME`.

    CUDA_VISIBLE_DEVICES="" asks for the CPU, which every machine has, and is forwarded. PYTHONPATH comes after our own package.
    """
    chosen = {
        name: value
        for name, value in environment.items()
        if _matches(name, patterns) or (name not in AT_HOME and _matches(name, FORWARDED))
    }
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        chosen["CUDA_VISIBLE_DEVICES"] = ""
    if environment.get("PYTHONPATH"):
        chosen["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment["PYTHONPATH"]])
    return chosen


def remote_environment(
    environment: Mapping[str, str],
    patterns: Sequence[str] = (),
    *,
    directory: Path | None = None,
    home: Path | None = None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables for the ranks on other machines, and notes on those that come from a file, which wins.

    directory, home: where the file is looked for (default: the working directory, the user's). Raises ConfigError for its mistakes.
    """
    variables = forwarded(environment, patterns)
    path = _find_file(environment, directory or Path.cwd(), home or Path.home())
    if path is None:
        return variables, ()
    added = read_environment_file(path)
    note = f"environment: {', '.join(added) or 'nothing'} from {path}, for every rank"
    return {**variables, **added}, (note,)


def read_environment_file(path: Path) -> dict[str, str]:
    """`NAME=VALUE` lines; empty ones and those with `#` first say nothing. Raises ConfigError with file:line for others."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [f'the file of environment variables "{path}" cannot be read ({error}): correct or remove it']
        ) from None
    variables, problems = {}, []
    for number, line in enumerate(map(str.strip, lines), start=1):
        name, equals, value = line.removeprefix("export ").partition("=")
        if not line or line.startswith("#"):
            continue
        if equals and re.fullmatch(r"[A-Za-z_]\w*", name.strip()):
            variables[name.strip()] = value
        else:
            problems.append(f'{path}:{number}: "{line}" sets no environment variable; write NAME=VALUE')
    if problems:
        raise ConfigError(problems)
    return variables


def _find_file(environment: Mapping[str, str], directory: Path, home: Path) -> Path | None:
    """The file that DS_ENV_FILE names, else `.deepspeed_env` here, else in the home directory."""
    named = environment.get("DS_ENV_FILE")
    places = [directory / (named or FILE_NAME), home / (named or FILE_NAME)]
    found = next((path for path in places if path.is_file()), None)
    if named and found is None:
        raise ConfigError(
            [f'the file "{named}", which DS_ENV_FILE names, does not exist: correct or unset DS_ENV_FILE']
        )
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

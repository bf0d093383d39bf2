"""Published configurations, corrected, and made complete: with the files they are meant to be combined with."""

from __future__ import annotations

import copy
from typing import Any

Zoo = dict[str, dict[str, Any]]


def corrected(name: str, zoo: Zoo) -> dict[str, Any]:
    """A published file without the one value in them that is no number: an eps of "1.0e_8"."""
    config = copy.deepcopy(zoo[name])
    if name == "configs/gmlp_small.yml":
        config["optimizer"]["params"]["eps"] = 1e-8
    return config


def complete_published(name: str, zoo: Zoo) -> dict[str, Any]:
    """A published file with what it is meant to be combined with, and without the places of its authors' machines."""
    config = corrected(name, zoo)
    if "num_layers" not in config:
        config = {**zoo["configs/125M.yml"], **config}
    if "train_iters" not in config:
        config = {**zoo["configs/llama/train_config.yml"], **config}
    config.pop("hostfile", None)
    config.pop("global_num_gpus", None)
    return {**config, "load_if_exists": True}

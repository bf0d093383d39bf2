"""Published configurations made complete: with the files they are meant to be combined with."""

from __future__ import annotations

import copy
from typing import Any

Zoo = dict[str, dict[str, Any]]


def complete_published(name: str, zoo: Zoo) -> dict[str, Any]:
    """A published file with what it is meant to be combined with, and without the places of its authors' machines."""
    config = copy.deepcopy(zoo[name])
    if "num_layers" not in config:
        config = {**zoo["configs/125M.yml"], **config}
    if "train_iters" not in config:
        config = {**zoo["configs/llama/train_config.yml"], **config}
    if name == "configs/gmlp_small.yml":
        config["optimizer"]["params"]["eps"] = 1e-8  # "1.0e_8" in the published file
    config.pop("hostfile", None)
    config.pop("global_num_gpus", None)
    return {**config, "load_if_exists": True}

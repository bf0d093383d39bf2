"""What text is generated from, and where it ends."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

GENERATES = "generate.py"


def check_stop_strings(args: Draft) -> None:
    """A stop string has characters: an empty one would stand at the beginning of every text."""
    if "" in args.stop_strings:
        raise Conflict(
            (args.source.find("stop_strings", ""),), "an empty text stands everywhere; remove it, or give characters"
        )


def check_prompts_are_named(args: Draft) -> None:
    """Prompts of a file have a file, and one that is named is read."""
    if args.text_gen_type == "input-file" and args.sample_input_file is None:
        raise Conflict(
            ("text_gen_type", "sample_input_file"),
            "prompts are read from a file; name it in sample_input_file (-i FILE), or set text_gen_type to unconditional",
        )


def check_model_is_named(args: Draft) -> None:
    """What generates has a model (checked when text is generated)."""
    if args.user_script == GENERATES and args.load is None:
        raise Conflict(("load",), "text is generated with a trained model; give the directory of its checkpoints")


def check_prompts_exist(args: Draft) -> None:
    """The file of prompts is there (checked when text is generated)."""
    path = args.sample_input_file
    if args.user_script != GENERATES or args.text_gen_type != "input-file" or path is None or os.path.isfile(path):
        return
    found = "it is a folder" if os.path.isdir(path) else "there is no such file"
    raise Conflict(("sample_input_file",), f"{found}; give a text file with one prompt a line")


def check_precomputed_has_a_name(args: Draft) -> None:
    """What is precomputed is stored under a name, with which files can be called."""
    name = args.precompute_model_name
    if name is None and args.text_gen_type == "precompute":
        raise Conflict(
            ("text_gen_type", "precompute_model_name"),
            "log-probabilities are stored beside each dataset under the name of the model; give precompute_model_name, e.g. base",
        )
    if name is not None and (not re.fullmatch(r"[\w.+-]+", name) or Path(name).suffix in (".bin", ".idx")):
        raise Conflict(
            ("precompute_model_name",),
            "it becomes part of the names of files (DATASET_NAME.bin and .idx); give a word of letters, digits, dots, - and _",
        )


def check_there_is_something_to_precompute(args: Draft) -> None:
    """Log-probabilities are those of datasets (checked when text is generated)."""
    keys = ("data_path", "train_data_paths", "valid_data_paths", "test_data_paths", "validation_sets")
    asked = args.user_script == GENERATES and args.text_gen_type == "precompute"
    if asked and not any(getattr(args, key) for key in keys):
        raise Conflict(
            ("text_gen_type", "data_path"),
            "log-probabilities are those of datasets; give data_path, train_data_paths or another key that names some",
        )


def check_a_person_is_heard(args: Draft) -> None:
    """What is typed reaches the ranks of this machine only (checked when text is generated)."""
    if args.user_script == GENERATES and args.text_gen_type == "interactive" and args.launcher != "local":
        raise Conflict(
            ("text_gen_type", "launcher"),
            "what is typed reaches ranks of this machine only; set launcher to local, or give prompts in a file (sample_input_file) and set "
            "text_gen_type to input-file",
        )

"""Where data comes from, and what lies beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.resolving.checks.run import needs_training_keys

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

PARTS = ("train", "valid", "test")


def check_one_data_source(args: Draft) -> None:
    """Data comes either from one dataset that is split, or from lists."""
    lists = [f"{part}_data_paths" for part in PARTS if getattr(args, f"{part}_data_paths") is not None]
    if args.data_path is not None and lists:
        raise Conflict(("data_path", *lists), "these are two ways to give data; keep data_path, or the lists")


def check_all_data_parts(args: Draft) -> None:
    """Lists of datasets are given for all three parts or for none; those of evaluations may be empty, which is said on purpose."""
    keys = [f"{part}_data_paths" for part in PARTS]
    given = [
        key for key in keys if getattr(args, key) or (getattr(args, key) is not None and key != "train_data_paths")
    ]
    missing = [key for key in keys if key not in given and not (key == "valid_data_paths" and args.validation_sets)]
    if missing and given:
        raise Conflict((*given, *missing), f"give {' and '.join(missing)} as well, or use data_path with split")


def check_data_is_given(args: Draft) -> None:
    """Training has data (checked when the training script is run)."""
    if (
        args.user_script
        and needs_training_keys(args)
        and not args.data_path
        and not args.train_data_paths
        and args.dataset_impl == "gpt2"
    ):
        raise Conflict(
            ("data_path", "train_data_paths"), "training needs data; give data_path, the prefix of a tokenised dataset"
        )


def check_weights_match_paths(args: Draft) -> None:
    """There is a weight for each dataset, and not all are 0."""
    for part in PARTS:
        key, paths = f"{part}_data_weights", getattr(args, f"{part}_data_paths")
        weights = getattr(args, key)
        if weights is None or not (weights or paths):
            continue
        if len(weights) != len(paths or ()):
            raise Conflict(
                (key, f"{part}_data_paths"),
                f"there {_count(len(weights), 'weight')} for {len(paths)} datasets; give one each"
                if paths
                else f"weights belong to lists of datasets; remove them, or give {part}_data_paths",
            )
        if min(weights) < 0 or sum(weights) <= 0:
            raise Conflict((key,), "weights must be at least 0, and one of them more; raise one")


def _count(number: int, noun: str) -> str:
    return f"is 1 {noun}" if number == 1 else f"are {number} {noun}s"


def check_companion_paths(args: Draft) -> None:
    """Label and reward datasets stand beside the datasets they belong to."""
    for part in PARTS:
        paths = getattr(args, f"{part}_data_paths") or ()
        for kind in ("label", "reward"):
            key = f"{part}_{kind}_data_paths"
            companions = getattr(args, key)
            if companions is None or len(companions) == len(paths):
                continue
            if args.data_path is not None:
                raise Conflict(
                    (key, "data_path"),
                    f"{kind} data stands beside lists of datasets; give train_data_paths, valid_data_paths and test_data_paths in "
                    "place of data_path",
                )
            fix = f"{len(paths)}, one for each dataset" if paths else f"{part}_data_paths with one dataset for each"
            raise Conflict((key, f"{part}_data_paths"), f"give {fix}")


def check_rewards_are_unpacked(args: Draft) -> None:
    """A reward belongs to a whole document, so documents may not be cut."""
    for part in PARTS:
        key = f"{part}_reward_data_paths"
        if getattr(args, key) is not None and args.pack_impl != "unpacked":
            raise Conflict((key, "pack_impl"), "rewards belong to whole documents; set pack_impl to unpacked")


def check_long_documents_can_be_left_out(args: Draft) -> None:
    """Only where documents stay whole can one be too long."""
    if not args.allow_chopped and args.pack_impl == "packed":
        raise Conflict(
            ("allow_chopped", "pack_impl"),
            "packed samples cut documents wherever a sample ends; set pack_impl to pack_until_overflow or unpacked, "
            "or allow_chopped to true",
        )


def check_split(args: Draft) -> None:
    """The split is up to three numbers, not all 0."""
    try:
        shares = [float(share) for share in args.split.replace("/", ",").split(",")]
    except ValueError:
        shares = []
    if not 1 <= len(shares) <= 3 or min(shares) < 0 or not 0 < sum(shares) < math.inf:
        raise Conflict(
            ("split",),
            'expected up to three numbers of at least 0, for train, validation and test; write them as in "969, 30, 1"',
        )

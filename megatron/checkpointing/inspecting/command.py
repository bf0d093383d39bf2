"""What inspect_checkpoint.py does: finds the checkpoint that is meant, and gives the lines to print and the exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from megatron.checkpointing.inspecting.contents import Contents, read_contents
from megatron.checkpointing.inspecting.lines import Line
from megatron.checkpointing.inspecting.listing import list_directory, listing_lines
from megatron.checkpointing.inspecting.names import select
from megatron.checkpointing.inspecting.output import output_file
from megatron.checkpointing.inspecting.page import (
    data_lines,
    provenance_lines,
    settings_lines,
    size_text,
    total_lines,
)
from megatron.checkpointing.inspecting.parser import DTYPES
from megatron.checkpointing.inspecting.report import (
    comparison_report,
    inspection_report,
    listing_report,
    to_json,
)
from megatron.checkpointing.inspecting.tree import kinds_of_state, tree
from megatron.checkpointing.inspecting.tree_page import tree_lines
from megatron.checkpointing.inspecting.verifying import problems_of
from megatron.checkpointing.layout import checkpoint_candidates, find_checkpoint
from megatron.checkpointing.places import place
from megatron.checkpointing.remote.reach import asking

if TYPE_CHECKING:
    from megatron.checkpointing.inspecting.tree import Measured

Show = Callable[[Iterable[Line]], None]
"""Prints lines."""


def run(args: argparse.Namespace, show: Show) -> int:
    """Do what the command line says; the exit status. Raises NeoXError for a user's mistake."""
    if args.compare is not None:
        return _compare(args, show)
    if args.verify:
        return _verify(args, show)
    if args.tensor is not None:
        return _tensors(args, show)
    if args.consolidate is not None:
        return _consolidate(args, show)
    return _inspect(args, show)


def _contents(path: str, iteration: int | None) -> Contents:
    """Of the checkpoint that loading from `path` would take. Raises CheckpointError, saying what is there, when there is none."""
    return read_contents(find_checkpoint(place(path), iteration=iteration))


def _inspect(args: argparse.Namespace, show: Show) -> int:
    contents = _contents(args.path, args.iteration)
    listing = None if contents.path == place(args.path) else list_directory(place(args.path))
    now = datetime.now(UTC)
    if not args.json:
        if listing is not None:
            show([*listing_lines(listing, chosen=contents.path, now=now), []])
        show([*provenance_lines(contents, now=now), *data_lines(contents), *settings_lines(contents), []])
    measured, digest = ({}, None) if args.no_values else _measured(contents, with_digest=args.digest)
    if args.json:
        listed = {} if listing is None else {"checkpoints": listing_report(listing)}
        show(_json({**inspection_report(contents, measured, digest), **listed}))
    else:
        kinds = kinds_of_state(contents.tensors)
        show([*tree_lines(tree(contents.tensors, measured), kinds), [], *total_lines(contents, digest)])
    return 0


def _measured(contents: Contents, *, with_digest: bool) -> tuple[Measured, str | None]:
    from megatron.checkpointing.inspecting.measuring import measure_all  # with torch, which takes long to import

    return measure_all(contents, with_digest=with_digest)


def _tensors(args: argparse.Namespace, show: Show) -> int:
    from megatron.checkpointing.inspecting.tensor_facts import tensor_facts, tensor_lines

    contents = _contents(args.path, args.iteration)
    names = select(args.tensor, list(contents.tensors), where=contents.path)
    if args.json:
        show(_json({"checkpoint": str(contents.path), "tensors": list(tensor_facts(contents, names))}))
        return 0
    for facts in tensor_facts(contents, names):
        show(tensor_lines(facts, contents.tensors[facts["name"]].elements))
    return 0


def _verify(args: argparse.Namespace, show: Show) -> int:
    directory = place(args.path)
    with asking(directory):
        candidates = sorted(checkpoint_candidates(directory, iteration=args.iteration))
    problems = {}
    for found in candidates:
        problems[str(found.path)] = wrong = list(problems_of(found.path))
        if not args.json:
            show([[(text, "red")] for text in wrong] or [[(f"{found.path}: every file is as it was written", "green")]])
    if args.json:
        show(_json(problems))
    return int(any(problems.values()))


def _compare(args: argparse.Namespace, show: Show) -> int:
    first, second = (_contents(path, args.iteration) for path in args.compare)
    from megatron.checkpointing.inspecting.difference_page import comparison_lines
    from megatron.checkpointing.inspecting.differences import compare_contents

    found = compare_contents(first, second)
    if args.json:
        paths = {"first": str(first.path), "second": str(second.path)}
        show(_json({**paths, **comparison_report(found, tolerance=args.tolerance)}))
    else:
        show(comparison_lines(found, first.path, second.path, tolerance=args.tolerance))
    return int(not found.is_equal(args.tolerance))


def _consolidate(args: argparse.Namespace, show: Show) -> int:
    output = output_file(args.consolidate, force=args.force)
    contents = _contents(args.path, args.iteration)
    from megatron.checkpointing.inspecting.consolidate import consolidate

    size = consolidate(contents, output, optimizer=args.optimizer, dtype=DTYPES.get(args.dtype))
    said = {"checkpoint": str(contents.path), "file": str(output), "bytes": size}
    if args.json:
        show(_json(said))
    else:
        show([[(f"wrote {output} from {contents.path}: {size_text(size)}, read back and equal to the bit", "")]])
    return 0


def _json(value: Any) -> list[Line]:
    return [[(to_json(value), "")]]

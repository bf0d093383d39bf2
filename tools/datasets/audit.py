"""Say which documents a step of a run read, or which steps read a document; from a checkpoint of the run and the data it was trained on.

    python tools/datasets/audit.py who runs/local/checkpoints --step 120
    python tools/datasets/audit.py when runs/local/checkpoints --doc 17

Steps count from 1, as in the log; those behind the checkpoint are the ones to come. Documents count from 0 in the dataset. Data that was
changed since is refused; for data that was moved: --data OLD=NEW.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command, say
from megatron.errors import DataError

if TYPE_CHECKING:
    from megatron.data.audit.facts import Decode
    from megatron.data.audit.segment import AuditedSegment, Moves
    from megatron.data.indexed_dataset import IndexedDataset
    from megatron.data.ledger.segments import Ledger
    from megatron.neox_arguments import NeoXArgs


def main() -> None:
    args = parse_arguments()
    args.run(args)


def who(args: argparse.Namespace) -> None:
    """Print the documents of a step."""
    from megatron.data.audit.facts import facts_of_sample
    from megatron.data.audit.page import lines_of_step
    from megatron.data.audit.segment import open_segment, segment_with

    checkpoint, settings, ledger, moves = open_checkpoint(args)
    segment, steps = segment_with(ledger, args.step - 1)
    if args.rank is not None and args.rank >= segment.topology.world_size:
        raise DataError(
            f"--rank {args.rank} is not there: step {args.step} has ranks 0 to {segment.topology.world_size - 1}."
        )
    audited = open_segment(settings, segment, steps, moves)
    decode = decoder(settings, moves) if args.text else None
    wanted = None if args.rank is None else segment.topology.coordinates(args.rank).data
    samples = [
        facts_of_sample(audited, read, decode)
        for read in audited.samples_of(args.step - 1)
        if wanted in (None, read.data_rank)
    ]
    if args.json:
        say(
            json.dumps(
                {
                    "checkpoint": str(checkpoint),
                    "step": args.step,
                    "done": args.step <= ledger.iteration,
                    "samples": samples,
                }
            )
        )
        return
    done = "read" if args.step <= ledger.iteration else "will read"
    say(f"step {args.step} {done} {len(samples)} samples, by {checkpoint}")
    say("\n".join(lines_of_step(samples, characters=args.text)))


def when(args: argparse.Namespace) -> None:
    """Print the steps of a document."""
    from megatron.data.audit.facts import facts_of_document, facts_of_reads
    from megatron.data.audit.page import lines_of_document
    from megatron.data.audit.search import reads_of
    from megatron.data.piece import Piece

    checkpoint, settings, ledger, moves = open_checkpoint(args)
    segments = open_segments(settings, ledger, moves)
    dataset = dataset_named(segments, args.source, moves)
    if args.doc >= len(dataset):
        raise DataError(f"--doc {args.doc} is not there: {dataset.prefix} has documents 0 to {len(dataset) - 1}.")
    found, place = [], None
    for audited in segments:
        numbers = [number for number, one in enumerate(audited.sources) if one.dataset.content == dataset.content]
        for number in numbers[:1]:
            place = place or facts_of_document(audited, Piece(audited.sources[number].dataset.prefix, args.doc, 0, 0))
        reads = [read for number in numbers for read in reads_of(audited, number, args.doc)]
        found.append((audited, sorted(reads, key=lambda read: read.sample)))
    assert place is not None, "some segment reads the dataset"
    facts = facts_of_reads(found, steps_made=ledger.iteration)
    if args.json:
        say(json.dumps({"checkpoint": str(checkpoint), **place, "reads": facts}))
    else:
        say("\n".join(lines_of_document(place, facts)))


def open_checkpoint(args: argparse.Namespace) -> tuple[Path, NeoXArgs, Ledger, Moves]:
    """The checkpoint, the configuration of its run, its ledger, and where data is that was moved."""
    from megatron.checkpointing.layout import find_checkpoint
    from megatron.checkpointing.settings import read_settings
    from megatron.data.audit.segment import Moves
    from megatron.data.ledger.segments import LEDGER, read_ledger

    checkpoint = find_checkpoint(args.checkpoint)
    ledger = read_ledger(checkpoint)
    if ledger is None:
        raise DataError(
            f"{checkpoint} does not say what it was trained on: it has no {LEDGER}, as it was saved by an older version."
        )
    return checkpoint, read_settings(checkpoint), ledger, Moves(tuple(args.data))


def open_segments(settings: NeoXArgs, ledger: Ledger, moves: Moves) -> list[AuditedSegment]:
    """All segments whose data is there as it was; a line about each of the others. Raises DataError when that is none."""
    from megatron.data.audit.segment import open_segment

    opened, error = [], None
    for segment, steps in ledger.stretches():
        try:
            opened.append(open_segment(settings, segment, steps, moves))
        except DataError as failure:
            error = failure
            if len(ledger.segments) > 1:
                print(f"steps {steps.start + 1} to {steps.stop} are left out: {error}", file=sys.stderr)
    if not opened and error is not None:
        raise error
    return opened


def dataset_named(segments: Sequence[AuditedSegment], name: str | None, moves: Moves) -> IndexedDataset:
    """The dataset that the user has named, by its path or its name; the only one without a name. Copies of it count as the same."""
    datasets = [source.dataset for audited in segments for source in audited.sources]
    named = datasets
    if name is not None:
        path = Path(moves.of(os.path.abspath(name)))
        named = [dataset for dataset in datasets if dataset.prefix == path] or [
            dataset for dataset in datasets if dataset.prefix.name == name
        ]
    if len({dataset.content for dataset in named}) == 1:
        return named[0]
    choice = " or ".join(str(dataset.prefix) for dataset in {one.content: one for one in named or datasets}.values())
    if not named:
        raise DataError(f"--source {name} is none of the datasets that the run is trained on; choose {choice}.")
    raise DataError(f"the run reads several datasets, so say whose document it is: --source {choice}.")


def decoder(settings: NeoXArgs, moves: Moves) -> Decode:
    """What makes text of tokens."""
    from megatron.tokenizer.build import build_tokenizer

    files = {key: path and moves.of(path) for key in ("vocab_file", "merge_file") if (path := getattr(settings, key))}
    try:
        return build_tokenizer(settings.model_copy(update=files)).detokenize
    except DataError as error:
        raise DataError(
            f"{error} If its files lie elsewhere now, say so: --data OLD=NEW; --text 0 goes without."
        ) from None


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="who|when")
    who_command = commands.add_parser("who", help="the documents of a step")
    who_command.set_defaults(run=who)
    when_command = commands.add_parser("when", help="the steps that read a document, or will")
    when_command.set_defaults(run=when)
    for command in (who_command, when_command):
        command.add_argument("checkpoint", help="a checkpoint, or a directory of checkpoints: its latest")
        command.add_argument("--data", type=move, action="append", default=[], metavar="OLD=NEW",
                             help="where a file or a directory is now; may be repeated")  # fmt: skip
        command.add_argument("--json", action="store_true", help="print JSON")
    who_command.add_argument(
        "--step", type=positive, required=True, metavar="N", help="number of the step, as in the log"
    )
    who_command.add_argument("--rank", type=natural, metavar="R", help="what this process read only")
    who_command.add_argument("--text", type=natural, default=160, metavar="N",
                             help="characters to show of each text, 0 for none (default: %(default)s)")  # fmt: skip
    when_command.add_argument(
        "--doc", type=natural, required=True, metavar="D", help="number of the document in its dataset"
    )
    when_command.add_argument("--source", metavar="PREFIX", help="its dataset, where the run reads several")
    return parser.parse_args(words)


def move(text: str) -> tuple[str, str]:
    """OLD=NEW as two paths."""
    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OLD=NEW")
    return old, new


def natural(text: str) -> int:
    """A whole number, 0 or above."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def positive(text: str) -> int:
    """A whole number above 0."""
    if natural(text) == 0:
        raise argparse.ArgumentTypeError("steps count from 1")
    return int(text)


if __name__ == "__main__":
    run_command(main)

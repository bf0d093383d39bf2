"""`deepy.py parity CONFIG...`: whether a config's layout gives the numbers of one process, tried with a tiny copy of it on this machine's CPU."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron.atomic import atomic_file
from megatron.cli.command_line import CommandLine
from megatron.cli.parity_configs import Runs, prepare
from megatron.cli.parity_report import description, numbers, record, verdict
from megatron.cli.parity_result import Step, first_difference, steps_of
from megatron.cli.parity_runs import compare_checkpoints, read_metrics, run_both
from megatron.cli.progress import progress
from megatron.cli.styled import plain, show_lines
from megatron.errors import ConfigError, NeoXError
from megatron.neox_arguments.explaining.rewrite import rewrite
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments
from megatron.neox_arguments.shrinking.comparable import in_directory

PROCESSES = 4
INTERRUPTED = 130


def main(argv: Sequence[str]) -> int:
    """Returns 0 when both runs are equal, 1 when they are not. Raises NeoXError for a config that cannot be run here; nothing has started then."""
    options = parse_parity_args(argv)
    _check_json(options.json)
    files, assignments = split_arguments(options.words)
    values = apply_overrides(read_ymls(files, directory=options.conf_dir), assignments)
    try:
        with _directory(options.keep) as directory:
            runs = prepare(values, directory, processes=options.processes)
            show_lines([plain(f"Parity of {' '.join(options.words)}", "bold"), *description(runs.compared), plain()])
            steps = run(runs, directory)
            show_lines([*numbers(steps), plain(), verdict(steps)])
            if options.json:
                _write_json(Path(options.json), json.dumps(record(options.words, runs.compared, steps), indent=1))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing is left running\n")
        return INTERRUPTED
    return 0 if first_difference(steps) is None else 1


def parse_parity_args(argv: Sequence[str]) -> argparse.Namespace:
    """The words after `parity`."""
    parser = CommandLine(
        "deepy.py parity",
        example="deepy.py parity configs/20B.yml",
        description="Run a tiny copy of a config in its layout and in one process, on this machine's CPU, and tell whether their numbers agree.",
    )
    parser.add_config("YAML files, later ones win; then single keys, e.g. model_parallel_size=2")
    parser.add_argument(
        "--processes",
        type=_whole_number,
        default=PROCESSES,
        metavar="N",
        help="processes of the run in the config's layout, at most (%(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers there as well")
    parser.add_argument("--keep", metavar="DIR", help="keep configs, data, logs and checkpoints in this new directory")
    return parser.parse_intermixed_args(argv)


def run(runs: Runs, directory: Path) -> list[Step]:
    """Both runs at the same time, and what they have in common. Raises LaunchError when one of them fails."""
    folders = (directory / "layout", directory / "one_process")
    for folder, values in zip(folders, (runs.layout, runs.one_process), strict=True):
        folder.mkdir()
        (folder / "config.yml").write_text(rewrite(in_directory(values, folder)))
    count = runs.compared.layout.global_num_gpus
    with progress(f"training in {count} process{'es' if count > 1 else ''} and in one"):
        run_both(*folders)
    with progress("comparing checkpoints"):
        tensors = compare_checkpoints(*folders, output=directory / "comparison.json")
    iterations = runs.compared.layout.train_iters
    assert iterations is not None
    layout, one_process = map(read_metrics, folders)
    return steps_of(layout, one_process, tensors, iterations=iterations)


@contextlib.contextmanager
def _directory(kept: str | None) -> Iterator[Path]:
    """A directory that is removed at the end, or a new one that is not, unless the config cannot be run at all."""
    if kept is None:
        with _temporary_directory() as temporary:
            yield Path(temporary)
        return
    path = Path(kept).absolute()
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise NeoXError(f'"{kept}" cannot be made ({error.strerror}): --keep takes a new directory') from None
    try:
        yield path
    except ConfigError:
        shutil.rmtree(path)  # or the corrected command would be told that it exists
        raise


def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="parity-")
    except OSError as error:
        raise NeoXError(
            f"there is no directory for temporary files that can be written ({error.strerror}): set TMPDIR to one, or give --keep"
        ) from None


def _check_json(file: str | None) -> None:
    """Raise NeoXError for a file that could not be written, before any time is spent."""
    if file is None:
        return
    folder = Path(file).absolute().parent
    if not folder.is_dir():
        problem = "its directory does not exist; make it"
    elif Path(file).is_dir():
        problem = "it is a directory; name a file in it"
    elif not os.access(folder, os.W_OK):
        problem = "its directory cannot be written to; allow it"
    else:
        return
    raise NeoXError(f'"{file}" cannot be written: {problem}, or give another file for --json')


def _write_json(path: Path, content: str) -> None:
    try:
        with atomic_file(path) as file:
            file.write(content.encode() + b"\n")
    except OSError as error:
        raise NeoXError(f'"{path}" cannot be written ({error.strerror}): give another file for --json') from None


def _whole_number(written: str) -> int:
    if not written.isdigit() or int(written) == 0:
        raise argparse.ArgumentTypeError(f'"{written}" is not a whole number above 0')
    return int(written)

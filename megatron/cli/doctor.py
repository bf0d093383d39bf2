"""`deepy.py doctor [CONFIG...]`: whether this machine, and the machines of a job, have what runs need, and what to do where they have not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from megatron.cli.command_line import CommandLine
from megatron.cli.doctor_report import record, report_lines, verdict_of
from megatron.cli.progress import progress
from megatron.cli.styled import plain, show_lines
from megatron.doctor.examination import examine
from megatron.doctor.given import Given, understand
from megatron.launcher.hosts.resolve import describe_hosts
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments

INTERRUPTED = 130


def main(argv: Sequence[str]) -> int:
    """Returns 0 when nothing failed, 1 when something did. Raises NeoXError for files that are no configs."""
    options = parse_doctor_args(argv)
    given = read_given(options)
    try:
        examination = examine(given, quick=options.quick, progress=progress)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing is left running\n")
        return INTERRUPTED
    if options.json:
        show_lines([plain(record(options.words, examination))])
    else:
        show_lines(report_lines(" ".join(options.words) or "this machine", examination.sections))
    return 1 if verdict_of(examination) == "failure" else 0


def parse_doctor_args(argv: Sequence[str]) -> argparse.Namespace:
    """The words after `doctor`."""
    parser = CommandLine(
        "deepy.py doctor",
        example="deepy.py doctor configs/125M.yml hostfile=hosts",
        description="Tell what is installed here, what a config asks for that is missing, and whether the machines of a job are fit for it.",
        epilog="Exit status: 0 nothing failed (there may be warnings); 1 something did; 2 the command line is wrong.",
    )
    parser.add_config(
        "YAML files, later ones win; then single keys, e.g. hostfile=hosts; none: this machine alone", nargs="*"
    )
    parser.add_argument("--quick", action="store_true", help="leave the test of collective operations out")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for programs")
    return parser.parse_intermixed_args(argv)


def read_given(options: argparse.Namespace) -> Given | None:
    """What the words name; without any the machines that the environment names, if it does."""
    files, assignments = split_arguments(options.words)
    values = apply_overrides(read_ymls(files, directory=options.conf_dir), assignments)
    given = understand(values)
    if not options.words and given.args is not None and describe_hosts(given.args, given.hosts) is None:
        return None
    return given

"""`deepy.py SCRIPT CONFIG...`: the words of the command line. What they start is in `starting.py`, which is imported once they are right."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from megatron.cli.command_line import CommandLine
from megatron.cli.script_options import SCRIPT_OPTIONS, options_of
from megatron.components import COMMANDS
from megatron.launcher.base import DEFAULT_GRACE_SECONDS
from megatron.stopping import STOPPED

KEYS_AS_OPTIONS = {
    "hostfile": "-H",
    "include": "-i",
    "exclude": "-e",
    "num_nodes": None,
    "num_gpus": None,
    "master_addr": None,
    "master_port": None,
}
"""Config keys that are options too, for the habits of the `deepspeed` command; each equals `key=value`."""


def main(argv: Sequence[str]) -> int:
    """Returns the exit status of the first failing rank, else 75 or 0 (`megatron.stopping`). Raises NeoXError with every mistake;
    nothing has started then.
    """
    options = parse_run_args(argv)
    # Reading configs takes the time of most imports: a mistyped option and --help need not wait for it.
    from megatron.cli.starting import start

    return start(options, option_assignments(options), argv)


def parse_run_args(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; what is neither the script nor an option is a config file or a `key=value`."""
    parser = CommandLine(
        "deepy.py",
        example="deepy.py train.py configs/125M.yml configs/local_setup.yml",
        description="Run a script on every device that a config names.",
        epilog=f"Instead of a script: {', '.join(name for name in COMMANDS.names if name != 'run')}, which look at configs and machines; only parity and doctor start processes, to try things out (deepy.py COMMAND --help). "
        f"Some scripts have options of their own (deepy.py SCRIPT --help): {', '.join(SCRIPT_OPTIONS)}. "
        f"Exit status: 0 the run reached its end; {STOPPED} it was cut short by SIGTERM, SIGUSR1, Ctrl-C or exit_duration_minutes and is saved: the same command goes on; "
        "128 + N it was ended by signal N and nothing was saved; 1 it failed; 2 the command line is wrong.",
    )
    parser.add_argument("script", metavar="SCRIPT", help="train.py, generate.py, ...")
    parser.add_config("YAML files, later ones win; then single keys, e.g. optimizer.params.lr=1e-4", nargs="*")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the merged config, the layout and the commands, and start nothing"
    )
    parser.add_argument(
        "--grace-seconds",
        type=seconds,
        default=DEFAULT_GRACE_SECONDS,
        help="time to save and exit after SIGTERM, SIGUSR1 or Ctrl-C (%(default)g)",
    )
    script, options = options_of(argv)
    taken = {flag for option in options for flag in option.flags}
    for key, letter in KEYS_AS_OPTIONS.items():
        letters = [letter] if letter and letter not in taken else []
        parser.add_argument(*letters, f"--{key}", help=f"the same as {key}=...")
    if options:
        group = parser.add_argument_group(f"options of {script}")
        for option in options:
            option.add_to(group)
    return parser.parse_intermixed_args(argv)


def seconds(word: str) -> float:
    """A number of seconds. Raises ArgumentTypeError, of which argparse makes a sentence."""
    with contextlib.suppress(ValueError):
        if (number := float(word)) >= 0:  # which NaN is not
            return number
    raise argparse.ArgumentTypeError(f"{word} is not a number of seconds; write digits, 0 or more")


def option_assignments(options: argparse.Namespace) -> list[str]:
    """`key=value` for every config key that was given as an option."""
    given = {key: getattr(options, key) for key in KEYS_AS_OPTIONS}
    assignments = [f"{key}={value}" for key, value in given.items() if value is not None]
    own = {option: getattr(options, option.key, None) for option in SCRIPT_OPTIONS.get(Path(options.script).name, ())}
    return [*assignments, *(f"{each.key}={each.write(value)}" for each, value in own.items() if value is not None)]

"""`deepy.py SCRIPT CONFIG...`: runs a script of this repository on every device that a config names.

Everything is decided here, before any process starts and without importing torch, so mistakes show in well under a second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.cli.command_line import CommandLine
from megatron.cli.styled import plain, show_lines
from megatron.components import COMMANDS, LAUNCHERS
from megatron.errors import ConfigError, LaunchError
from megatron.launcher.base import DEFAULT_GRACE_SECONDS, Command, Host, Job, Launcher
from megatron.launcher.fold import FOLDED_SCRIPTS, fold_layout
from megatron.launcher.hosts import resolve_hosts
from megatron.launcher.process import run_commands
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.explaining.describe import describe_conflict, override_lines, summary
from megatron.neox_arguments.keys.runner import RunnerArgs
from megatron.neox_arguments.reading.load import apply_overrides, read_ymls, split_arguments
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.transport import encode
from megatron.registry import did_you_mean
from megatron.stopping import STOPPED

REPOSITORY = Path(__file__).resolve().parents[2]

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


@dataclass(frozen=True)
class Plan:
    """A run, ready to start. notes: what the user should know before it does."""

    args: NeoXArgs
    values: ConfigValues
    job: Job
    commands: tuple[Command, ...]
    notes: tuple[str, ...]


def main(argv: Sequence[str]) -> int:
    """Returns the exit status of the first failing rank, else 75 or 0 (`megatron.stopping`). Raises NeoXError with every mistake;
    nothing has started then.
    """
    options = parse_run_args(argv)
    plan = make_plan(options)
    if options.dry_run:
        commands = ["commands:", *map(str, plan.commands)]
        show_lines(map(plain, [*summary(plan.args, plan.values), *plan.notes, "", *commands]))
        return 0
    show_lines(map(plain, [*override_lines(plan.values), *plan.notes]))
    status = run_commands(plan.commands, grace_seconds=plan.job.grace_seconds)
    if status == STOPPED:
        sys.stderr.write(f"stopped (exit status {STOPPED}): what was done is saved; {way_on(plan.args)}\n")
    return status


def parse_run_args(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; what is neither the script nor an option is a config file or a `key=value`."""
    parser = CommandLine(
        "deepy.py",
        example="deepy.py train.py configs/125M.yml configs/local_setup.yml",
        description="Run a script on every device that a config names.",
        epilog=f"Instead of a script: {', '.join(name for name in COMMANDS.names if name != 'run')}, which look at configs; only parity starts processes, of a tiny copy (deepy.py COMMAND --help). "
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
        type=float,
        default=DEFAULT_GRACE_SECONDS,
        help="time to save and exit after SIGTERM, SIGUSR1 or Ctrl-C (%(default)g)",
    )
    for key, letter in KEYS_AS_OPTIONS.items():
        parser.add_argument(*([letter] if letter else []), f"--{key}", help=f"the same as {key}=...")
    return parser.parse_intermixed_args(argv)


def make_plan(options: argparse.Namespace) -> Plan:
    """Read and check everything a run needs. Raises NeoXError with all that is wrong."""
    script = find_script(options.script)
    files, assignments = split_arguments(options.words)
    values = read_ymls(files, directory=options.conf_dir)
    values = apply_overrides(values, [*assignments, *option_assignments(options)])
    values = apply_overrides(values, [f"user_script={Path(script).name}"], source="deepy.py")
    values, note = fold_layout(values, script)
    hosts: tuple[Host, ...] = ()

    def count_processes(args: RunnerArgs) -> int:
        nonlocal hosts
        hosts = resolve_hosts(args)
        return sum(len(host.slots) for host in hosts)

    args = NeoXArgs.from_values(values, world_size=count_processes)
    job = build_job(args, script, hosts, grace_seconds=options.grace_seconds)
    launcher: Launcher = LAUNCHERS.load(args.launcher)(args)
    try:
        launcher.check(job)
    except Conflict as conflict:
        raise ConfigError([describe_conflict(args, values, conflict)]) from None
    return Plan(args, values, job, tuple(launcher.commands(job)), (note,) if note else ())


def build_job(args: NeoXArgs, script: str, hosts: tuple[Host, ...], *, grace_seconds: float) -> Job:
    """The job that gives every rank the whole config on its command line."""
    trains = Path(script).name not in FOLDED_SCRIPTS
    master = args.master_addr or ("127.0.0.1" if len(hosts) == 1 else hosts[0].name)
    return Job(
        script,
        ("--neox-args", encode(args)),
        hosts,
        master_addr=master,
        master_port=args.master_port,
        grace_seconds=grace_seconds,
        max_restarts=args.max_restarts if trains else 0,
        saves=trains and args.save is not None,
    )


def way_on(args: NeoXArgs) -> str:
    """How to go on from what a run has saved, as the end of a sentence."""
    words = {
        f"load={args.save}": args.load != args.save,
        "iteration=null": args.iteration is not None,
        "finetune=false": args.finetune,
        "no_load_optim=false": args.no_load_optim and not args.no_save_optim,
    }
    added = [word for word, needed in words.items() if needed]
    return f"the same command with {' '.join(added)} goes on" if added else "the same command goes on"


def find_script(name: str) -> str:
    """The script as given, or the one of that name in the repository. Raises LaunchError when there is neither."""
    if Path(name).is_file():
        return name
    if (REPOSITORY / name).is_file():
        return str(REPOSITORY / name)
    known = [*COMMANDS.names, *(path.name for path in REPOSITORY.glob("*.py"))]
    hint = (
        did_you_mean(name, known)
        or f": the first word is the script to run, e.g. train.py, or one of {', '.join(COMMANDS.names)}"
    )
    raise LaunchError(f'the script "{name}" does not exist{hint}')


def option_assignments(options: argparse.Namespace) -> list[str]:
    """`key=value` for every config key that was given as an option."""
    given = {key: getattr(options, key) for key in KEYS_AS_OPTIONS}
    return [f"{key}={value}" for key, value in given.items() if value is not None]

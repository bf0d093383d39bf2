"""Runs a script of this repository on every device that a config names.

Everything is decided here, before any process starts and without importing torch, so mistakes show in well under a second.
"""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megatron.cli.styled import plain, show_lines
from megatron.components import COMMANDS, LAUNCHERS
from megatron.environment import COMMAND_VARIABLE
from megatron.errors import ConfigError, LaunchError
from megatron.launcher.agent.options import TOKEN_VARIABLE
from megatron.launcher.base import HeadPlace, Host, Job, Launcher
from megatron.launcher.devices import count_devices
from megatron.launcher.fold import fold_layout, with_fewer_stages
from megatron.launcher.forwarding import remote_environment
from megatron.launcher.head.follow import follow
from megatron.launcher.head.nodes import nodes_of
from megatron.launcher.head.run import Attempt, run_job
from megatron.launcher.hosts.resolve import describe_hosts, resolve_hosts
from megatron.launcher.hosts.spares import resolve_spares
from megatron.launcher.next_attempt import FirstAttempt, next_attempt
from megatron.launcher.started_once import check_started_once
from megatron.log import keep_output_harmless
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

READING_SCRIPTS = ("generate.py", "eval.py")
"""Scripts that save nothing a run could go on from."""


@dataclass(frozen=True)
class Plan:
    """A run, ready to start. spares: hosts that stand by; notes: what the user should know before it starts."""

    args: NeoXArgs
    values: ConfigValues
    job: Job
    launcher: Launcher
    spares: tuple[Host, ...]
    notes: tuple[str, ...]


def start(options: argparse.Namespace, assignments: Sequence[str], argv: Sequence[str]) -> int:
    """Run the script, or with `--dry-run` show what would run; returns the exit status. Raises NeoXError before anything has started.

    options: the words as `run.py` has read them; assignments: `key=value` of those that are keys; argv: the words themselves.
    """
    plan = make_plan(options, assignments)
    if options.dry_run:
        hosts = ["hosts:", *(f"  {node.title}" for node in nodes_of(plan.job.hosts))]
        shown = replace(plan.job, head=replace(plan.job.head, token=""))
        commands = ["commands:", *map(str, plan.launcher.commands(shown))]
        show_lines(map(plain, [*summary(plan.args, plan.values), *plan.notes, "", *hosts, *commands]))
        return 0
    show_lines(map(plain, [*override_lines(plan.values), *plan.notes]))
    keep_output_harmless()  # the run goes on when its console is closed
    named = {**plan.job.environment, COMMAND_VARIABLE: shlex.join(["deepy.py", *argv])}
    plan = replace(plan, job=replace(plan.job, environment=named))
    status = run_plan(plan) if plan.launcher.holds_head else follow(plan.job, plan.launcher)
    if status == STOPPED:
        sys.stderr.write(f"stopped (exit status {STOPPED}): what was done is saved; {way_on(plan.args)}\n")
    return status


def run_plan(plan: Plan) -> int:
    """Run the job, on other machines when it loses some; returns its exit status."""
    first = FirstAttempt(plan.values, plan.args, plan.job.hosts, plan.spares)

    def following(lost: Collection[str]) -> Attempt:
        following = next_attempt(first, lost)
        same_first = following.hosts[0].name == plan.job.hosts[0].name
        job = replace(
            plan.job,
            arguments=arguments_of(following.args),
            hosts=following.hosts,
            master_addr=plan.job.master_addr if same_first else None,  # it is the address of the first machine
        )
        launcher: Launcher = LAUNCHERS.load(following.args.launcher)(following.args)
        check_job(following.args, following.values, launcher, job)
        return Attempt(job, launcher, following.notes, tries_ssh=not following.args.no_ssh_check)

    attempt = Attempt(plan.job, plan.launcher, tries_ssh=not plan.args.no_ssh_check)
    return run_job(attempt, following=following).status


def make_plan(options: argparse.Namespace, assignments: Sequence[str]) -> Plan:
    """Read and check everything a run needs; see `start`. Raises NeoXError with all that is wrong."""
    script = find_script(options.script)
    files, words = split_arguments(options.words)
    values = read_ymls(files, directory=options.conf_dir)
    values = apply_overrides(values, [*words, *assignments])
    values = apply_overrides(values, [f"user_script={Path(script).name}"], source="deepy.py")
    values, note = fold_layout(values, script)
    hosts: tuple[Host, ...] = ()
    devices = functools.cache(count_devices)  # asking the driver takes a second

    def count_processes(args: RunnerArgs) -> int:
        nonlocal hosts
        try:
            hosts = resolve_hosts(args, devices=devices)
        except Conflict as conflict:
            raise with_fewer_stages(conflict, values, script) from conflict
        return sum(len(host.slots) for host in hosts)

    args = NeoXArgs.from_values(values, world_size=count_processes)
    if args.launcher != "torchrun":
        check_started_once(os.environ)
    launcher: Launcher = LAUNCHERS.load(args.launcher)(args)
    environment, names = remote_environment(os.environ, args.forward_environment) if launcher.forwards else ({}, [])
    job = build_job(args, script, hosts, launcher.head_place(hosts), grace_seconds=options.grace_seconds)
    job = replace(job, environment=environment)
    check_job(args, values, launcher, job)
    spares = resolve_spares(args, devices=devices) if job.max_restarts else ()
    notes = [line for line in (note, describe_hosts(args, hosts), *names) if line]
    return Plan(args, values, job, launcher, spares, tuple(notes))


def check_job(args: NeoXArgs, values: ConfigValues, launcher: Launcher, job: Job) -> None:
    """Raise NeoXError when the launcher cannot start the job."""
    try:
        launcher.check(job)
    except Conflict as conflict:
        raise ConfigError([describe_conflict(args, values, conflict)]) from None


def build_job(args: NeoXArgs, script: str, hosts: tuple[Host, ...], head: HeadPlace, *, grace_seconds: float) -> Job:
    """The job that runs a script with a config; what trains saves, keeps logs, and is started again."""
    trains = Path(script).name not in READING_SCRIPTS
    return Job(
        script,
        arguments_of(args),
        hosts,
        directory=this_directory(),
        head=replace(head, token=os.environ.get(TOKEN_VARIABLE) or head.token),
        master_addr=args.master_addr,
        master_port=args.master_port,
        port_is_fixed="master_port" in args.origins(),
        grace_seconds=grace_seconds,
        max_restarts=args.max_restarts if trains else 0,
        node_timeout=args.node_timeout,
        log_dir=args.log_dir if trains else None,
        saves=trains and args.save is not None,
        interactive=Path(script).name == "generate.py" and args.text_gen_type == "interactive",
    )


def this_directory() -> str:
    """Where we are. Raises LaunchError when that has been deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise LaunchError(
            "the directory that deepy.py was started in does not exist any more: go to one that does (cd)"
        ) from None


def arguments_of(args: NeoXArgs) -> tuple[str, ...]:
    """The whole config, as every rank reads it (`NeoXArgs.consume_neox_args`)."""
    return ("--neox-args", encode(args))


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

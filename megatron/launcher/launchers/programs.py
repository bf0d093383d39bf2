"""What launchers ask of this machine and of the names of hosts before they start anything."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron.errors import LaunchError, MissingRequirement
from megatron.launcher.asking import ask_program
from megatron.launcher.base import Job
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.runner import RunnerArgs

START_DIRECTORY = "/"
"""Where agents start: every machine has it, and nothing there hides our package. They go to the directory of the job themselves."""

ANSWER_SECONDS = 10.0

_NAME = re.compile(r"(?P<user>[\w.][\w.-]*@)?(?P<host>[\w.][\w.:-]*)")


def extra_arguments(args: RunnerArgs, launcher: str) -> tuple[str, ...]:
    """The words that `launcher_args` adds to the command line of a launcher."""
    given = args.launcher_args
    if isinstance(given, dict):
        given = given.get(launcher, ())
    return tuple(map(str, given)) if isinstance(given, list | tuple) else tuple(shlex.split(str(given)))


def find_program(names: Sequence[str], *, says: str = "") -> str | None:
    """The first of these programs that is installed and, asked for its version, says these words."""
    for name in names:
        program = shutil.which(name)
        if program is not None and (not says or says in _version(program)):
            return program
    return None


def require_program(launcher: str, names: Sequence[str], *, install: str, of: str = "", says: str = "") -> str:
    """As `find_program`. Raises Conflict when none is there. of: whose programs these are; install: where they come from, as a part of a sentence."""
    program = find_program(names, says=says)
    if program is None:
        wanted = " or ".join(f'"{name}"' for name in names)
        whose = f" of {of}" if of else ""
        raise Conflict(
            ("launcher",),
            f"launcher {launcher} needs the program {wanted}{whose} in PATH; {install}, or choose another launcher",
        )
    return program


def check_script(job: Job) -> None:
    """Raise LaunchError when the script is not here, MissingRequirement without torch: what is missing here is missing everywhere."""
    if not Path(job.script).is_file():
        raise LaunchError(f'the script "{job.script}" does not exist: give the path of one, e.g. train.py')
    if importlib.util.find_spec("torch") is None:
        raise MissingRequirement(
            f"torch is not installed for {sys.executable}: add it with pip install -r requirements/requirements-torch.txt"
        )


def check_names(job: Job, *, users: bool = False, colons: bool = False) -> None:
    """Raise LaunchError for hosts whose names a launcher would take for something else.

    users: whether it reads USER@HOST; colons: whether it reads IPv6 addresses.
    """
    for host in job.hosts:
        match = _NAME.fullmatch(host.name)
        if match is None:
            raise LaunchError(f'"{host.name}" is no name of a host: letters, digits, ".", "-" and "_" make one')
        if match["user"] and not users:
            raise LaunchError(
                f'this launcher cannot log in as somebody else ("{host.name}"): write {match["host"]} into the hostfile, and '
                f'"Host {match["host"]}" with "User {match["user"][:-1]}" into ~/.ssh/config'
            )
        if ":" in match["host"] and not colons:
            raise LaunchError(
                f'this launcher reads a colon as a number of slots ("{host.name}"): give the host a name, in /etc/hosts or ~/.ssh/config'
            )


def _version(program: str) -> str:
    """What a program says of its version; nothing where it cannot be run."""
    try:
        ended = ask_program([program, "--version"], seconds=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout + ended.stderr

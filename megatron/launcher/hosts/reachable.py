"""Which hosts let this user in by ssh."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from megatron.launcher.base import Host
from megatron.launcher.hosts.resolve import is_this_machine

CONNECT_SECONDS = 5
ANSWER_SECONDS = 15.0
"""Seconds in which a host that takes connections must also have run a command: it may look keys and home directories up elsewhere."""

AT_ONCE = 64


def unreachable(hosts: Sequence[Host]) -> dict[str, str]:
    """Why hosts do not let us in, by name; empty when all do. All are tried at once, but for this machine."""
    names = [host.name for host in hosts if not is_this_machine(host)]
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(names)) or 1) as pool:
        reasons = pool.map(_why_not, names)
        return {name: reason for name, reason in zip(names, reasons, strict=True) if reason is not None}


def _why_not(name: str) -> str | None:
    """Run `true` there; ssh's last line when that fails."""
    options = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-x", "-a")
    try:
        ended = subprocess.run(
            ["ssh", *options, name, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {ANSWER_SECONDS:g} s"
    except OSError as error:
        return f"ssh cannot be run: {(error.strerror or str(error)).lower()}"
    if ended.returncode == 0:
        return None
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    return lines[-1].removeprefix("ssh: ").rstrip(".") if lines else f"ssh ended with status {ended.returncode}"

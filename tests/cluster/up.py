"""Start a cluster to try things on, say how to enter it, and end it on Ctrl-C: `python -m tests.cluster.up`."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading

from tests.cluster.cluster import cluster
from tests.cluster.requirements import missing_program, obstacle
from tests.conftest import REPOSITORY


def main() -> None:
    """Wait for Ctrl-C or SIGTERM beside a running cluster."""
    if why := obstacle():
        sys.exit(why)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), cluster(slurm=not missing_program("slurm")) as running:
        for host in running:
            print(f"{host.name.upper()}={shlex.quote(shlex.join(host.command(directory=REPOSITORY)))}")
        print(f"SWITCH={shlex.quote(shlex.join(running.switch.command()))}")
        print(f"SHARED={running.directory}   # goes when the cluster goes")
        print(
            "# $H1 hostname; $H1 env PATH=$SHARED/bin/mpich:$PATH mpirun ...; $SWITCH ip link set to-h2 down",
            flush=True,
        )
        threading.Event().wait()


main()

"""The first process of a host. When its standard input ends it ends too, and the kernel ends every other process of the host with it.

    python init.py NAME [--private DIRECTORY] [--replace PATH=FILE] [--remove DIRECTORY]

NAME becomes the host's name; private directories are empty and in memory; a replaced file or directory shows another's content; what is
to be removed is removed at the end, also when the process that started the host was killed. It runs on the bare interpreter.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import subprocess
import sys


def main() -> None:
    """Prepare the host, say "ready", and wait for the end of standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--private", action="append", default=[])
    parser.add_argument("--replace", action="append", default=[])
    parser.add_argument("--remove")
    options = parser.parse_args()
    socket.sethostname(options.name)
    for directory in options.private:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)
    for replacement in options.replace:
        target, _, source = replacement.partition("=")
        subprocess.run(["mount", "--bind", source, target], check=True)
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # processes whose parent has died are ours; nobody asks how they ended
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    sys.stdin.buffer.read()
    if options.remove:
        shutil.rmtree(options.remove, ignore_errors=True)


main()

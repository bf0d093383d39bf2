"""The store in which the ranks of a job meet, in a process of its own beside the agent of the first machine. `python -m ...store DESCRIPTOR`

It outlives every rank, so that those left over can still find out whom they wait for. The agent has opened its port before, and passes
it on as a file descriptor: nobody can take it between. The one module of the launcher that imports torch.
"""

from __future__ import annotations

import os
import signal
import sys

# Some launchers send Ctrl-C to every process they know of; the agent ends this one, and importing torch takes a second.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # noqa: E402


def main() -> None:
    """Serve the store until the agent goes: the kernel ends this process with it, and it says so by closing our standard input."""
    descriptor, port = int(sys.argv[1]), int(sys.argv[2])
    store = TCPStore("127.0.0.1", port, None, True, wait_for_workers=False, master_listen_fd=descriptor)
    while os.read(0, 1):
        pass
    del store


if __name__ == "__main__":
    main()

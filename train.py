"""The worker that trains: `python deepy.py train.py CONFIG...` starts one for each device."""

import signal

from megatron.launcher.worker import importing, run_worker
from megatron.neox_arguments import NeoXArgs
from megatron.stopping import PoliteSignals


def main() -> int:
    """Train; returns the exit status (megatron/stopping.py)."""
    # Until training listens to all of them, SIGTERM and Ctrl-C end this process at once: there is nothing to save yet. A warning may come
    # to one rank alone, and leaves time: the ranks stop together before their first step.
    signals = PoliteSignals()
    signals.note([signal.SIGUSR1])
    args = NeoXArgs.consume_neox_args()
    # Imported late, so that a mistake in the configuration is told before torch is loaded.
    with importing():
        from megatron.training.pretrain import pretrain

    return pretrain(args, signals).exit_status


if __name__ == "__main__":
    run_worker(main)

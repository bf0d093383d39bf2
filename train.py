"""The worker that trains: `python deepy.py train.py CONFIG...` starts one for each device."""

from megatron.launcher.worker import run_worker
from megatron.neox_arguments import NeoXArgs


def main() -> None:
    args = NeoXArgs.consume_neox_args()
    # Imported late, so that a mistake in the configuration is told before torch is loaded.
    from megatron.training.pretrain import pretrain

    pretrain(args)


if __name__ == "__main__":
    run_worker(main)

"""The worker that generates text: `python deepy.py generate.py CONFIG...` starts one for each tensor-parallel rank."""

from megatron.launcher.worker import importing, run_worker
from megatron.neox_arguments import NeoXArgs


def main() -> None:
    args = NeoXArgs.consume_neox_args()
    # Imported late, so that a mistake in the configuration is told before torch is loaded.
    with importing():
        from megatron.generation.run import generate

    generate(args)


if __name__ == "__main__":
    run_worker(main)

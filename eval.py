"""The worker that evaluates: `python deepy.py eval.py CONFIG... --eval_tasks TASK...` starts one for every configured rank."""

from megatron.launcher.worker import importing, run_worker
from megatron.neox_arguments import NeoXArgs


def main() -> None:
    args = NeoXArgs.consume_neox_args()
    # Imported late, so that a mistake in the configuration is told before torch is loaded.
    with importing():
        from megatron.evaluation.run import evaluate

    evaluate(args)


if __name__ == "__main__":
    run_worker(main)

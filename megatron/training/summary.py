"""The screen before a run, and the one after it."""

from __future__ import annotations

from pathlib import Path

from megatron.monitor.console import duration
from megatron.monitor.devices import device_name
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.deepspeed_config import effective_zero_stage
from megatron.neox_arguments.explaining.schedules import evaluation, growth
from megatron.neox_arguments.sequence_schedule import tokens_before
from megatron.text import count, grid
from megatron.training.loop import Run
from megatron.training.state import TrainState


def facts_of_run(run: Run, state: TrainState) -> dict[str, str]:
    """What is about to be trained, on what, from where, in words."""
    args, iterations = run.args, run.args.train_iters
    assert iterations is not None, "resolve_epochs comes first"
    grows = growth(args)
    return {
        "model": f"{count(run.parameters)} parameters: {args.num_layers} layers, hidden {args.hidden_size}, {_heads(args)}, {args.pos_emb} positions",
        "batch": f"{args.train_batch_size} x {args.seq_length} = {args.train_batch_size * args.seq_length:,} tokens a step: {_batch(args)}",
        **grows,
        "training": f"{iterations} iterations, {count(tokens_before(args, iterations))} tokens, {_start(run, state)}",
        "optimizer": f"{args.optimizer_type}, lr {args.lr:g} {args.lr_decay_style}, {_zero(args)}, {args.precision}",
        "layout": f"{args.global_num_gpus} x {device_name(run.speed.device)}: {_grid(args)}",
        "data": args.data_path or ", ".join(args.train_data_paths or ()),
        "evaluation": evaluation(args, run.evaluator.sets, test=run.evaluator.has_test),
        "work": f"{run.speed.work_of(iterations - 1).model_flops / 1e12:.2f} TFLOP {'in the last step' if grows else 'a step'} (forward and backward)",
        "checkpoints": args.save or "none: save is not set, the weights will be lost",
    }


def facts_of_result(args: NeoXArgs, *, seconds: float) -> dict[str, str]:
    """What the run took and where it left everything."""
    facts = {"time": duration(seconds), "metrics": str(Path(args.log_dir or "logs") / "metrics.jsonl")}
    if args.tensorboard_dir:
        facts["tensorboard"] = args.tensorboard_dir
    if args.save:
        facts["checkpoints"] = args.save
    return facts


def _grid(args: NeoXArgs) -> str:
    return grid(
        pipe=args.pipeline_stages,
        data=args.data_parallel_size,
        context=args.context_parallel_size,
        tensor=args.model_parallel_size,
    )


def _heads(args: NeoXArgs) -> str:
    grouped = f" ({args.num_kv_heads} for keys and values)" if args.num_kv_heads != args.num_attention_heads else ""
    return f"{args.num_attention_heads} heads{grouped}"


def _zero(args: NeoXArgs) -> str:
    effective = effective_zero_stage(args)
    return f"ZeRO stage {effective}" + (f" (stands for {args.zero_stage})" if effective != args.zero_stage else "")


def _batch(args: NeoXArgs) -> str:
    return (
        f"micro-batch {args.train_micro_batch_size_per_gpu} x accumulation {args.gradient_accumulation_steps} "
        f"x data parallel {args.data_parallel_size}"
    )


def _start(run: Run, state: TrainState) -> str:
    args = run.args
    if state.iteration:
        return f"continuing after iteration {state.iteration} from {args.load}"
    if not args.load or (args.load_if_exists and run.checkpointer.last is None and not args.finetune):
        return "from scratch"
    return f"fine-tuning {args.load}" if args.finetune else f"from the weights of {args.load}"

"""The story of `generate.py`: load a trained model in any tensor- and pipeline-parallel layout, and complete prompts as configured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console

from megatron.errors import DataError
from megatron.generation.complete import Completion, CompletionSettings, complete
from megatron.generation.decode import Decoder
from megatron.generation.load import load_model
from megatron.generation.prompts import prompts_of_file, prompts_of_person
from megatron.generation.sampling import SamplingSettings
from megatron.initialize import World, join_world, shutdown
from megatron.log import configure_logging
from megatron.mpu.broadcast import broadcast_object
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer

ROWS_AT_ONCE = 16


def generate(args: NeoXArgs) -> None:
    """Complete the configured prompts; rank 0 prints them and writes `sample_output_file` (every rank calls this)."""
    world = join_world(args)
    configure_logging(world.groups.rank)
    tokenizer = build_tokenizer(args)
    decoder = Decoder(
        load_model(args, world, tokenizer),
        vocab_size=tokenizer.vocab_size,
        max_positions=args.max_position_embeddings,
        recompute=args.recompute,
    )
    screen = Console(quiet=world.groups.rank != 0, highlight=False, soft_wrap=True)
    if args.text_gen_type == "interactive":
        _converse(args, world, tokenizer, decoder, screen)
    else:
        _write_samples(args, world, tokenizer, decoder, screen)
    shutdown()


def completion_settings(args: NeoXArgs) -> CompletionSettings:
    """How the configuration wants prompts completed."""
    return CompletionSettings(
        args.maximum_tokens,
        SamplingSettings(args.temperature, args.top_k, args.top_p),
        seed=args.seed,
        keep_logits=args.return_logits,
    )


def _write_samples(args: NeoXArgs, world: World, tokenizer: Tokenizer, decoder: Decoder, screen: Console) -> None:
    """Complete every prompt `num_samples` times; completions are on disk as soon as their batch is done.

    What an earlier run wrote stays until there is something to write.
    """
    path = Path(args.sample_output_file)
    is_first = world.groups.rank == 0
    if is_first:
        _check_can_write(path)
    mode, done = "w", 0
    for batch in _batches(_prompts(args), ROWS_AT_ONCE):
        completions = complete(decoder, tokenizer, batch, completion_settings(args), first_sample=done)
        done += len(batch)
        if is_first:
            _write(path, mode, completions, with_logits=args.return_logits)
        mode = "a"
        for completion in completions:
            _show(screen, completion)
    screen.print(f"samples are in {path}", markup=False)


def _converse(args: NeoXArgs, world: World, tokenizer: Tokenizer, decoder: Decoder, screen: Console) -> None:
    """Complete what a person types at rank 0, until the end of input. A prompt that cannot be completed ends nothing."""
    screen.print(f"Type a prompt, ended by {args.prompt_end!r}; end of input (Ctrl-D) leaves.", markup=False)
    typed = prompts_of_person(sys.stdin.readline, prompt_end=args.prompt_end) if world.groups.rank == 0 else iter(())
    answered = 0
    while (prompt := _agree(next(typed, None), world)) is not None:
        try:
            completions = complete(decoder, tokenizer, [prompt], completion_settings(args), first_sample=answered)
            answered += 1
        except DataError as error:  # every rank finds it, before any of them has begun
            screen.print(f"error: {error}", markup=False)
            continue
        for completion in completions:
            _show(screen, completion)


def _agree(prompt: str | None, world: World) -> str | None:
    """Rank 0's prompt, on every rank."""
    first: str | None = broadcast_object(prompt, world.groups.world)
    return first


def _prompts(args: NeoXArgs) -> Iterator[str]:
    prompts = prompts_of_file(args.sample_input_file or "") if args.text_gen_type == "input-file" else [""]
    return (prompt for prompt in prompts for _ in range(args.num_samples))


def _batches(prompts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(prompts)
    while batch := list(islice(iterator, size)):
        yield batch


def _check_can_write(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise DataError(
            f'"sample_output_file" is "{path}", which cannot be written ({error}): give the path of a file'
        ) from error


def _write(path: Path, mode: str, completions: Sequence[Completion], *, with_logits: bool) -> None:
    with path.open(mode, encoding="utf-8") as file:
        for completion in completions:
            file.write(json.dumps(completion.record(with_logits=with_logits), ensure_ascii=False) + "\n")


def _show(screen: Console, completion: Completion) -> None:
    screen.rule()
    screen.print(completion.context, style="bold", end="", markup=False)
    screen.print(completion.text, markup=False)

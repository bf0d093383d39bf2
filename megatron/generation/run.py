"""The story of `generate.py`: load a trained model in any tensor- and pipeline-parallel layout, and complete prompts as configured.

What can be wrong with prompts, tokens and files is found before the model is built.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from megatron.checkpointing.ranks import Ranks
from megatron.errors import DataError
from megatron.generation.complete import CompletionSettings, complete_tokens
from megatron.generation.decode import Decoder
from megatron.generation.load import load_model
from megatron.generation.prompts import read_prompts
from megatron.generation.rows import Completion
from megatron.generation.samples import SampleFile
from megatron.generation.sampling import SamplingSettings
from megatron.generation.voice import Voice
from megatron.initialize import World, join_world, shutdown
from megatron.log import configure_logging, get_logger
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer

logger = get_logger(__name__)


def generate(args: NeoXArgs) -> None:
    """Complete the configured prompts; rank 0 prints them and writes `sample_output_file` (every rank calls this)."""
    world = join_world(args)
    configure_logging(world.groups.rank)
    tokenizer = build_tokenizer(args)
    check_stop_tokens(args, tokenizer)
    for remark in remarks(args) if world.groups.rank == 0 else ():
        logger.warning(remark)
    screen = Console(quiet=world.groups.rank != 0, highlight=False, soft_wrap=True)
    if args.text_gen_type == "interactive":
        from megatron.generation.interactive import converse

        converse(args, completion_settings(args), world, tokenizer, _decoder(args, world, tokenizer), screen)
    elif args.text_gen_type == "precompute":
        from megatron.generation.precompute import precompute

        precompute(args, world, tokenizer, lambda: load_model(args, world, tokenizer))
    else:
        _write_samples(args, world, tokenizer, screen)
    shutdown()


def completion_settings(args: NeoXArgs) -> CompletionSettings:
    """How the configuration wants prompts completed."""
    return CompletionSettings(
        args.maximum_tokens,
        SamplingSettings(args.temperature, args.top_k, args.top_p),
        seed=args.seed,
        keep_logits=args.return_logits,
        stop_strings=args.stop_strings,
        stop_tokens=args.stop_tokens,
    )


def check_stop_tokens(args: NeoXArgs, tokenizer: Tokenizer) -> None:
    """Raises DataError when `stop_tokens` names a token that the tokenizer does not have."""
    unknown = [token for token in args.stop_tokens if token >= tokenizer.vocab_size]
    if unknown:
        raise DataError(
            f'"stop_tokens" names {unknown[0]}, and the tokenizer has the tokens 0 to {tokenizer.vocab_size - 1}: '
            "give numbers of its tokens, or the text in stop_strings"
        )


def _write_samples(args: NeoXArgs, world: World, tokenizer: Tokenizer, screen: Console) -> None:
    """Complete every prompt `num_samples` times, `generation_batch_size` at once."""
    ranks = Ranks(world.groups.world, doing="reading the prompts")
    prompts = ranks.first(lambda: read_prompts(args, tokenizer))
    files: list[SampleFile] = []
    ranks.first(lambda: files.append(SampleFile(args.sample_output_file, with_logits=args.return_logits)))
    decoder = _decoder(args, world, tokenizer)
    settings = completion_settings(args)
    for numbers in _batches(len(prompts) * args.num_samples, args.generation_batch_size):
        batch = [prompts[number // args.num_samples] for number in numbers]
        completions = complete_tokens(
            decoder, tokenizer, [prompt.tokens for prompt in batch], settings, first_sample=numbers.start
        )
        for prompt, completion in zip(batch, completions, strict=True):
            completion.prompt = prompt.text
            _show(screen, completion)
        for file in files:
            file.write(completions)
    screen.print(f"samples are in {args.sample_output_file}", markup=False)


def remarks(args: NeoXArgs) -> Iterator[str]:
    """What is configured and changes nothing."""
    mode = args.text_gen_type
    if args.sample_input_file and mode != "input-file":
        yield f"text_gen_type is {mode}: {args.sample_input_file} is not read (set text_gen_type to input-file)"
    if args.return_logits and mode in ("interactive", "precompute"):
        yield f"text_gen_type is {mode}: no logits are written (return_logits)"
    if args.temperature > 0 or mode == "precompute":
        return
    greedy = "temperature is 0, which always takes the most likely token"
    if filters := " and ".join(key for key in ("top_k", "top_p") if getattr(args, key)):
        yield f"{greedy}: {filters} change nothing (set temperature, for example to 1)"
    if args.num_samples > 1:
        yield f"{greedy}: the {args.num_samples} samples of a prompt are copies (set temperature, for example to 1)"


def _decoder(args: NeoXArgs, world: World, tokenizer: Tokenizer) -> Decoder:
    return Decoder(
        load_model(args, world, tokenizer),
        vocab_size=tokenizer.vocab_size,
        max_positions=args.max_position_embeddings,
        recompute=args.recompute,
    )


def _batches(samples: int, size: int) -> Iterator[range]:
    """The numbers of the samples that are decoded together."""
    return (range(start, min(start + size, samples)) for start in range(0, samples, size))


def _show(screen: Console, completion: Completion) -> None:
    voice = Voice(screen, on_terminal=screen.is_terminal)
    voice.show(completion.prompt)
    voice.say(completion.text + "\n")

"""`text_gen_type: interactive`: a person at rank 0 types prompts, and sees each completion while it grows.

All ranks decode in step, so they agree before every token on whether the person has had enough (Ctrl-C). The ranks run in sessions of
their own: deepy.py passes Ctrl-C on to them (`Job.interactive`), and what rank 0 makes of it counts.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from rich.console import Console

from megatron.errors import DataError
from megatron.generation.complete import CompletionSettings, decode_rows, encode_prompt, reason_to_stop, row_of
from megatron.generation.decode import Decoder
from megatron.generation.keyboard import Keyboard
from megatron.generation.rows import Completion
from megatron.generation.voice import Voice
from megatron.initialize import World
from megatron.mpu.broadcast import broadcast_object
from megatron.mpu.groups import Group, build_host_group
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer

PATIENCE = timedelta(days=30)
"""How long the other ranks wait while a person thinks."""


def converse(
    args: NeoXArgs,
    settings: CompletionSettings,
    world: World,
    tokenizer: Tokenizer,
    decoder: Decoder,
    screen: Console,
) -> None:
    """Complete what a person types at rank 0, until they leave. A prompt that cannot be completed ends nothing."""
    with noting_interrupts() as interrupts:
        # All ranks listen to Ctrl-C when the group stands, before the person is asked for anything.
        group = build_host_group(world.groups.world, timeout=PATIENCE)
        keyboard = Keyboard(prompt_end=args.prompt_end) if group.rank == 0 else None
        voice = Voice(screen, on_terminal=keyboard is not None and keyboard.is_terminal)
        screen.print(opening(args), markup=False, emoji=False)
        # Logits are for files: nobody could read them here.
        settings = replace(settings, keep_logits=False)
        answers = Answers(settings, tokenizer, decoder, group, voice, interrupts)
        while (prompt := _next_prompt(keyboard, group, screen)) is not None:
            try:
                answers.give(prompt, args.num_samples)
            except DataError as error:  # every rank finds it, before any of them has begun
                screen.print(f"error: {error}", markup=False, emoji=False)


def opening(args: NeoXArgs) -> str:
    """What the person is told first: how to talk, how to leave, and how answers are drawn."""
    end = "Enter" if args.prompt_end == "\n" else f"{args.prompt_end!r} at the end of a line"
    if args.temperature:
        filters = "".join(f", {key} {getattr(args, key):g}" for key in ("top_k", "top_p") if getattr(args, key))
        drawn = f"temperature {args.temperature:g}{filters}, seed {args.seed}"
    else:
        drawn = "always the most likely token (temperature 0)"
    samples = f", {args.num_samples} answers to each prompt" if args.num_samples > 1 else ""
    return (
        f"Type a prompt, ended by {end}. Ctrl-C stops an answer; Ctrl-D, or Ctrl-C before anything is typed, leaves.\n"
        f"Answers: {drawn}, at most {args.maximum_tokens} tokens{samples}."
    )


class Answers:
    """Gives answers, each with the random numbers of a sample of its own. All ranks call the same methods."""

    def __init__(
        self,
        settings: CompletionSettings,
        tokenizer: Tokenizer,
        decoder: Decoder,
        group: Group,
        voice: Voice,
        interrupts: list[int],
    ) -> None:
        self._settings, self._tokenizer, self._decoder = settings, tokenizer, decoder
        self._group, self._voice, self._interrupts = group, voice, interrupts
        self._answered = 0

    def give(self, prompt: str, count: int) -> None:
        """Show `count` answers to a prompt, fewer when they are interrupted. Raises DataError for a prompt that cannot be completed."""
        tokens = encode_prompt(self._tokenizer, prompt)
        self._decoder.check_prompts([tokens])
        self._interrupts.clear()
        for _ in range(count):
            self._voice.begin(prompt)
            completion = self._stream(tokens)
            self._voice.end(completion)
            if completion.finish_reason == "interrupted":
                return

    def _stream(self, tokens: Sequence[int]) -> Completion:
        settings, number = self._settings, self._answered
        self._answered += 1
        row = row_of(self._tokenizer, tokens, settings, follow_text=True)
        reason = reason_to_stop(self._decoder, [tokens], settings)
        for _ in decode_rows(self._decoder, [tokens], [row], settings, samples=[number]):
            self._voice.say(row.new_text)
            if not row.ended and self._agree_to_stop():
                reason = "interrupted"
                break
        cut = not row.ended
        completion = row.completion(reason)
        if cut:
            self._voice.say(row.new_text)  # what was held back
        return completion

    def _agree_to_stop(self) -> bool:
        """Whether rank 0 was interrupted."""
        if self._group.size == 1:
            return bool(self._interrupts)
        told = torch.tensor([len(self._interrupts)])
        dist.broadcast(told, src=self._group.ranks[0], group=self._group.handle)
        return bool(told.item())


def _next_prompt(keyboard: Keyboard | None, group: Group, screen: Console) -> str | None:
    """Rank 0's prompt, on every rank; None when the person leaves."""
    prompt: str | None = None
    while keyboard is not None:
        try:
            prompt = keyboard.prompt()
            (prompt or "").encode()
        except UnicodeError:
            screen.print("error: the prompt is no text (UTF-8): type it again", markup=False)
            continue
        if prompt != "":
            break
        screen.print("error: the prompt is empty: type at least one character", markup=False)
    agreed: str | None = broadcast_object(prompt, group)
    return agreed


@contextmanager
def noting_interrupts() -> Iterator[list[int]]:
    """Within it, SIGINT is noted and ends nothing."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)

"""A conversation at rank 0: what is shown is the completion, Ctrl-C stops an answer, mistakes end nothing."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from megatron.components import TOKENIZERS
from megatron.generation import interactive
from megatron.generation.complete import CompletionSettings, complete
from megatron.generation.decode import Decoder, DecodingStep
from megatron.generation.interactive import Answers, converse, noting_interrupts, opening
from megatron.generation.rows import Completion
from megatron.generation.sampling import SamplingSettings
from megatron.generation.voice import Voice
from megatron.initialize import World
from megatron.mpu.groups import SINGLE, single_process_groups
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer
from tests.unit.generation.test_complete import ShiftedTokenizer
from tests.unit.generation.test_decode import model
from tests.unit.tokenizer.small import every_kind

WORLD = World(single_process_groups(), torch.device("cpu"))
SAMPLING = CompletionSettings(8, SamplingSettings(temperature=1.0), seed=3)


class Script(Decoder):
    """Decodes given tokens. before_token: called before each of them."""

    def __init__(self, tokens: Sequence[int], before_token: Any = None) -> None:
        self.max_positions = 1 << 20
        self._tokens, self._before_token = tokens, before_token

    def steps(self, *inputs: Any, **options: Any) -> Iterator[DecodingStep]:
        for number, token in enumerate(self._tokens):
            if self._before_token:
                self._before_token(number)
            yield DecodingStep(torch.tensor([token]), torch.zeros(1))


class Heard(Voice):
    """Keeps what is said to it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.completions: list[Completion] = []

    def begin(self, prompt: str) -> None: ...

    def say(self, text: str) -> None:
        self.pieces.append(text)

    def end(self, completion: Completion) -> None:
        self.completions.append(completion)


class Later(list[int]):
    """Interrupts of which the first one comes after a number of tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self._left = tokens

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0


def arguments(**changes: Any) -> Any:
    values = {"prompt_end": "\n", "num_samples": 1, "temperature": 1.0, "top_k": 0, "top_p": 0.9, "seed": 3}
    return SimpleNamespace(**{**values, "maximum_tokens": 8, **changes})


def conversation(
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    *,
    settings: CompletionSettings = SAMPLING,
    decoder: Decoder | None = None,
    tokenizer: Tokenizer | None = None,
    **changes: Any,
) -> str:
    """What is printed when `typed` is piped in."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    printed = io.StringIO()
    decoder = decoder or Decoder(model(), vocab_size=61, max_positions=16)
    screen = Console(file=printed, highlight=False, soft_wrap=True, width=20)
    converse(arguments(**changes), settings, WORLD, tokenizer or ShiftedTokenizer(), decoder, screen)
    return printed.getvalue().removeprefix(opening(arguments(**changes)) + "\n")


@pytest.mark.parametrize("kind", tuple(TOKENIZERS))
@pytest.mark.parametrize("interrupted", [False, True])
def test_what_is_shown_piece_by_piece_is_the_text_of_the_completion(
    kind: str, interrupted: bool, kinds: dict[str, Tokenizer]
) -> None:
    tokenizer = kinds[kind]
    draw = random.Random(kind)
    for _ in range(60):
        prompt = draw.choice(["", "return self", "日本", "a "])
        # Single tokens break characters apart; pieces of text have them whole.
        tokens = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(20))]
        tokens += tokenizer.tokenize(draw.choice(["", " x\n\ny", "🙂👩‍👩‍👧 stop", "Ünïcödé 日本語 sto"]))
        stop = draw.choice([(), ("stop",), ("\n\n", "語"), ("\N{REPLACEMENT CHARACTER}",), ("x",)])
        heard = Heard()
        interrupts = Later(len(tokens) // 2) if interrupted else []
        decoder = Script(tokens)
        settings = CompletionSettings(1 << 19, stop_strings=stop)
        Answers(settings, tokenizer, decoder, SINGLE, heard, interrupts).give(prompt, 1)
        (completion,) = heard.completions
        assert "".join(heard.pieces) == completion.text, (tokens, prompt, stop)
        assert not any(each in completion.text for each in stop)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return {
        name: build_tokenizer(settings) for name, settings in every_kind(tmp_path_factory.mktemp("talk_kinds")).items()
    }


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    heard = Heard()
    tokens = [*b"ab", *"é".encode(), *b"sstoo"]
    settings = CompletionSettings(1 << 19, stop_strings=("stop",))
    Answers(settings, Bytes(), Script(tokens), SINGLE, heard, []).give("A", 1)
    assert heard.pieces == ["a", "b", "", "é", "", "s", "", "", "stoo", ""]


class Bytes(ShiftedTokenizer):
    """One token a byte of UTF-8."""

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def detokenize(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


def test_piped_prompts_are_completed_one_after_the_other_each_as_a_sample_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = Decoder(model(), vocab_size=61, max_positions=16)
    expected = complete(decoder, ShiftedTokenizer(), ["AB", "AB", "C", "C"], SAMPLING)
    assert expected[0].text != expected[1].text
    printed = conversation(monkeypatch, "AB\nC\n", decoder=decoder, num_samples=2)
    rule = "─" * 20 + "\n"
    assert printed == "".join(f"{rule}{each.prompt}{each.text}\n" for each in expected)


def test_a_prompt_may_have_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = conversation(
        monkeypatch, "def\tf:\n  x<end>\n", decoder=Script([]), prompt_end="<end>", tokenizer=Bytes()
    )
    assert printed == "─" * 20 + "\ndef\tf:\n  x\n"


def test_a_prompt_that_cannot_be_completed_is_told_and_the_conversation_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = conversation(monkeypatch, f"\n{'A' * 16}\n\ud800\nAB\n").split("\n")
    assert told[0] == "error: the prompt is empty: type at least one character"
    assert told[1].startswith("error: a prompt has 16 tokens, and the model reads at most 16")
    assert told[2] == "error: the prompt is no text (UTF-8): type it again"
    assert told[3:5] == ["─" * 20, told[4]]
    assert told[4].startswith("AB")


def test_ctrl_c_stops_one_answer_and_the_next_prompt_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def before_token(number: int) -> None:
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)

    printed = conversation(
        monkeypatch, "A\nB\n", decoder=Script(list(b"xyzuvw"), before_token), tokenizer=Bytes(), num_samples=3
    )
    rule = "─" * 20 + "\n"
    assert printed == f"{rule}Axyzu\n(stopped)\n{rule}Bxyzu\n(stopped)\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_nothing_is_typed_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.StringIO):
        def readline(self, *inputs: Any) -> str:
            os.kill(os.getpid(), signal.SIGINT)
            return ""

    monkeypatch.setattr(sys, "stdin", Interrupted())
    screen = Console(file=io.StringIO())
    converse(arguments(), SAMPLING, WORLD, ShiftedTokenizer(), Script([]), screen)


def test_a_model_cannot_steer_the_terminal() -> None:
    printed = io.StringIO()
    text = "\x1b]0;title\x07 a\tb\r\n\x9b31m\x7f é"
    Voice(Console(file=printed), on_terminal=True).say(text)
    Voice(Console(file=printed), on_terminal=False).say(text)
    assert printed.getvalue() == "␛]0;title␇ a\tb␍\n\N{REPLACEMENT CHARACTER}31m␡ é" + text


def test_a_prompt_of_a_file_is_bold_where_that_is_seen() -> None:
    for terminal, name, shown in (
        (True, "xterm", "\x1b[1ma\tb␇\x1b[22m"),
        (True, "dumb", "a\tb␇"),
        (False, "xterm", "a\tb\a"),
    ):
        printed = io.StringIO()
        screen = Console(file=printed, force_terminal=terminal, _environ={"TERM": name}, width=20)
        Voice(screen, on_terminal=terminal).show("a\tb\a")
        assert printed.getvalue().endswith("\n" + shown)


def test_the_opening_says_how_answers_are_drawn_and_how_to_leave() -> None:
    assert "Ctrl-D" in opening(arguments())
    assert "temperature 1, top_p 0.9, seed 3, at most 8 tokens." in opening(arguments())
    assert "always the most likely token (temperature 0)" in opening(arguments(temperature=0.0))
    assert "ended by '<end>' at the end of a line" in opening(arguments(prompt_end="<end>"))
    assert "2 answers to each prompt" in opening(arguments(num_samples=2))


def test_without_a_terminal_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    conversation(monkeypatch, "AB\n")
    assert not list(tmp_path.iterdir())


def test_interrupts_are_noted_only_within() -> None:
    with noting_interrupts() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert interactive.PATIENCE.days >= 1

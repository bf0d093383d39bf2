"""Where prompts come from: nowhere (unconditional), or a file (a person's are those of `keyboard.py`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from megatron.errors import DataError
from megatron.generation.complete import encode_prompt
from megatron.generation.decode import too_long
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as tokens."""

    text: str
    tokens: tuple[int, ...]


def read_prompts(args: NeoXArgs, tokenizer: Tokenizer) -> list[Prompt]:
    """The configured prompts; unconditionally that is the beginning of a document.

    Raises DataError when their file cannot be read, and for the first prompt that leaves no room for a single token.
    """
    if args.text_gen_type == "unconditional":
        return [Prompt("", (tokenizer.eod,))]
    assert args.sample_input_file
    prompts = []
    for line, text in prompts_of_file(args.sample_input_file).items():
        tokens = encode_prompt(tokenizer, text)
        if len(tokens) >= args.max_position_embeddings:
            problem = too_long(f"the prompt in line {line}", len(tokens), args.max_position_embeddings)
            raise DataError(f'"sample_input_file" is "{args.sample_input_file}": {problem}')
        prompts.append(Prompt(text, tuple(tokens)))
    return prompts


def prompts_of_file(path: str) -> dict[int, str]:
    """Prompts by the number of their line (from 1), in file order; empty lines are skipped.

    Raises DataError when the file is missing, is no text, or holds no prompt.
    """
    if not os.path.isfile(path):  # which never raises
        raise DataError(
            f'"sample_input_file" is "{path}": there is no such file; give a text file with one prompt a line'
        )
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f'"sample_input_file" is "{path}": it cannot be read ({error.strerror})') from error
    except UnicodeDecodeError as error:
        raise DataError(
            f'"sample_input_file" is "{path}": byte {error.start} is not UTF-8; save the file as UTF-8 text'
        ) from error
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    prompts = {number: line for number, line in enumerate(lines, start=1) if line.strip()}
    if not prompts:
        raise DataError(f'"sample_input_file" is "{path}": the file holds no prompt; write one prompt a line')
    return prompts

"""Chat templates of the Hugging Face kind: Jinja that makes one text of a list of messages, rendered as transformers does, without it.

A template sees `messages`, `add_generation_prompt` and the special tokens that the tokenizer's files name (`bos_token`, ...). It runs in a
sandbox, as it may come from anybody. Facts: https://huggingface.co/docs/transformers/chat_templating_writing
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from megatron.data.derived.generation import GenerationBlocks, has_blocks, has_marks, take_out_marks
from megatron.data.inputs.records import BadRecord, checked
from megatron.errors import DataError


@dataclass(frozen=True)
class ChatTemplate:
    """A template and what else its text depends on; able to travel to a worker. origin: the file, for messages; today: what
    `strftime_now` gives, fixed so that a run that is continued tomorrow is the same run."""

    source: str
    origin: str
    special_tokens: tuple[tuple[str, str], ...] = ()
    today: date = date(2000, 1, 1)

    @property
    def marks_generation(self) -> bool:
        """Whether it has {% generation %} blocks."""
        return has_blocks(self.source)

    @property
    def asks_for_date(self) -> bool:
        """Whether its text may depend on the date."""
        return "strftime_now" in self.source

    def fingerprint(self) -> str:
        """A digest that differs whenever two templates may give different texts on one day."""
        return hashlib.sha256(repr((self.source, self.special_tokens)).encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Rendered:
    """A text, and the spans [begin, end) of characters in {% generation %} blocks."""

    text: str
    generated: tuple[tuple[int, int], ...]


class Renderer:
    """Renders with a template, compiled once. Raises DataError when the template is not valid Jinja."""

    def __init__(self, template: ChatTemplate) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = template.today.strftime
        self.marks_generation = template.marks_generation
        self._names: dict[str, Any] = {"tools": None, "documents": None, **dict(template.special_tokens)}
        try:
            self._template = environment.from_string(template.source)
        except jinja2.TemplateSyntaxError as error:
            raise DataError(
                f"{template.origin} is not a Jinja template: line {error.lineno}: {str(error.message).rstrip('.')}. "
                "Correct it, or give another one with --chat-template."
            ) from None

    def render(self, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool = False) -> Rendered:
        """The text of messages. Raises BadRecord when the template refuses them or fails."""
        try:
            text = self._template.render(
                self._names, messages=list(messages), add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # whatever its expressions raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadRecord(f"cannot be rendered by the chat template: {reason}") from None
        return Rendered(*take_out_marks(checked(text))) if self.marks_generation else Rendered(checked(text), ())


def check_unmarked(value: Any, key: str) -> None:
    """Raise BadRecord when a JSON value has a character that, in rendering, marks {% generation %} blocks."""
    if has_marks(json.dumps(value, ensure_ascii=False)):
        raise BadRecord(f'has the code U+FDD0 or U+FDD1 under "{key}", which is not a character: remove it.')


def _to_json(value: Any, **options: Any) -> str:
    """JSON as it is, where Jinja's own filter would write it for HTML."""
    return json.dumps(value, **{"ensure_ascii": False} | options)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

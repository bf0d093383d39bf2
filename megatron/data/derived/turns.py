"""Which characters of a rendered conversation are trained on: those of the turns of the trained roles.

A template with {% generation %} blocks says so itself. Otherwise the beginnings of the conversation are rendered as well: the text of
message i is what the conversation up to and including it has beyond what a model is given to continue, which is the text of the messages
before it with the generation prompt; or without, where the prompt is for another role, or the template has none. This needs a template that
writes the first messages the same whether or not others follow; one that does not is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from megatron.data.derived.chat_template import Renderer
from megatron.data.inputs.records import BadRecord

Messages: TypeAlias = Sequence[dict[str, Any]]
Spans: TypeAlias = tuple[tuple[int, int], ...]
"""[begin, end) of characters."""

FIX = "give a template with {% generation %} blocks (--chat-template), or train on the last turn alone (--only-last)."


def render_turns(messages: Messages, renderer: Renderer, *, roles: Sequence[str], only_last: bool) -> tuple[str, Spans]:
    """The text of a conversation, and what of it is trained on: the turns of `roles`, or of those the last one. Raises BadRecord."""
    whole = renderer.render(messages)
    if renderer.marks_generation:
        return whole.text, whole.generated[-1:] if only_last else whole.generated
    turns = [i for i, message in enumerate(messages) if message["role"] in roles]
    spans = tuple(_span(messages, i, renderer, whole.text) for i in (turns[-1:] if only_last else turns))
    return whole.text, spans


def _span(messages: Messages, i: int, renderer: Renderer, whole: str) -> tuple[int, int]:
    through = whole if i + 1 == len(messages) else renderer.render(messages[: i + 1]).text
    if not whole.startswith(through):
        raise BadRecord(
            f"has a message {i + 1} whose text cannot be told: the chat template writes the first {i + 1} messages in another way "
            f"when others follow; {FIX}"
        )
    for with_prompt in (True, False):
        before = _before(messages[:i], renderer, with_prompt=with_prompt)
        if through.startswith(before):
            return len(before), len(through)
    raise BadRecord(
        f"has a message {i + 1} whose text cannot be told: the chat template writes the messages before it in another way when it "
        f"follows; {FIX}"
    )


def _before(messages: Messages, renderer: Renderer, *, with_prompt: bool) -> str:
    """What a model is given to continue after some messages."""
    try:
        return renderer.render(messages, add_generation_prompt=with_prompt).text
    except BadRecord as error:
        if messages:
            raise
        raise BadRecord(
            f"has a first message whose text cannot be told, as nothing before it {error}: begin with a message of another role, or give "
            "a template with {% generation %} blocks (--chat-template)."
        ) from None

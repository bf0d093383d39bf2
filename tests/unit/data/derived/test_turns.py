"""Which characters are trained on, for templates of the usual kinds."""

from __future__ import annotations

import pytest

from megatron.data.derived.chat_template import ChatTemplate, Renderer
from megatron.data.derived.turns import render_turns
from megatron.data.inputs.records import BadRecord
from tests.unit.data.derived import chats
from tests.unit.data.derived.chats import chat

TALK = chat("system: S", "user: a", "assistant: b", "user: c", "assistant:  d ")


def trained(
    source: str, messages: list[dict[str, str]], *, only_last: bool = False, roles: str = "assistant"
) -> list[str]:
    """The texts of the spans that are trained on."""
    renderer = Renderer(ChatTemplate(source, "a test", (("bos_token", "<s>"), ("eos_token", "</s>"))))
    text, spans = render_turns(messages, renderer, roles=roles.split(), only_last=only_last)
    return [text[begin:end] for begin, end in spans]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (chats.CHATML, ["b<|im_end|>\n", " d <|im_end|>\n"]),
        (chats.CHATML_WITH_BLOCKS, ["b<|im_end|>", " d <|im_end|>"]),
        (chats.LLAMA3, ["b<|turn|>", "d<|turn|>"]),
        (chats.LLAMA2, [" b </s>", " d </s>"]),
    ],
    ids=["ChatML", "ChatML with blocks", "Llama 3", "Llama 2"],
)
def test_the_turns_of_the_assistant_are_trained_on(source: str, expected: list[str]) -> None:
    assert trained(source, TALK) == expected
    assert trained(source, TALK, only_last=True) == expected[-1:]
    assert trained(source, TALK[:4]) == expected[:1]
    assert trained(source, TALK[:2]) == []


def test_the_last_trained_turn_need_not_be_the_last_message() -> None:
    assert trained(chats.CHATML, TALK[:4], only_last=True) == ["b<|im_end|>\n"]


def test_other_roles_are_trained_on_with_their_headers() -> None:
    """The generation prompt is the assistant's: another role has to write its own."""
    assert trained(chats.CHATML, TALK[:2], roles="user") == ["<|im_start|>user\na<|im_end|>\n"]
    assert trained(chats.LLAMA3, TALK, roles="system assistant")[0] == "<|header|>system<|header|>\n\nS<|turn|>"
    assert len(trained(chats.LLAMA3, TALK, roles="system assistant")) == 3


def test_a_template_without_generation_prompt_leaves_the_header_to_the_turn() -> None:
    source = chats.CHATML.split("{% if add_generation_prompt")[0]
    assert trained(source, TALK[:3]) == ["<|im_start|>assistant\nb<|im_end|>\n"]


def test_a_template_that_rewrites_earlier_turns_is_refused_unless_only_the_last_counts() -> None:
    with pytest.raises(
        BadRecord, match=r"message 3 whose text cannot be told: .* when others follow; give a template with"
    ):
        trained(chats.UNSTABLE, TALK)
    assert trained(chats.UNSTABLE, TALK[1:], only_last=True) == ["assistant: d \n"]
    assert trained(chats.UNSTABLE, TALK[1:3]) == ["assistant:b\n"]


def test_a_template_that_rewrites_what_was_before_is_refused() -> None:
    source = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(BadRecord, match="writes the messages before it in another way when it follows"):
        trained(source, TALK, only_last=True)


def test_a_conversation_may_begin_with_a_trained_turn_where_the_template_can_begin_with_nothing() -> None:
    assert trained(chats.CHATML, TALK[2:3]) == ["b<|im_end|>\n"]
    with pytest.raises(
        BadRecord, match="a first message whose text cannot be told, as nothing before it cannot be rendered"
    ):
        trained(chats.LLAMA2.replace("raise_exception('Roles", "('Roles"), TALK[2:3])

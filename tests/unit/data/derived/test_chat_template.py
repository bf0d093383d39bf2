"""Templates: what they see, and that they can do what those of the Hugging Face hub do, and nothing more."""

from __future__ import annotations

from datetime import date

import pytest

from megatron.data.derived.chat_template import ChatTemplate, Renderer
from megatron.data.derived.generation import take_out_marks
from megatron.data.inputs.records import BadRecord
from megatron.errors import DataError
from tests.unit.data.derived.chats import chat

TODAY = date(2024, 7, 26)
TURNS = chat("user: 1 < 2", "assistant: é")


def render(source: str, *, prompt: bool = False, **special_tokens: str) -> str:
    """The text of TURNS."""
    template = ChatTemplate(source, "a test", tuple(special_tokens.items()), TODAY)
    return Renderer(template).render(TURNS, add_generation_prompt=prompt).text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ messages[0].content | tojson }}", '"1 < 2"'),
        ("{{ messages[1] | tojson(indent=1) }}", '{\n "role": "assistant",\n "content": "é"\n}'),
        ("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}", "user"),
        ("{% for m in messages %}\n  {% if loop.last %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}\n", "assistant\n"),
        ("{{ bos_token }}{{ eos_token }}|{{ missing }}", "<s>|"),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ messages[0]['content'].split('<')[1] }}", " 2"),
        ("{% set n = namespace(x=0) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}", "2"),
        ("{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a }}", "1"),
        ("{{ tools is defined }} {{ documents }}", "True None"),
    ],
)
def test_templates_are_rendered_as_transformers_renders_them(source: str, expected: str) -> None:
    """The expectations are what transformers 4.57 gives."""
    assert render(source, bos_token="<s>") == expected


def test_the_prompt_is_written_on_request() -> None:
    source = "{% if add_generation_prompt %}prompt{% else %}none{% endif %}"
    assert (render(source), render(source, prompt=True)) == ("none", "prompt")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('Only user may speak!') }}", "Only user may speak!"),
        ("{{ raise_exception('') }}", "template: TemplateError$"),
        ("{{ raise_exception('two\nlines') }}", "template: two lines$"),
        ("{{ messages[7].content }}", "no element 7"),
        ("{{ messages + 1 }}", "list"),
        ("{{ messages.append(1) }}", "attribute 'append' of 'list' object is unsafe"),
        ("{{ ''.__class__.__mro__ }}", "is unsafe"),
        (
            "{% for m in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
            "leave a {% generation %}",
        ),
        ("{% set x %}{% generation %}a{% endgeneration %}{% endset %}{{ x[1:] }}", "write half of a {% generation %}"),
    ],
)
def test_what_a_template_raises_is_the_records_fault(source: str, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        render(source)


def test_a_template_that_is_no_jinja_is_told_with_its_line() -> None:
    with pytest.raises(DataError, match=r"a test is not a Jinja template: line 2: .*--chat-template"):
        render("{% if x %}\n{% endfor %}")


def test_two_templates_of_one_fingerprint_give_one_text() -> None:
    plain = ChatTemplate("{{ bos_token }}", "a")
    assert plain.fingerprint() == ChatTemplate("{{ bos_token }}", "b", today=TODAY).fingerprint()
    others = (ChatTemplate("{{ bos_token }} ", "a"), ChatTemplate("{{ bos_token }}", "a", (("bos_token", "<s>"),)))
    assert len({plain.fingerprint(), *(other.fingerprint() for other in others)}) == 3


def test_generated_characters_are_counted_in_the_text_without_marks() -> None:
    source = "ab{% generation %}cd{% endgeneration %}e{% generation %}{% endgeneration %}{% generation %}é{% endgeneration %}"
    rendered = Renderer(ChatTemplate(source, "a test")).render([])
    assert (rendered.text, rendered.generated) == ("abcdeé", ((2, 4), (5, 5), (5, 6)))
    assert take_out_marks("no marks") == ("no marks", ())


def test_blocks_may_be_inside_others() -> None:
    """The outer one ends last, and is the last one."""
    source = "a{% generation %}b{% generation %}c{% endgeneration %}d{% endgeneration %}e"
    rendered = Renderer(ChatTemplate(source, "a test")).render([])
    assert (rendered.text, rendered.generated) == ("abcde", ((2, 3), (1, 4)))

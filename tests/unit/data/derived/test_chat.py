"""From records to tokens, labels and rewards that stay aligned; expectations are worked out by hand from the merges of `chats`."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron.data.derived.chat import ChatRecipe
from megatron.data.derived.offsets import read_offset_engine, touched
from megatron.data.derived.template_files import load_chat_template
from megatron.data.encoding.files import EncodedFiles, encode_files
from megatron.data.encoding.manifest import describe_recipe
from megatron.data.indexed_dataset import IndexedDataset
from megatron.errors import DataError
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.hf import HFTokenizer
from tests.unit.data.derived import chats
from tests.unit.data.derived.chats import SPECIAL, chat, write_tokenizer
from tests.unit.data.encoding.test_files import write_lines
from tests.unit.data.encoding.test_texts import CHARACTERS

DAY = date(2024, 7, 26)
BAR = "|"


def recipe_of(directory: Path, source: str = chats.CHATML, *, eos_token: str = "</s>", **options: Any) -> ChatRecipe:
    """A recipe for the key "m" with a tokenizer in `directory`."""
    write_tokenizer(directory, eos_token=eos_token, chat_template=source)
    template = load_chat_template(directory, file=None, today=options.pop("today", DAY))
    settings = TokenizerSettings("HFTokenizer", str(directory))
    return ChatRecipe(settings, keys=options.pop("keys", ("m",)), template=template, **options)


def encoded(directory: Path, recipe: ChatRecipe, *records: object, **options: Any) -> EncodedFiles:
    """Records encoded into `x` in a directory."""
    path = write_lines(directory / "in.jsonl", *records)
    return encode_files([path], recipe, output_prefix=directory / "x", **options)


def pieces(directory: Path, name: str) -> list[str]:
    """Each document of an output as the texts of its tokens, divided by bars; tokens that are not trained on are dots."""
    tokenizer = HFTokenizer.from_file(directory / "tok")
    dataset = IndexedDataset(directory / f"x_{name}_document")
    return [
        BAR.join("." if token == -100 else tokenizer.detokenize([token]) for token in dataset[i].tolist())
        for i in range(len(dataset))
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_tokens_are_those_of_the_whole_text_and_labels_those_of_the_turns(workers: int, tmp_path: Path) -> None:
    """` yes` is one token, half of which is the template's: it is trained on. So is `.` with the line feed behind it, and the appended end."""
    source = "{% for m in messages %}{{ m.role[0] + ': ' + m.content + '\\n' }}{% endfor %}{% if add_generation_prompt %}a: {% endif %}"
    recipe = recipe_of(tmp_path / "tok", source)
    talks = [
        chat("user: no", "assistant: yes."),
        [],
        chat("user: a"),
        chat("user: é", "assistant: yesyes", "user: no."),
    ]
    counts = encoded(tmp_path, recipe, *({"m": talk} for talk in talks), workers=workers).counts
    assert pieces(tmp_path, "m") == [
        "u|:| |no|\n|a|:| yes|.\n|</s>",
        "u|:| |a|\n|</s>",
        "u|:| |\ufffd|\ufffd|\n|a|:| yes|y|e|s|\n|u|:| |no|.\n|</s>",
    ]
    assert pieces(tmp_path, "m_label") == [
        ".|.|.|.|.|.|.| yes|.\n|</s>",
        ".|.|.|.|.|.",
        ".|.|.|.|.|.|.|.| yes|y|e|s|\n|.|.|.|.|.|.",
    ]
    assert (counts.documents, counts.skipped, counts.untrained) == (3, 1, 1)
    datasets = [IndexedDataset(tmp_path / f"x_{name}_document") for name in ("m", "m_label")]
    assert [dataset.dtype for dataset in datasets] == [np.uint16, np.int32]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ".|.|.|.|no|<|turn|>|.|.|.|.|no|<|turn|>|</s>"),
        ({"trained": "last turn"}, ".|.|.|.|.|.|.|.|.|.|no|<|turn|>|</s>"),
        ({"trained": "last token"}, ".|.|.|.|.|.|.|.|.|.|.|.|</s>"),
        ({"roles": ("user",)}, ".|y|<|turn|>|.|.|.|y|y|<|turn|>|.|.|.|."),
    ],
)
def test_what_is_trained_on_can_be_chosen(options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ 'A' }}{% endif %}{{ m.content + '<|turn|>' }}"
        "{% endfor %}{% if add_generation_prompt %}A{% endif %}"
    )
    recipe = recipe_of(tmp_path / "tok", source, **options)
    encoded(tmp_path, recipe, {"m": chat("user: y", "assistant: no", "user: yy", "assistant: no")})
    assert pieces(tmp_path, "m") == ["<s>|y|<|turn|>|A|no|<|turn|>|y|y|<|turn|>|A|no|<|turn|>|</s>"]
    assert pieces(tmp_path, "m_label") == [expected]


def test_an_end_that_is_there_is_not_appended_again(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "tok", chats.LLAMA2)
    encoded(tmp_path, recipe, {"m": chat("user: no", "assistant: yes", "user: no", "assistant: .")})
    assert pieces(tmp_path, "m") == [
        "<s>|[|I|N|S|T|]| |no| |[|/|I|N|S|T|]| yes| |</s>|<s>|[|I|N|S|T|]| |no| |[|/|I|N|S|T|]| |.| |</s>"
    ]
    assert pieces(tmp_path, "m_label")[0].count("</s>") == 2


def test_without_mask_there_are_no_labels(tmp_path: Path) -> None:
    result = encoded(tmp_path, recipe_of(tmp_path / "tok", trained="all"), {"m": chat("user: no")})
    assert [one.key for one in result.datasets] == ["m"]


@pytest.mark.parametrize("trained", ["last token", "all"])
def test_where_turns_do_not_matter_the_template_need_not_tell_them(trained: str, tmp_path: Path) -> None:
    talk = {"m": chat("user: a", "assistant: b", "user: c", "assistant: d")}
    assert encoded(tmp_path, recipe_of(tmp_path / "tok", chats.UNSTABLE, trained=trained), talk).counts.documents == 1
    with pytest.raises(DataError, match=r"in\.jsonl:1 has a message 2 whose text cannot be told"):
        encoded(tmp_path, recipe_of(tmp_path / "tok", chats.UNSTABLE), talk)


def test_pairs_and_rewards_stay_aligned(tmp_path: Path) -> None:
    """A record that is left out of one output is left out of all."""
    recipe = recipe_of(tmp_path / "tok", keys=("chosen", "rejected"), reward_key="r")
    yes, no = chat("user: a", "assistant: yes"), chat("user: a", "assistant: no")
    records = [
        {"chosen": yes, "rejected": no, "r": True},
        {"chosen": [], "rejected": no, "r": True},
        {"chosen": yes, "rejected": [{"content": "?"}], "r": 1},
        {"chosen": yes, "rejected": [], "r": 1},
        {"chosen": no, "rejected": yes, "r": -0.5},
        {"chosen": no, "rejected": no, "r": False},
    ]
    result = encoded(tmp_path, recipe, *records, on_error="skip", workers=2)
    names = [f"{key}{kind}" for key in ("chosen", "rejected") for kind in ("", "_label", "_reward")]
    assert [(one.key, one.documents) for one in result.datasets] == [(name, 3) for name in names]
    assert [line.lstrip(".|") for line in pieces(tmp_path, "chosen_label")] == [
        *("y|e|s|<|im_end|>|\n|</s>", "no|<|im_end|>|\n|</s>", "no|<|im_end|>|\n|</s>")
    ]
    for key in ("chosen", "rejected"):
        rewards = IndexedDataset(tmp_path / f"x_{key}_reward_document")
        assert (rewards.dtype, [rewards[i].tolist() for i in range(3)]) == (np.float32, [[1.0], [-0.5], [-1.0]])
    assert (result.counts.skipped, result.counts.bad) == (2, 1)
    assert result.bad[0].startswith(
        f'{tmp_path}/in.jsonl:3 has a message 1 under "rejected" without a text as "role" (it has "content")'
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([], "holds a list, not an object with conversations"),
        ({"x": []}, r'has no key "m" \(it has "x"\)'),
        ({"m": "text"}, 'has a text under "m", where a list of messages is needed'),
        ({"m": ["text"]}, 'has a text as message 1 under "m", where an object is needed'),
        ({"m": [{"from": "user"}]}, 'message 1 under "m" without a text as "role"'),
        ({"m": [{"role": "user", "content": 1}]}, 'has a number as "content" of message 1 under "m"'),
        ({"m": [{"role": "user"}]}, 'has a null as "content"'),
        ({"m": chat("user: a", "user: b")}, "cannot be rendered by the chat template: Roles must take turns"),
        ({"m": chat("user: \ud800")}, "half of a surrogate pair"),
    ],
)
def test_a_bad_record_ends_the_work_with_its_place_or_is_left_out(record: object, reason: str, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "tok", chats.LLAMA2)
    good = {"m": chat("user: a", "assistant: b")}
    with pytest.raises(DataError, match=rf"in\.jsonl:2 .*{reason}"):
        encoded(tmp_path, recipe, good, record)
    counts = encoded(tmp_path, recipe, good, record, good, on_error="skip").counts
    assert (counts.documents, counts.bad) == (2, 1)


@pytest.mark.parametrize(
    ("reward", "reason"),
    [
        (None, "a null"),
        ("1", "a text"),
        (1e999, "the reward inf"),
        (float("nan"), "the reward nan"),
        (-1e39, r"the reward -1e\+39"),
        (10**400, "the reward 10000000000000000000"),
    ],
)
def test_a_reward_is_a_finite_number(reward: object, reason: str, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "tok", reward_key="r")
    with pytest.raises(DataError, match=rf'in\.jsonl:1 has {reason} under "r"'):
        encoded(tmp_path, recipe, {"m": chat("user: a"), "r": reward})


def test_conversations_come_from_parquet_and_not_from_plain_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    recipe = recipe_of(tmp_path / "tok")
    talk = chat("user: no", "assistant: yes")
    encoded(tmp_path, recipe, {"m": talk})
    expected = pieces(tmp_path, "m_label")
    parquet.write_table(pyarrow.table({"m": [talk], "other": [1]}), tmp_path / "a.parquet")
    encode_files([tmp_path / "a.parquet"], recipe, output_prefix=tmp_path / "x")
    assert pieces(tmp_path, "m_label") == expected
    (tmp_path / "a.txt").write_text("no conversation")
    with pytest.raises(DataError, match=r"a\.txt is plain text, which is no conversation"):
        encode_files([tmp_path / "a.txt"], recipe, output_prefix=tmp_path / "x")


def test_texts_of_messages_are_repaired_on_request(tmp_path: Path) -> None:
    pytest.importorskip("ftfy")
    encoded(
        tmp_path, recipe_of(tmp_path / "tok", "{{ messages[0].content }}", fix_text=True), {"m": chat("user: schÃ¶n")}
    )
    assert len(IndexedDataset(tmp_path / "x_m_document")[0]) == len("schön".encode()) + 1


def test_resume_with_any_other_option_would_be_refused(tmp_path: Path) -> None:
    dated = chats.CHATML + "{{ strftime_now('%d') }}"
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "the chat template's fingerprint": (chats.LLAMA3, {}),
        "--generation-role": (chats.CHATML, {"roles": ("user",)}),
        "--only-last": (chats.CHATML, {"trained": "last turn"}),
        "--for-rm": (chats.CHATML, {"trained": "last token"}),
        "--no-mask": (chats.CHATML, {"trained": "all"}),
        "--reward-key": (chats.CHATML, {"reward_key": "r"}),
    }
    first = describe_recipe(recipe_of(tmp_path, chats.CHATML).build_encoder())
    assert json.loads(json.dumps(first)) == first
    for name, (source, options) in changes.items():
        other = describe_recipe(recipe_of(tmp_path, source, **options).build_encoder())
        assert {key for key in first if first[key] != other[key]} == {name}
    later = date(2024, 7, 27)
    assert describe_recipe(recipe_of(tmp_path, chats.CHATML, today=later).build_encoder()) == first
    days = [describe_recipe(recipe_of(tmp_path, dated, today=day).build_encoder())["--date"] for day in (DAY, later)]
    assert days == ["2024-07-26", "2024-07-27"]


def test_roles_cannot_be_chosen_where_the_template_marks_what_is_generated(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--generation-role is user, but .* marks itself what is generated"):
        recipe_of(tmp_path, chats.CHATML_WITH_BLOCKS, roles=("user",)).build_encoder()


def test_the_reward_is_not_a_conversation(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='--reward-key is "m", which is one of --jsonl-keys'):
        recipe_of(tmp_path, reward_key="m").build_encoder()


def test_the_characters_of_generation_marks_are_refused_where_they_would_be_taken_for_marks(tmp_path: Path) -> None:
    talk = {"m": chat("user: a", "assistant: \ufdd1b")}
    with pytest.raises(DataError, match=r"in\.jsonl:1 has the code U\+FDD0 or U\+FDD1"):
        encoded(tmp_path, recipe_of(tmp_path / "tok", chats.CHATML_WITH_BLOCKS), talk)
    assert encoded(tmp_path, recipe_of(tmp_path / "tok"), talk).counts.documents == 1


def test_a_token_is_trained_on_when_one_of_its_characters_is() -> None:
    offsets = [(0, 2), (2, 4), (4, 4), (4, 5), (5, 6), (5, 6), (6, 9)]
    assert touched(offsets, ((3, 6),)).tolist() == [False, True, True, True, True, True, False]
    assert touched(offsets, ((0, 1), (8, 9))).tolist() == [True, False, False, False, False, False, True]
    assert touched(offsets, ((4, 5),)).tolist() == [False, False, True, True, False, False, False]
    assert touched(offsets, ((4, 4),)).tolist() == [False] * 7
    assert touched([], ((0, 1),)).tolist() == []


def test_offsets_count_spaces_and_ids_have_no_special_tokens_around_them(tmp_path: Path) -> None:
    engine = read_offset_engine(HFTokenizer.from_file(write_tokenizer(tmp_path)))
    encoding = engine.encode("no yes<s> .\n")
    assert encoding.offsets == [(0, 2), (2, 6), (6, 9), (9, 10), (10, 12)]
    assert encoding.ids[2] == SPECIAL.index("<s>")
    with pytest.raises(DataError, match="need a tokenizer of the Hugging Face kind, not CharLevelTokenizer"):
        read_offset_engine(build_tokenizer(CHARACTERS))

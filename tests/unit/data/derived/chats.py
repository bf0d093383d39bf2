"""Chat templates of the usual kinds, and a tokenizer whose few merges can be followed by hand, in the files of a Hugging Face model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from tests.unit.tokenizer.small import byte_characters

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|header|>", "<|turn|>")
MERGES = [("Ġ", "y"), ("Ġy", "e"), ("Ġye", "s"), (".", "Ċ"), ("n", "o")]
"""` yes` and `.` before a line feed are one token each, and "no"; other bytes are their own."""

CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CHATML_WITH_BLOCKS = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|header|>' + message['role'] + '<|header|>\\n\\n' + message['content'] | trim + '<|turn|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|header|>\\n\\n' }}
{%- endif %}
"""
LLAMA2 = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system, rest = messages[0]['content'], messages[1:] %}
{%- else %}
    {%- set system, rest = none, messages %}
{%- endif %}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must take turns, beginning with user.') }}
    {%- endif %}
    {%- set content = message['content'] | trim %}
    {%- if loop.first and system is not none %}
        {%- set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + content %}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + content + ' [/INST]' }}
    {%- else %}
        {{- ' ' + content + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""
UNSTABLE = """\
{%- for message in messages %}
    {{- message.role + ':' + (message.content if loop.last or message.role == 'user' else '...') + '\\n' }}
{%- endfor %}
"""


def write_tokenizer(directory: Path, *, eos_token: str = "</s>", **config: Any) -> Path:
    """The directory of a tokenizer that is as byte-level ones are, with offsets that leave spaces out."""
    vocabulary = {token: number for number, token in enumerate(SPECIAL)}
    for token in [*byte_characters(), *("".join(merge) for merge in MERGES)]:
        vocabulary.setdefault(token, len(vocabulary))
    engine = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(list(SPECIAL))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(engine.to_str())
    named = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"__type": "AddedToken", "content": eos_token},
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(named | config))
    return directory


def chat(*turns: str) -> list[dict[str, str]]:
    """Messages from `role: content`."""
    return [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]

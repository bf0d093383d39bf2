"""From a record to conversations as texts with the spans that are trained on, and to the reward of the record, if it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from megatron.data.derived.chat_template import Renderer, check_unmarked
from megatron.data.derived.turns import Messages, Spans, render_turns
from megatron.data.inputs.records import BadRecord, Fields, json_type, parse_record

REWARDS = {True: 1.0, False: -1.0}
REWARD_DTYPE = np.dtype("<f4")
LARGEST_REWARD = float(np.finfo(REWARD_DTYPE).max)


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation; spans: characters that are trained on; reward: the record's, or None."""

    text: str
    spans: Spans
    reward: float | None = None

    def __len__(self) -> int:
        """Characters."""
        return len(self.text)


@dataclass(frozen=True)
class ConversationFields(Fields):
    """What is taken from a record: a Conversation for each of `keys` but the one of the reward, which is the last if there is one.

    roles, only_last: what is trained on (see turns.py); fix: repairs the texts of messages first.
    """

    renderer: Renderer
    roles: tuple[str, ...]
    only_last: bool = False
    reward_key: str | None = None
    fix: Callable[[str], str] | None = None

    def of_line(self, line: bytes) -> tuple[Any, ...]:
        return self.of_record(parse_record(line))

    def of_row(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return self.of_record(dict(zip(self.keys, values, strict=True)))

    def of_text(self, text: str) -> tuple[Any, ...]:
        raise BadRecord(
            "is plain text, which is no conversation: give JSON lines, an array of JSON objects, or Parquet."
        )

    def of_record(self, record: Any) -> tuple[Any, ...]:
        """The conversations of a record; one without messages has an empty text. Raises BadRecord."""
        if not isinstance(record, dict):
            raise BadRecord(f"holds a {json_type(record)}, not an object with conversations.")
        for key in self.keys:
            if key not in record:
                there = ", ".join(f'"{one}"' for one in list(record)[:10]) or "none"
                raise BadRecord(f'has no key "{key}" (it has {there}): choose another key or remove the line.')
        reward = None if self.reward_key is None else reward_of(record[self.reward_key], self.reward_key)
        keys = [key for key in self.keys if key != self.reward_key]
        return tuple(self._conversation(record[key], key, reward) for key in keys)

    def _conversation(self, value: Any, key: str, reward: float | None) -> Conversation:
        messages = messages_of(value, key)
        if not messages:
            return Conversation("", (), reward)
        if self.renderer.marks_generation:
            check_unmarked(value, key)
        if self.fix is not None:
            messages = [_fixed(message, self.fix) for message in messages]
        return Conversation(
            *render_turns(messages, self.renderer, roles=self.roles, only_last=self.only_last), reward=reward
        )


def messages_of(value: Any, key: str) -> Messages:
    """The messages under a key: a list of objects with a role and a content, or with tool calls. Raises BadRecord."""
    if not isinstance(value, list):
        raise BadRecord(f'has a {json_type(value)} under "{key}", where a list of messages is needed.')
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise BadRecord(f'has a {json_type(message)} as message {number} under "{key}", where an object is needed.')
        if not isinstance(message.get("role"), str):
            there = ", ".join(f'"{one}"' for one in message) or "nothing"
            raise BadRecord(
                f'has a message {number} under "{key}" without a text as "role" (it has {there}): name who speaks.'
            )
        content = message.get("content")
        if not isinstance(content, str | list) and not (content is None and message.get("tool_calls")):
            raise BadRecord(
                f'has a {json_type(content)} as "content" of message {number} under "{key}", where a text is needed.'
            )
    return value


def reward_of(value: Any, key: str) -> float:
    """A reward: a finite number, or true and false for 1 and -1, whose signs say desirable and undesirable. Raises BadRecord."""
    if isinstance(value, bool):
        return REWARDS[value]
    if not isinstance(value, int | float):
        raise BadRecord(f'has a {json_type(value)} under "{key}", where a number, true or false is needed as reward.')
    if not abs(value) <= LARGEST_REWARD:
        raise BadRecord(f'has the reward {str(value)[:20]} under "{key}", which is not a finite number of 32 bits.')
    return float(value)


def _fixed(message: dict[str, Any], fix: Callable[[str], str]) -> dict[str, Any]:
    content = message.get("content")
    return message | {"content": fix(content)} if isinstance(content, str) else message


def conversation_keys(keys: Sequence[str], reward_key: str | None) -> tuple[str, ...]:
    """The keys that are read: those of conversations, then that of the reward."""
    return (*keys, *([] if reward_key is None else [reward_key]))

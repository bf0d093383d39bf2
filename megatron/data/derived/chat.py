"""From conversations to tokens, labels and rewards.

A conversation is tokenised as one text, so that its tokens are those of a model at work; the spans to train on are in characters, and the
tokenizer tells which characters each token is of. A token that reaches over the border of a span is trained on: without it a model could
not write its own first or last characters. Every conversation ends with the end-of-document token, which is appended where it is not there
already, and is trained on when the token before it is (as GPT-NeoX does with the end of sequence).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from megatron.data.derived.chat_template import ChatTemplate, Renderer
from megatron.data.derived.conversation import REWARD_DTYPE, Conversation, ConversationFields, conversation_keys
from megatron.data.derived.labels import check_distinct, label_output, labels_of
from megatron.data.derived.offsets import read_offset_engine, touched
from megatron.data.encoding.worker import Counts, EncodedBatch, Encoder, EncodeRecipe, Output
from megatron.data.inputs.pieces import Piece
from megatron.errors import DataError

ROLES = ("assistant",)
Trained: TypeAlias = Literal["turns", "last turn", "last token", "all"]


@dataclass(frozen=True, kw_only=True)
class ChatRecipe(EncodeRecipe):
    """Each key gives its tokens, their labels unless everything is trained on, and the reward if there is a key for it.

    trained: the turns of `roles`, the last of them alone, the last token alone (for reward models), or everything.
    """

    template: ChatTemplate
    roles: tuple[str, ...] = ROLES
    trained: Trained = "turns"
    reward_key: str | None = None

    def build_encoder(self) -> ChatEncoder:
        return ChatEncoder(self)


class ChatEncoder(Encoder):
    """Raises DataError when the template is not one, two outputs would have one name, or the options contradict the template."""

    def __init__(self, recipe: ChatRecipe) -> None:
        super().__init__(recipe)
        self._chat = recipe
        check_options(recipe)
        self.fields = ConversationFields(
            conversation_keys(recipe.keys, recipe.reward_key),
            renderer=Renderer(recipe.template),
            # Where turns do not matter, a template from which they could not be told serves as well.
            roles=recipe.roles if recipe.trained in ("turns", "last turn") else (),
            only_last=recipe.trained == "last turn",
            reward_key=recipe.reward_key,
            fix=self._fix,
        )
        self.outputs = tuple(output for key in recipe.keys for output in self._outputs_of(key))
        check_distinct(self.outputs)
        self._offsets = read_offset_engine(self.tokenizer)

    def take_sample(self, pieces: Sequence[Piece]) -> None:
        """None is needed: of the engines only the tokenizer itself knows which characters a token is of."""

    def choose_engine(self) -> None:
        """There is nothing to choose."""

    def options(self) -> dict[str, Any]:
        recipe, template = self._chat, self._chat.template
        return {
            "the chat template's fingerprint": template.fingerprint(),
            "--generation-role": list(recipe.roles),
            "--only-last": recipe.trained == "last turn",
            "--for-rm": recipe.trained == "last token",
            "--no-mask": recipe.trained == "all",
            "--reward-key": recipe.reward_key,
            "--date": template.today.isoformat() if template.asks_for_date else None,
        }

    def encode(self, documents: Sequence[tuple[Any, ...]]) -> EncodedBatch:
        """Tokenise documents of one Conversation a key. One that has no tokens under some key is left out of all outputs."""
        columns = [self._encode_column([document[k] for document in documents]) for k in range(len(self.recipe.keys))]
        kept = [i for i in range(len(documents)) if all(len(column[i].ids) for column in columns)]
        parts = [
            part
            for k, column in enumerate(columns)
            for part in self._parts([column[i] for i in kept], [documents[i][k].reward for i in kept])
        ]
        texts = (conversation.text for document in documents for conversation in document)
        counts = Counts(
            documents=len(kept),
            skipped=len(documents) - len(kept),
            text_bytes=sum(len(text.encode("utf-8")) for text in texts),
            untrained=sum(not column[i].trained.any() for column in columns for i in kept),
        )
        return EncodedBatch(tuple(values for values, _ in parts), tuple(sizes for _, sizes in parts), counts, kept)

    def _outputs_of(self, key: str) -> list[Output]:
        labels = [] if self._chat.trained == "all" else [label_output(key)]
        rewards = [] if self._chat.reward_key is None else [Output(f"{key}_reward", REWARD_DTYPE)]
        return [Output(key, self.dtype), *labels, *rewards]

    def _parts(self, tokens: Sequence[_Tokens], rewards: Sequence[float | None]) -> Iterator[_Part]:
        """Of the conversations under one key the values and sizes of each output, in the order of `_outputs_of`."""
        ids = np.concatenate([np.empty(0, self.dtype), *(one.ids for one in tokens)])
        sizes = np.array([len(one.ids) for one in tokens], np.int32)
        yield ids, sizes
        if self._chat.trained != "all":
            yield labels_of(ids, np.concatenate([np.empty(0, bool), *(one.trained for one in tokens)])), sizes
        if self._chat.reward_key is not None:
            yield np.array(rewards, REWARD_DTYPE), np.ones_like(sizes)

    def _encode_column(self, conversations: Sequence[Conversation]) -> list[_Tokens]:
        encodings = self._offsets.encode_batch([one.text for one in conversations])
        return [
            self._ended(encoding.ids, touched(encoding.offsets, conversation.spans))
            for encoding, conversation in zip(encodings, conversations, strict=True)
        ]

    def _ended(self, ids: list[int], trained: NDArray[np.bool_]) -> _Tokens:
        """The tokens of a conversation with its end; none when there are none."""
        if ids and ids[-1] != self.tokenizer.eod:
            ids, trained = [*ids, self.tokenizer.eod], np.append(trained, trained[-1])
        match self._chat.trained:
            case "last token":
                trained = np.arange(len(ids)) == len(ids) - 1
            case "all":
                trained = np.ones(len(ids), bool)
        return _Tokens(np.array(ids, self.dtype), trained)


@dataclass(frozen=True)
class _Tokens:
    """ids [n]; trained [n]: on which of them is trained."""

    ids: NDArray[Any]
    trained: NDArray[np.bool_]


_Part: TypeAlias = tuple[NDArray[Any], NDArray[np.int32]]


def check_options(recipe: ChatRecipe) -> None:
    """Raise DataError when the reward would be a conversation, or roles are asked for that are not to be chosen."""
    if recipe.reward_key in recipe.keys:
        raise DataError(
            f'--reward-key is "{recipe.reward_key}", which is one of --jsonl-keys: name the key of the reward.'
        )
    if recipe.template.marks_generation and recipe.roles != ROLES:
        raise DataError(
            f"--generation-role is {' '.join(recipe.roles)}, but {recipe.template.origin} marks itself what is generated, in "
            "{% generation %} blocks: leave --generation-role out, or give another template with --chat-template."
        )

"""What a text is turned into before the model sees it, and after: spaces, empty contexts, cuts, windows, and what ends an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance

from megatron.errors import DataError
from megatron.evaluation import harness as module
from megatron.evaluation.generation_kwargs import DEFAULT_TOP_K, generation_of
from megatron.evaluation.harness import HarnessModel
from megatron.evaluation.work import Wanted, Workers
from megatron.generation.complete import CompletionSettings
from megatron.generation.decode import Decoder
from megatron.generation.sampling import GREEDY, SamplingSettings
from megatron.generation.scoring import Score, Scored
from megatron.mpu.groups import single_process_groups
from megatron.tokenizer.hf import HFTokenizer
from megatron.tokenizer.train import train_bpe
from tests.unit.generation.test_decode import VOCABULARY, logits_of, model

TOKENIZER = train_bpe(["def f(x): return x"], vocab_size=260)
EOD = TOKENIZER.eod
LENGTH = 8


class Recorder:
    """Workers that score every token as -1, and answer with the tokens of `answer`. asked: what they were asked."""

    batch_size = 4

    def __init__(self, answer: Sequence[int] = ()) -> None:
        self.answer = list(answer)
        self.asked: list[Any] = []

    def score(self, requests: Sequence[Scored], progress: Any) -> list[Score]:
        self.asked += requests
        return [Score((-1.0,) * len(request.continuation), is_greedy=False) for request in requests]

    def generate(self, wanted: Sequence[Wanted], progress: Any) -> list[list[int]]:
        self.asked += wanted
        return [self.answer for _ in wanted]


def lm_of(workers: Any, tokenizer: HFTokenizer = TOKENIZER) -> HarnessModel:
    return HarnessModel(workers, tokenizer, max_length=LENGTH, seed=5)


def requests(*arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance("loglikelihood", {}, each, 0, ("quiz", 0, 1)) for each in arguments]


def scored(context: str, continuation: str) -> tuple[list[int], list[int]]:
    recorder = Recorder()
    assert lm_of(recorder).loglikelihood(requests((context, continuation))) == [
        (-float(len(recorder.asked[0].continuation)), False)
    ]
    return list(recorder.asked[0].context), list(recorder.asked[0].continuation)


def ids(text: str) -> list[int]:
    return TOKENIZER.tokenize(text)


def test_spaces_at_the_end_of_a_context_belong_to_what_follows() -> None:
    assert scored("ab  ", "cd") == (ids("ab"), ids("  cd"))


def test_an_empty_context_is_the_end_of_a_document() -> None:
    assert scored("", "ab") == ([EOD], ids("ab"))
    assert scored("", "<|endoftext|>ab") == ([EOD], ids("ab"))  # which is not put there twice


def test_a_long_context_loses_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(module, "logger", SimpleNamespace(warning=said.append))
    assert scored("abcdef", "xyz") == (ids("abcdef"), ids("xyz"))  # the last token is not read
    assert said == []
    assert scored("abcdefghijk", "xyz") == (ids("fghijk"), ids("xyz"))
    assert said[0].startswith("1 of 1 requests are longer than the model reads (max_position_embeddings 8)")
    assert scored("abc", "hijklmno") == (ids("c"), ids("hijklmno"))


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(DataError, match='the task "quiz" cannot be run: an answer to score is empty'):
        lm_of(Recorder()).loglikelihood(requests(("ab", "")))
    with pytest.raises(DataError, match=r"its context ' ' has 0 tokens .* 1 to 8 \(max_position_embeddings\)"):
        scored(" ", "ab")
    with pytest.raises(DataError, match="its continuation 'abcdefghi' 9"):
        scored("x", "abcdefghi")


def test_a_long_text_is_read_in_windows_each_token_once() -> None:
    recorder = Recorder()
    text = "abcdefghijklmnopqrs"  # 19 tokens
    totals = lm_of(recorder).loglikelihood_rolling(requests((text,), ("ab",), ("",)))
    assert totals == [-19.0, -2.0, 0.0]
    assert [(list(each.context), list(each.continuation)) for each in recorder.asked] == [
        ([EOD], ids("abcdefgh")),
        (ids("h"), ids("ijklmnop")),
        (ids("klmnop"), ids("qrs")),
        ([EOD], ids("ab")),
    ]


def answered(text: str, kwargs: Mapping[str, Any], answer: Sequence[int] = ()) -> tuple[str, Wanted]:
    recorder = Recorder(answer)
    (found,) = lm_of(recorder).generate_until(requests((text, kwargs)))
    return found, recorder.asked[0]


def test_a_question_leaves_room_for_its_answer() -> None:
    _, wanted = answered("abcdefghijk", {"max_gen_toks": 3, "until": ["\n", ""]})
    assert list(wanted.prompt) == ids("ghijk")
    assert (wanted.settings.maximum_tokens, wanted.settings.stop_strings) == (3, ("\n", "<|endoftext|>"))
    assert (wanted.settings.sampling, wanted.settings.seed) == (GREEDY, 5)
    assert list(answered("", {"max_gen_toks": 3})[1].prompt) == [EOD]
    with pytest.raises(DataError, match='the task "quiz" cannot be run: answers of 8 tokens'):
        answered("ab", {"max_gen_toks": 8})
    with pytest.raises(DataError, match="answers of 256 tokens"):  # when a task does not say
        answered("ab", {})


def test_an_answer_ends_before_the_first_of_the_strings_and_has_no_special_tokens() -> None:
    padding = TOKENIZER.tokenize("<|padding|>")
    assert len(padding) == 1
    answer = [*ids("a"), *padding, *ids("bcd"), EOD]
    assert answered("x", {"max_gen_toks": 2}, answer)[0] == "abcd"
    assert answered("x", {"max_gen_toks": 2, "until": ["d", "bc"]}, answer)[0] == "a"
    assert answered("x", {"max_gen_toks": 2, "until": "c"}, answer)[0] == "ab"


def test_sampling_is_what_transformers_makes_of_the_same_words() -> None:
    def sampling(**kwargs: Any) -> SamplingSettings:
        return generation_of("quiz", kwargs).sampling

    assert (
        sampling(temperature=0.5)
        == sampling(do_sample=True, temperature=0.5)
        == SamplingSettings(0.5, DEFAULT_TOP_K, 1.0)
    )
    assert sampling(do_sample=True, temperature=1, top_k=7, top_p=0.9) == SamplingSettings(1.0, 7, 0.9)
    assert sampling(do_sample=False, temperature=0.5) == sampling(temperature=0.0, top_p=0.5) == GREEDY
    assert sampling(num_beams=1) == GREEDY


def test_settings_that_do_not_exist_here_are_refused() -> None:
    with pytest.raises(DataError, match='"num_beams" is set to 4, which does not exist here'):
        generation_of("quiz", {"num_beams": 4})
    with pytest.raises(DataError, match="answers of 0 tokens"):
        generation_of("quiz", {"max_gen_toks": 0})


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"until": 7}, r"until is \[7\]"),
        ({"max_gen_toks": "many"}, "many"),
        ({"do_sample": True, "temperature": -1}, "temperature is -1.0"),
        ({"temperature": 1, "top_p": 2}, "top_p 2.0"),
        ({"temperature": 1, "top_p": 0}, "top_p 0.0"),
        ({"temperature": 1, "top_k": -2}, "top_k -2"),
    ],
)
def test_settings_beyond_what_they_may_be_are_refused(kwargs: Mapping[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f'the task "quiz" cannot be run: .*{said}'):
        generation_of("quiz", kwargs)


def test_a_model_that_computes_nan_has_no_scores() -> None:
    class Broken(Recorder):
        def score(self, requests: Sequence[Scored], progress: Any) -> list[Score]:
            return [Score((math.nan, -1.0), is_greedy=False), Score((-1.0,), is_greedy=False)]

    with pytest.raises(DataError, match="NaN for 1 of 2 requests"):
        lm_of(Broken()).loglikelihood(requests(("a", "b"), ("a", "c")))


def test_chat_templates_are_refused() -> None:
    assert lm_of(Recorder()).chat_template(False) is None
    with pytest.raises(DataError, match="apply_chat_template"):
        lm_of(Recorder()).chat_template(True)
    with pytest.raises(DataError, match="apply_chat_template"):
        lm_of(Recorder()).apply_chat_template([])


def test_it_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    now = iter([0.0, 5.0, 11.0, 11.0, 12.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(module, "logger", SimpleNamespace(info=said.append))
    report = module._reporter("scored", 3000)
    for _ in range(3):
        report(1000)
    assert said == ["scored 2,000 of 3,000 requests"]


def test_the_size_of_batches_changes_no_sample() -> None:
    decoder = Decoder(model(), vocab_size=VOCABULARY, max_positions=16)
    settings = CompletionSettings(4, SamplingSettings(temperature=1.0), seed=3)
    found = []
    for batch_size in (2, 3):
        groups = single_process_groups()
        workers = Workers(decoder, TOKENIZER, groups, vocab_size=VOCABULARY, batch_size=batch_size)
        wanted = [Wanted((5, 6, 7), settings)] * 7
        found.append(workers.run(lambda workers=workers, wanted=wanted: workers.generate(wanted)))
    assert found[0] == found[1]
    assert found[0] is not None
    assert len({tuple(tokens) for tokens in found[0]}) == 7


def test_want_of_memory_is_told_with_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as one of training, whose layout is not to blame."""
    network = model()

    def hidden(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has a total capacity of 1 GiB")

    monkeypatch.setattr(network, "hidden", hidden)
    decoder = Decoder(network, vocab_size=VOCABULARY, max_positions=16)
    workers = Workers(decoder, TOKENIZER, single_process_groups(), vocab_size=VOCABULARY, batch_size=2)
    with pytest.raises(
        MemoryError, match=r"make eval_batch_size \(2\) smaller: CUDA out of memory. Tried to allocate 2 GiB$"
    ):
        workers.run(lambda: workers.score([Scored((5,), (6,))]))


def test_a_pair_is_as_likely_as_the_model_says() -> None:
    """By hand: the softmax of the logits after the context, and of those after it and the first token."""
    network = model()
    decoder = Decoder(network, vocab_size=VOCABULARY, max_positions=16)
    workers = Workers(decoder, TOKENIZER, single_process_groups(), vocab_size=VOCABULARY, batch_size=2)
    context, continuation = [5, 6, 7], [8, 9]
    tokens = {"ctx": context, "ctxend": context + continuation}
    lm = HarnessModel(workers, TOKENIZER, max_length=16)
    lm.tok_encode = lambda string, **_: tokens[string]  # type: ignore[method-assign, misc]
    found = workers.run(lambda: lm.loglikelihood(requests(("ctx", "end"))))
    assert found is not None
    logits = logits_of(network, context + continuation)[:, :VOCABULARY].double().tolist()
    probability = 1.0
    for row, token in ((2, 8), (3, 9)):
        probability *= math.exp(logits[row][token]) / sum(map(math.exp, logits[row]))
    assert found[0][0] == pytest.approx(math.log(probability), abs=1e-5)

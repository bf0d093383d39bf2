"""Log-probabilities beside datasets are those of whole texts, and are written once, whole, where readers look for them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.errors import DataError
from megatron.generation import precompute as module
from megatron.generation import sequences
from megatron.generation.model import InferenceModel
from megatron.generation.precompute import dataset_prefixes, precompute
from megatron.generation.sequences import Window, score_sequences, windows
from megatron.initialize import World
from megatron.mpu.groups import single_process_groups
from megatron.neox_arguments import NeoXArgs
from tests.unit.generation.test_complete import ShiftedTokenizer
from tests.unit.generation.test_decode import VOCABULARY, logits_of, model
from tests.unit.neox_arguments.minimal import MINIMAL

WORLD = World(single_process_groups(), torch.device("cpu"))
POSITIONS = 16


class SmallTokenizer(ShiftedTokenizer):
    """As many tokens as the small model."""

    @property
    def vocab_size(self) -> int:
        return VOCABULARY


def write_dataset(prefix: Path, lengths: Sequence[int], *, seed: int = 0) -> Path:
    """A dataset of random tokens."""
    draw = np.random.default_rng(seed)
    with IndexedDatasetWriter(prefix, dtype=np.uint16) as writer:
        for length in lengths:
            writer.add_document(draw.integers(0, VOCABULARY, length))
    return prefix


def arguments(**changes: Any) -> NeoXArgs:
    small = {"max_position_embeddings": POSITIONS, "seq_length": POSITIONS, "generation_batch_size": 3}
    wanted = {"text_gen_type": "precompute", "precompute_model_name": "base"}
    return NeoXArgs.from_dict({**MINIMAL, **small, **wanted, **changes})


def run(network: InferenceModel | None = None, **changes: Any) -> None:
    def load() -> InferenceModel:
        assert network is not None, "the model is not needed"
        return network

    precompute(arguments(**changes), WORLD, SmallTokenizer(), load)


def numbers_of(network: InferenceModel, tokens: list[int]) -> np.ndarray[Any, Any]:
    """What belongs beside one text that the model can read: from its whole logits."""
    log_probabilities = logits_of(network, tokens[:-1])[:, :VOCABULARY].log_softmax(-1)
    found = log_probabilities.gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]
    return np.array([*found.tolist(), 0.0])


def test_each_number_is_the_log_probability_of_the_token_after_it(tmp_path: Path) -> None:
    network = model()
    lengths = [5, 1, 16, 2, 17, 9]
    prefix = write_dataset(tmp_path / "mine_text_document", lengths)
    run(network, data_path=str(prefix))
    text, found = IndexedDataset(prefix), IndexedDataset(tmp_path / "mine_text_document_base")
    assert found.dtype == np.float32
    assert found.sizes.tolist() == lengths
    for number, length in enumerate(lengths):
        expected = numbers_of(network, text[number].tolist()) if length > 1 else [0.0]
        np.testing.assert_allclose(found[number], expected, atol=1e-5)


@pytest.mark.parametrize("positions", [1, 2, 3, 16, 17])
def test_windows_score_each_token_once_with_as_much_before_it_as_fits(positions: int) -> None:
    for length in range(1, 80):
        scored = []
        for window in windows(length, positions):
            assert 0 <= window.begin < window.first < window.end <= length
            assert window.end - 1 - window.begin <= positions  # what is read
            for token in range(window.first, window.end):
                scored.append(token)
                context = token - window.begin
                assert context == token or context > positions / 2
        assert scored == list(range(1, length))


def test_the_last_tokens_of_a_long_text_see_all_that_the_model_reads() -> None:
    assert list(windows(30, 16)) == [Window(0, 1, 17), Window(8, 17, 25), Window(13, 25, 30)]


def test_a_text_longer_than_the_model_reads_is_scored_in_its_windows(tmp_path: Path) -> None:
    network = model()
    prefix = write_dataset(tmp_path / "long", [45])
    (found,) = score_sequences(network, IndexedDataset(prefix), vocab_size=VOCABULARY, positions=16, batch_size=2)
    tokens = IndexedDataset(prefix)[0].tolist()
    for window in windows(45, 16):
        expected = numbers_of(network, tokens[window.begin : window.end])[window.first - 1 - window.begin : -1]
        np.testing.assert_allclose(found[window.first - 1 : window.end - 1], expected, atol=1e-5)
    assert found[-1] == 0


def test_what_is_scored_together_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, dataset = model(), IndexedDataset(write_dataset(tmp_path / "many", [3, 40, 1, 7, 16, 2]))

    def scored() -> list[list[float]]:
        found = score_sequences(network, dataset, vocab_size=VOCABULARY, positions=16, batch_size=2)
        return [numbers.tolist() for numbers in found]

    whole = scored()
    monkeypatch.setattr(sequences, "TOKENS_AT_ONCE", 10)
    for one, other in zip(whole, scored(), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_every_dataset_of_a_configuration_counts_once(tmp_path: Path) -> None:
    names = {name: str(tmp_path / name) for name in "abcde"}
    lists = {
        "train_data_paths": [names["a"], names["b"]],
        "valid_data_paths": [names["c"], names["a"]],
        "test_data_paths": [names["b"] + ".bin"],
        "validation_sets": {"code": {"paths": [names["d"], names["c"]]}},
    }
    assert [prefix.name for prefix in dataset_prefixes(arguments(**lists))] == ["a", "b", "c", "d"]
    assert [prefix.name for prefix in dataset_prefixes(arguments(data_path=names["e"]))] == ["e"]


def test_what_is_there_stays_and_the_model_is_not_even_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prefix = write_dataset(tmp_path / "mine", [4, 7])
    run(model(), data_path=str(prefix))
    files = {file: file.read_bytes() for file in tmp_path.glob("mine_base.*")}
    assert len(files) == 2
    with caplog.at_level(logging.INFO):
        run(None, data_path=str(prefix))
    assert "mine_base is there already" in caplog.text
    assert {file: file.read_bytes() for file in tmp_path.glob("mine_base.*")} == files


def test_what_belongs_to_older_data_or_is_damaged_is_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix, network = write_dataset(tmp_path / "mine", [4, 7]), model()
    run(network, data_path=str(prefix))
    written = (tmp_path / "mine_base.bin").read_bytes()

    def again() -> str:
        caplog.clear()
        run(network, data_path=str(prefix))
        return caplog.text

    os.utime(tmp_path / "mine_base.idx", (1, 1))
    assert "does not belong to what mine is now" in again()
    (tmp_path / "mine_base.bin").write_bytes(written[:-4])
    assert "truncated" in again()
    (tmp_path / "mine_base.idx").unlink()
    assert "one of its two files is missing" in again()
    assert (tmp_path / "mine_base.bin").read_bytes() == written
    write_dataset(tmp_path / "mine", [4, 8])
    os.utime(tmp_path / "mine.idx", (1, 1))
    assert "does not belong to what mine is now" in again()
    assert IndexedDataset(tmp_path / "mine_base").sizes.tolist() == [4, 8]


def test_a_dataset_of_tokens_that_has_the_name_is_not_lost(tmp_path: Path) -> None:
    prefix, other = write_dataset(tmp_path / "mine", [4, 7]), write_dataset(tmp_path / "mine_base", [4, 8])
    with pytest.raises(DataError, match=r"mine_base, which holds uint16 numbers: give another precompute_model_name"):
        run(None, data_path=str(prefix))
    assert IndexedDataset(other).sizes.tolist() == [4, 8]


def test_nothing_half_appears_under_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = write_dataset(tmp_path / "mine", [4, 7])
    monkeypatch.setattr(sequences, "TOKENS_AT_ONCE", 1)
    scored: list[int] = []

    def fail_later(*inputs: Any, **options: Any) -> Any:
        scored.append(1)
        assert len(scored) < 2, "out of memory"
        return sequences_score(*inputs, **options)

    sequences_score = sequences.score
    monkeypatch.setattr(sequences, "score", fail_later)
    with pytest.raises(AssertionError, match="out of memory"):
        run(model(), data_path=str(prefix))
    assert {file.name for file in tmp_path.iterdir()} == {"mine.bin", "mine.idx"}


def test_nan_is_told_and_not_written(tmp_path: Path) -> None:
    prefix, network = write_dataset(tmp_path / "mine", [1, 4]), model()
    with torch.no_grad():
        network.get_parameter("5.norm.weight")[3] = torch.nan
    with pytest.raises(DataError, match=r"computes NaN for sequence 1 of .*mine"):
        run(network, data_path=str(prefix))
    assert {file.name for file in tmp_path.iterdir()} == {"mine.bin", "mine.idx"}


def test_what_was_killed_is_computed_again_and_its_rest_is_never_taken_for_it(tmp_path: Path) -> None:
    prefix, network = write_dataset(tmp_path / "mine", [4, 7]), model()

    def killed_after_the_first() -> Iterator[np.ndarray[Any, Any]]:
        yield np.zeros(4, dtype=np.float32)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        module.write(tmp_path / "mine_base", IndexedDataset(prefix), killed_after_the_first())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not list(tmp_path.glob("mine_base.bin")) + list(tmp_path.glob("mine_base.idx"))
    run(network, data_path=str(prefix))
    assert IndexedDataset(tmp_path / "mine_base").sizes.tolist() == [4, 7]


def test_mistakes_are_told_in_a_sentence_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run(None, data_path=str(tmp_path / "absent"))
    with IndexedDatasetWriter(tmp_path / "rewards", dtype=np.float32) as writer:
        writer.add_document([1.0])
    with pytest.raises(DataError, match="float32 numbers, not tokens"):
        run(None, data_path=str(tmp_path / "rewards"))


@pytest.mark.parametrize("token", [VOCABULARY, -1])
def test_data_of_another_tokenizer_is_refused(token: int, tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "mine", dtype=np.int32) as writer:
        writer.add_document([3, token])
    with pytest.raises(DataError, match=rf"sequence 0 of .*mine holds token {token}, and the model has tokens 0 to 60"):
        run(model(), data_path=str(tmp_path / "mine"))


def test_a_folder_that_nothing_can_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = write_dataset(tmp_path / "mine", [4])

    def refuse(*inputs: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "IndexedDatasetWriter", refuse)
    with pytest.raises(DataError, match=r"mine_base cannot be written: Permission denied"):
        run(model(), data_path=str(prefix))

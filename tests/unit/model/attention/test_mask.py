"""The causal mask, whole and as a band."""

from __future__ import annotations

import pytest
import torch

from megatron.model.attention.mask import causal_mask, window_bias

CPU = torch.device("cpu")


def test_without_a_window_a_query_sees_itself_and_all_before() -> None:
    assert causal_mask(3, 3, device=CPU).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(2, 4, device=CPU).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_a_window_counts_the_query_itself() -> None:
    assert causal_mask(4, 4, window=2, device=CPU).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]
    assert torch.equal(causal_mask(3, 3, window=1, device=CPU), torch.eye(3, dtype=torch.bool))


def test_new_queries_stand_behind_the_keys_of_earlier_ones() -> None:
    whole = causal_mask(6, 6, window=3, device=CPU)
    assert torch.equal(causal_mask(2, 6, window=3, device=CPU), whole[4:])


@pytest.mark.parametrize("window", [5, 6, 100])
def test_a_window_as_long_as_the_text_is_none(window: int) -> None:
    assert torch.equal(causal_mask(5, 5, window=window, device=CPU), causal_mask(5, 5, device=CPU))


def test_layers_share_one_bias_which_serves_training_after_inference() -> None:
    window_bias.cache_clear()
    with torch.inference_mode():
        first = window_bias(4, 2, torch.float64, CPU)
    assert window_bias(4, 2, torch.float64, CPU) is first
    assert not first.is_inference()
    assert torch.equal(first == 0, causal_mask(4, 4, window=2, device=CPU))
    assert torch.equal(first.exp(), causal_mask(4, 4, window=2, device=CPU).double())

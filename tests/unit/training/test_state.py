"""TrainState counts what a run consumed and survives a checkpoint."""

from __future__ import annotations

from megatron.training.state import TrainState


def test_advancing_counts_iterations_samples_and_tokens() -> None:
    state = TrainState().advance(samples=8, tokens=512, skipped=False).advance(samples=8, tokens=512, skipped=True)
    assert state == TrainState(iteration=2, consumed_samples=16, consumed_tokens=1024, skipped_iterations=1)


def test_a_state_comes_back_from_a_dictionary() -> None:
    state = TrainState(3, 24, 1536, 1)
    assert TrainState.from_dict(state.to_dict()) == state


def test_counters_unknown_to_either_side_do_no_harm() -> None:
    assert TrainState.from_dict({"iteration": 3, "from_the_future": 1}) == TrainState(iteration=3)

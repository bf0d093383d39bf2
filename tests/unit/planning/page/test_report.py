"""The numbers on the page are those of the library, and every verdict is said with its way out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from megatron import text
from megatron.errors import ConfigError
from megatron.neox_arguments.derive import padded_vocab_size
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.planning.hardware.devices import DEVICES, Cluster
from megatron.planning.memory.stage_memory import StageMemory, memory_by_stage
from megatron.planning.model.flops import model_flops_per_token
from megatron.planning.model.parameters import count_parameters
from megatron.planning.page.layout_facts import most_activations
from megatron.planning.page.report import page
from megatron.planning.search.search import usable_bytes
from megatron.planning.study import Study, study
from tests.unit.planning.builders import cluster, config

GIB = 2**30


def studied(place: Cluster | None = None, *, layouts: int | None = None, **changes: Any) -> Study:
    return study(config(**changes), place or cluster(), layouts=layouts)


def printed(found: Study, **options: Any) -> dict[str, str]:
    """Headline -> text on one line, so that line ends do not matter."""
    return {section.title: " ".join(" ".join(section.lines).split()) for section in page(found, **options)}


def test_the_model_is_counted_by_the_library() -> None:
    found = studied(pipe_parallel_size=2, model_parallel_size=2)
    model = printed(found)["Model"]
    total = count_parameters(found.args, vocab_size=512)
    assert f"({total:,})" in model
    assert f"{text.count(total - 2 * 512 * 2048)} without embeddings" in model
    assert "512 entries (CharLevelTokenizer), padded to 512 rows" in model
    assert "not built" not in model


def test_rows_of_padding_are_counted_apart() -> None:
    found = studied(make_vocab_size_divisible_by=384)
    real, padded = (count_parameters(found.args, vocab_size=rows) for rows in (512, 768))
    assert padded == real + 2 * 256 * 2048
    assert f"({real:,}; {padded:,} with padding)" in printed(found)["Model"]


def test_a_constant_rate_does_not_decay() -> None:
    curve = printed(studied(train_iters=100, lr_decay_style="constant"))["Learning rate"]
    assert "decayed" not in curve
    assert "D" not in curve
    assert "decayed at 100 (D)" in printed(studied(train_iters=100))["Learning rate"]


def test_a_tied_head_is_an_embedding_once() -> None:
    found = studied(no_weight_tying=False, pos_emb="learned", max_position_embeddings=1024)
    total = count_parameters(found.args, vocab_size=512)
    assert f"{text.count(total - (512 + 1024) * 2048)} without embeddings" in printed(found)["Model"]


def test_the_parameters_of_the_fullest_rank_are_those_its_memory_is_for() -> None:
    found = studied(pipe_parallel_size=2, model_parallel_size=2)
    assert found.given is not None
    stages = memory_by_stage(found.args, found.given, vocab_size=512)
    weights = max(stage.weights for stage in stages)
    assert f"{text.count(weights / 2)} in the fullest rank" in printed(found)["Model"]


def test_what_is_not_built_is_said_first() -> None:
    model = printed(studied(moe_num_experts=4))["Model"]
    assert "not built yet mixture of experts: train.py refuses this config today" in model


def test_memory_is_that_of_the_fullest_stage() -> None:
    found = studied(pipe_parallel_size=2, model_parallel_size=2)
    assert found.given is not None
    stages = memory_by_stage(found.args, found.given, vocab_size=512)
    fullest = max(stages, key=lambda stage: stage.total)
    lines = printed(found)["Layout of the config"]
    sizes = [text.memory(getattr(fullest, field.name)) for field in fields(StageMemory)]
    assert " ".join([*sizes, text.memory(fullest.total)]) in lines
    assert f"stage {stages.index(fullest) + 1} of 2" in lines
    spare = usable_bytes(found.cluster.device) - fullest.total
    assert f"FITS, {text.memory(spare)} to spare" in lines
    assert "2.0 GiB for driver and libraries and 3 % for communication and fragmentation" in lines


def test_what_does_not_fit_names_the_largest_component_and_the_smallest_change() -> None:
    roomy = studied()
    assert roomy.given is not None
    memory = roomy.search.memory(roomy.given)
    found = studied(cluster(usable=memory.total - GIB // 4))
    lines = printed(found)
    largest = max(fields(StageMemory), key=lambda field: getattr(memory, field.name)).name
    assert f"DOES NOT FIT, 256 MiB too much; the largest component is {largest}" in lines["Layout of the config"]
    assert found.nearest is not None
    change = lines["The smallest change that fits"]
    assert change.startswith("change ")
    assert " ".join(found.nearest.words) in change or "below" in change


def test_the_variants_are_those_that_pasting_their_keys_gives() -> None:
    layout = {"pipe_parallel_size": 2, "model_parallel_size": 4}
    table = [line.rstrip("*") for line in page(studied(**layout))[1].lines]
    for name, keys in (
        ("this config", {}),
        ("with sequence_parallel", {"sequence_parallel": True}),
        ("with flash attention (attention_config)", {"attention_config": [[["flash"], "all"]]}),
    ):
        cells = ""
        for recompute in (False, True):
            found = studied(**layout, **keys, checkpoint_activations=recompute)
            assert found.given is not None
            activations = most_activations(found.args, found.given, vocab_size=512)
            cells += f" {text.memory(activations)} {text.memory(found.search.memory(found.given).total)}"
        assert f"{name}{cells}" in [" ".join(line.replace("*", "").split()) for line in table]
    assert "without sequence_parallel" in printed(studied(**layout, sequence_parallel=True))["Layout of the config"]


def test_activations_are_those_of_the_fullest_moment_when_that_is_the_backward_pass() -> None:
    """Which no longer has the little that the head kept."""
    found = studied(train_micro_batch_size_per_gpu=8, attention_config=[[["global"], "all"]])
    assert found.given is not None
    activations = most_activations(found.args, found.given, vocab_size=512)
    assert activations == pytest.approx(found.search.memory(found.given).activations, rel=0.005)


def test_recomputation_and_sequence_parallelism_shrink_activations() -> None:
    kept, recomputed, divided = (
        most_activations(found.args, found.given, vocab_size=512)
        for found in (
            studied(model_parallel_size=4),
            studied(model_parallel_size=4, checkpoint_activations=True),
            studied(model_parallel_size=4, checkpoint_activations=True, sequence_parallel=True),
        )
        if found.given is not None
    )
    assert divided < recomputed < kept / 4


def test_layouts_are_proposed_when_the_config_leaves_them_open_or_when_asked() -> None:
    title = "Layouts that fit, fastest first"
    settled = {"pipe_parallel_size": 0, "model_parallel_size": 1}
    assert title in printed(studied())
    assert title not in printed(studied(**settled))
    assert len(studied(layouts=5, **settled).proposals) == 5
    assert len(studied().proposals) == 3


def test_every_proposal_stands_with_memory_reason_and_words() -> None:
    found = studied()
    lines = printed(found)["Layouts that fit, fastest first"]
    for number, proposal in enumerate(found.proposals, start=1):
        assert f"{number}. " in lines
        assert text.memory(proposal.memory.total) in lines
        assert " ".join(proposal.words) in lines
        assert f"{proposal.time.compute / proposal.time.total:.0%}".replace("%", " %") in lines
    assert "Fastest" in lines


ILLEGAL = "The config's layout is not legal on these devices"


def test_a_layout_that_is_not_legal_is_refused_in_the_words_of_the_config_and_others_are_proposed() -> None:
    found = studied(pipe_parallel_size=3)
    lines = printed(found)
    assert "8 processes do not divide into copies" in lines[ILLEGAL]
    assert len(found.proposals) == 3
    assert found.args.train_batch_size == 64
    assert all(
        proposal.layout.micro_batch * proposal.layout.accumulation * proposal.layout.data == 64
        for proposal in found.proposals
    )


def test_context_ranks_are_planned_with_and_kept() -> None:
    found = studied(context_parallel_size=2, model_parallel_size=2)
    assert "pipeline 1 x data 2 x context 2 x tensor 2" in printed(found)["Layout of the config"]
    refused = studied(context_parallel_size=2, pipe_parallel_size=3)
    assert "pipeline stages x context ranks x tensor ranks" in printed(refused)[ILLEGAL]
    assert {proposal.layout.context for proposal in refused.proposals} == {2}
    assert all("context_parallel_size=2" in proposal.words for proposal in refused.proposals)
    assert "over 2 context ranks" in printed(refused)["Layouts that fit, fastest first"]
    assert {proposal.layout.context for proposal in studied(context_parallel_size=3).proposals} == {1}
    assert {proposal.layout.context for proposal in studied(context_parallel_size=16).proposals} == {1}


def test_a_config_that_no_layout_repairs_is_refused_with_all_its_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        studied(pipe_parallel_size=3, norm="rmsnrom")
    assert len(caught.value.problems) == 2


def test_nothing_fits_says_how_much_is_missing_and_where_it_would() -> None:
    place = Cluster(1, 1, DEVICES["T4"])
    found = study(config(num_layers=48), place)
    lines = printed(found)["Layouts that fit, fastest first"]
    assert "none: the one with least memory needs" in lines
    nodes, other = found.larger
    assert nodes.device is place.device
    assert other.device.memory_bytes > place.device.memory_bytes
    assert f"it would fit on {nodes} or on {other}" in lines
    assert study(config(num_layers=48), nodes).proposals
    assert study(config(num_layers=48), other).proposals
    fewer = Cluster(nodes.nodes // 2, 1, place.device)
    assert not study(config(num_layers=48), fewer).proposals, "half as many would not do"


def test_sequences_too_long_for_these_devices_are_proposed_to_be_shared() -> None:
    flash = {"attention_config": [[["flash"], "all"]], "num_kv_heads": 1}
    long = config(seq_length=2**21, num_layers=1, train_batch_size=8, **flash)
    found = study(long, cluster())
    assert found.proposals == ()
    assert found.context == 4
    assert "or here with context_parallel_size=4" in " ".join(printed(found)["Layouts that fit, fastest first"].split())
    two, four = (study(apply_overrides(long, [f"context_parallel_size={ranks}"]), cluster()) for ranks in (2, 4))
    assert not two.proposals
    assert {proposal.layout.context for proposal in four.proposals} == {4}


def test_no_legal_layout_at_all_asks_for_another_batch() -> None:
    found = study(
        config(num_layers=1, train_batch_size=1, train_micro_batch_size_per_gpu=1, num_attention_heads=1), cluster()
    )
    assert found.given is None
    assert found.proposals == ()
    assert "use a batch that is a multiple of 8" in printed(found)["Layouts that fit, fastest first"]


def test_the_time_follows_from_flops_peak_and_utilisation() -> None:
    found = studied()
    lines = printed(found, mfu=0.25)["Time"]
    per_token = model_flops_per_token(found.args, vocab_size=padded_vocab_size(found.args, 512))
    tokens = 64 * 1024
    seconds = per_token * tokens / (8 * 312e12 * 0.25)
    assert f"{text.flops(per_token * tokens)} for {tokens:,} tokens" in lines
    assert f"{text.time(seconds)} a step, {text.count(tokens / seconds)} tokens a second" in lines
    assert f"1,000 steps, {text.count(1000 * tokens)} tokens: {text.time(1000 * seconds)}" in lines
    assert f"{1000 * seconds / 3600 * 8:,.0f} GPU-hours" in lines
    assert "25 % of the peak (--mfu), 312 TFLOP/s a device: A100-80GB, data sheet" in lines


def test_the_peak_of_the_config_wins_and_fp32_has_a_lower_one() -> None:
    assert "100 TFLOP/s a device: peak_theoretical_tflops" in printed(studied(peak_theoretical_tflops=100))["Time"]
    assert "19.5 TFLOP/s a device: a 16th" in printed(studied(precision="fp32"))["Time"]


def test_the_bubble_is_counted_by_its_formula() -> None:
    lines = printed(studied(pipe_parallel_size=4))["Time"]
    assert "bubble 16 % of a step: (4 - 1) / (16 + 4 - 1)" in lines


def test_a_device_without_bfloat16_is_remarked_on() -> None:
    assert "V100-32GB has no bfloat16" in printed(studied(Cluster(1, 8, DEVICES["V100-32GB"])))["Time"]


def test_a_run_of_unknown_length_is_not_guessed() -> None:
    found = printed(studied(train_iters=None))
    assert "of unknown length (no train_iters); 1,000 steps take" in found["Time"]
    assert found["Learning rate"].startswith("not drawn")
    assert "train_epochs: 2" in printed(studied(train_iters=None, train_epochs=2))["Time"]


def test_a_config_without_batch_is_planned_with_one_sample_a_device() -> None:
    found = studied(train_batch_size=None, train_micro_batch_size_per_gpu=None)
    assert "8 samples = micro-batch 1 x accumulation 1 x data 8" in printed(found)["Layout of the config"]
    assert "one sample a device is assumed" in printed(found)["Layout of the config"]
    assert any("train_micro_batch_size_per_gpu" in word for word in found.proposals[0].words)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pipe_parallel_size": 4, "model_parallel_size": 2, "zero_optimization": {"stage": 1}},
        {"pipe_parallel_size": 3},
        {"moe_num_experts": 64, "attention_config": [[["sparse_variable", "global"], 6]], "num_layers": 12},
        {"hidden_size": 16384, "num_layers": 100, "tokenizer_type": "HFTokenizer", "vocab_file": "/long/" * 30},
    ],
    ids=str,
)
def test_the_page_is_plain_and_fits_its_width(changes: dict[str, Any]) -> None:
    for section in page(studied(layouts=6, **changes)):
        for line in (section.title, *section.lines):
            assert line.isascii()
            assert line == line.rstrip()
            assert len(line) <= text.WIDTH or " " not in line.strip(), line


def test_a_run_that_grows_has_fewer_tokens() -> None:
    section = {"total_curriculum_step": 1, "difficulty_step": 1024}
    curriculum = {"enabled": True, "min_difficulty": 1024, "max_difficulty": 1024, "schedule_config": section}
    time = printed(studied(rampup_batch_size=[16, 16, 3000], curriculum_learning=curriculum))["Time"]
    # 63 steps of 16 samples reach 1,008, 31 of 32 reach 2,000 and 21 of 48 reach 3,008; the 885 others take 64.
    tokens = (3008 + 885 * 64) * 1024
    assert f"1,000 steps, {text.count(tokens)} tokens" in time
    assert "ramp-up from 16 samples a step to 64 by 16, in the first 115 steps, 3,008 samples" in time
    assert "curriculum the first 1024 tokens of each sample, 1024 from iteration 1 on" in time

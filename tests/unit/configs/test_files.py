"""Every shipped configuration file is complete or combined with what it names, in one style, and honest about what is not built."""

from __future__ import annotations

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.resolving.smallest_world import smallest_world
from tests.shipped import (
    CONFIGS,
    FILES,
    MODELS,
    NOT_BUILT,
    SCHEMA,
    arguments,
    features_not_built,
    header_of,
    read,
    read_alone,
    read_shipped,
)

SETUP = "local_setup.yml"
HEADINGS = (
    *("model", "initialisation", "layout", "batch", "objective", "optimizer", "precision", "data"),
    *("evaluation and checkpoints", "checkpoints", "launcher", "logging"),
)

COMPLETE = [file for file in MODELS if "train_iters" in read(file).values]


@pytest.mark.parametrize("file", FILES)
def test_a_file_starts_with_the_schema_and_says_what_it_is(file: str) -> None:
    header = header_of(file)
    assert header.schema.startswith(SCHEMA)
    schema = (CONFIGS / file).parent / header.schema.removeprefix(SCHEMA)
    assert schema.resolve() == CONFIGS / "neox_arguments.schema.json"
    assert 1 <= len(header.prose) <= 3


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_written_in_the_common_style(file: str) -> None:
    lines = (CONFIGS / file).read_text().splitlines()
    assert [
        line for line in lines if "\t" in line or line != line.rstrip() or (len(line) > 140 and NOT_BUILT not in line)
    ] == []
    headings = [line.strip()[2:] for line in lines if line.strip().removeprefix("# ").partition(";")[0] in HEADINGS]
    places = [HEADINGS.index(heading.partition(";")[0]) for heading in headings]
    assert places == sorted(set(places))
    assert (lines[-1] == "}") == (file == "125M-json.yml")  # the one file that shows the other notation


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_no_key_of_the_past(file: str) -> None:
    assert modernise(read(file))[1] == ()


@pytest.mark.parametrize("file", FILES)
def test_a_file_resolves_with_the_files_it_names(file: str) -> None:
    arguments(read_alone(file))
    assert arguments(read_shipped(file)).train_iters


@pytest.mark.parametrize("file", FILES)
def test_a_file_says_which_of_its_features_are_not_built(file: str) -> None:
    assert set(header_of(file).not_built) == features_not_built(read_alone(file))


@pytest.mark.parametrize("file", COMPLETE)
def test_a_complete_file_merges_with_the_local_setup(file: str) -> None:
    values = read(file, SETUP)
    assert arguments(values).data_path
    if not features_not_built(values):  # then a run is accepted as well
        assert NeoXArgs.from_values(values, world_size=smallest_world(values)).train_iters

"""Which tasks a list of names means."""

from __future__ import annotations

from megatron.evaluation.selection import Catalogue, select

MEMBERS = {
    "exam": ["exam_science", "exam_law"],
    "exam_science": ["exam_physics", "exam_biology"],
    "exam_law": ["exam_contracts", "exam_torts"],
    "science_tasks": ["exam_physics", "exam_biology"],
}
TASKS = ("exam_physics", "exam_biology", "exam_contracts", "exam_torts", "cloze")
CATALOGUE = Catalogue(frozenset([*MEMBERS, *TASKS]), MEMBERS, tags=frozenset({"science_tasks"}))


def chosen(*words: str) -> list[str]:
    names, unknown = select(CATALOGUE, words)
    assert unknown == []
    return names


def test_a_group_has_the_tasks_of_its_groups() -> None:
    assert CATALOGUE.tasks_of("exam") == {"exam_physics", "exam_biology", "exam_contracts", "exam_torts"}
    assert CATALOGUE.tasks_of("cloze") == {"cloze"}


def test_a_group_that_has_itself_ends_nothing() -> None:
    ring = Catalogue(frozenset("ab"), {"a": ["b", "task"], "b": ["a"]})
    assert ring.tasks_of("a") == {"task"}


def test_names_are_run_in_the_order_that_they_are_given_in() -> None:
    assert chosen("exam_torts", "cloze", "exam_physics") == ["exam_torts", "cloze", "exam_physics"]
    assert chosen("cloze", "cloze") == ["cloze"]


def test_what_a_chosen_group_runs_is_not_run_again() -> None:
    assert chosen("exam_physics", "exam", "cloze") == ["exam", "cloze"]
    assert chosen("exam_law", "exam_physics") == ["exam_law", "exam_physics"]


def test_a_pattern_stands_for_the_groups_it_matches_and_tasks_outside_of_them() -> None:
    assert chosen("exam_*") == ["exam_law", "exam_science"]
    assert chosen("exam*") == ["exam"]
    assert chosen("*_tasks") == ["science_tasks"]
    assert chosen("exam_*s", "cloze") == ["exam_contracts", "exam_physics", "exam_torts", "cloze"]


def test_a_pattern_leaves_out_what_is_named_besides() -> None:
    assert chosen("exam_physics", "exam_?????") == ["exam_physics", "exam_torts"]
    assert chosen("exam_*", "exam_law") == ["exam_law", "exam_science"]


def test_words_that_mean_nothing_are_given_back() -> None:
    assert select(CATALOGUE, ["exam_phisics", "cloze", "x*"]) == (["cloze"], ["exam_phisics", "x*"])


def test_a_pattern_meets_groups_that_share_tasks() -> None:
    members = {"part_a": ["first", "second"], "part_b": ["second", "third"]}
    catalogue = Catalogue(frozenset([*members, "first", "second", "third"]), members)
    assert select(catalogue, ["part_*"]) == (["part_a", "third"], [])
    assert select(catalogue, ["part_b", "part_*"]) == (["part_b", "first"], [])

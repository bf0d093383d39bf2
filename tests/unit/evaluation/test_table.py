"""Results as a table."""

from __future__ import annotations

from megatron.evaluation.table import number, results_table

RESULTS = {
    "results": {
        "law": {"alias": "law", "sample_len": 4, "acc,none": 0.25, "acc_stderr,none": 0.1, "f1,strict": 12345.678},
        "exam": {"alias": " - the exam", "acc,none": 0.5, "acc_stderr,none": "N/A"},
        "cloze": {"alias": "cloze", "word_perplexity,none": 31.5},
    },
    "group_subtasks": {"exam": ["law"]},
    "n-shot": {"law": 5, "exam": 5, "cloze": 0},
    "n-samples": {"law": {"original": 9, "effective": 4}, "cloze": {"original": 7, "effective": 7}},
}


def test_a_group_is_followed_by_what_it_has() -> None:
    assert results_table(RESULTS) == [
        "task         shots  examples  metric             value",
        " - the exam      5            acc               0.5000",
        "  law            5         4  acc               0.2500  ± 0.1000",
        "                              f1 (strict)        12346",
        "cloze            0         7  word_perplexity  31.5000",
    ]


def test_a_group_without_a_score_still_stands_above_its_tasks() -> None:
    results = {"results": {"law": {"acc,none": 1.0}}, "group_subtasks": {"all": ["exam"], "exam": ["law"]}}
    assert [line.split(" ")[0:5] for line in results_table(results)][1:] == [
        ["all"],
        ["", "", "exam"],
        ["", "", "", "", "law"],
    ]


def test_numbers_have_four_digits_behind_the_point_or_five_in_all() -> None:
    assert [number(value) for value in (0.12345, -3, 999.99999, 1234.5, 1.5e24, "N/A")] == [
        *("0.1235", "-3.0000", "1000.0000", "1234.5", "1.5e+24", "N/A")
    ]


def test_no_results_are_said() -> None:
    assert results_table({"results": {}}) == ["no task has a score"]

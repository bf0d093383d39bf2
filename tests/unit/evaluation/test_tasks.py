"""Tasks are found and their data read, or one sentence says why not."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lm_eval.tasks import manager

from megatron.errors import ConfigError, DataError, MissingRequirement, NeoXError
from megatron.evaluation.choosing import check_members, unreadable
from megatron.evaluation.rehearsal import set_fewshot
from megatron.evaluation.selection import Catalogue
from megatron.evaluation.settings import EvaluationSettings
from megatron.evaluation.tasks import Tasks, find_tasks
from tests.evaluation_tasks import CHOICES, write_task, write_tasks

SOME = [{"question": "one", "answer": "1"}, {"question": "two", "answer": "2"}]
FIELDS = {"output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "answer"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_tasks(tmp_path_factory.mktemp("tasks"))
    (directory / "more").mkdir()
    return directory


def found(*words: str, include_path: Path | None = None) -> Tasks:
    return find_tasks(EvaluationSettings(words, include_path=str(include_path) if include_path else None))


def refusal(*words: str, include_path: Path | None = None) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        found(*words, include_path=include_path)
    return str(caught.value)


def test_names_groups_tags_and_files_are_found_in_a_directory_of_ones_own(directory: Path) -> None:
    task = found("small_choice", include_path=directory)
    assert (task.names, task.number) == (("small_choice",), 1)
    assert len(task.loaded["tasks"]["small_choice"].eval_docs) == len(CHOICES)
    group = found("small", "small_words", include_path=directory)
    assert (group.names, group.number) == (("small", "small_words"), 3)
    assert list(group.loaded["groups"]) == ["small"]
    assert found("small_tag", include_path=directory).number == 4
    assert found(str(directory / "small_words.yaml")).number == 1


def test_finding_tasks_draws_no_random_numbers_of_the_run(directory: Path) -> None:
    random.seed(7)
    expected = random.Random(7).random()
    found("small_choice", include_path=directory)
    assert random.random() == expected


def test_an_unknown_name_is_told_with_the_closest_one_and_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of lm-eval's own tasks a few: reading all 14,000 files takes seconds.
    own = Path(manager.__file__).parent / "hellaswag"
    shutil.copytree(own, tmp_path / "own" / "hellaswag")
    monkeypatch.setattr(manager, "__file__", str(tmp_path / "own" / "manager.py"))
    mine = write_tasks(tmp_path / "mine")
    (mine / "late.yml").write_text("task: late")
    first, second, third = refusal("small_chioce", "late", "hellaswga", include_path=mine).splitlines()
    assert first.startswith('"small_chioce" in eval_tasks is the name of no task, group or tag in lm-eval 0.4.')
    assert first.endswith(
        f' names) and {mine} (only files that end in .yaml count, not late.yml) (did you mean "small_choice"?)'
    )
    assert second.endswith("; correct it, or give the path of a YAML file")
    assert third.endswith('(did you mean "hellaswag"?)')


def test_what_data_is_missing_is_told_with_what_to_do(directory: Path) -> None:
    away = write_task(directory / "more", "away", SOME, **FIELDS, dataset_path="someone/something", dataset_kwargs={})
    said = refusal(str(away))
    assert said.startswith(f'the data of the task "{away}" is not in the cache, and cannot be downloaded (')
    assert "'someone/something'" in said
    assert "HF_HOME" in said
    assert "data_files" in said
    gone = write_task(directory / "more", "gone", SOME, **FIELDS)
    gone.with_suffix(".jsonl").unlink()
    assert "gone.jsonl" in refusal(str(gone))
    assert "dataset_kwargs" in refusal(str(gone))


def test_no_tasks_are_a_mistake() -> None:
    assert refusal() == '"eval_tasks" is not given: evaluation needs tasks to run'


def test_a_file_that_is_not_there_or_no_task_is_told(directory: Path) -> None:
    assert refusal("nowhere/mine.yaml") == '"nowhere/mine.yaml" in eval_tasks: there is no such file; correct the path'
    broken = directory / "more" / "broken.yaml"
    broken.write_text("task: [unclosed")
    assert refusal(str(broken)).startswith(f'"{broken}" in eval_tasks is no task: ParserError')
    assert unreadable(directory) == " (not readable: broken.yaml)"
    broken.unlink()


def test_a_task_that_cannot_be_used_is_named(directory: Path) -> None:
    wrong = write_task(directory / "more", "wrong", SOME, **{**FIELDS, "output_type": "guess"})
    assert refusal(str(wrong)).startswith(f'the task "{wrong}" cannot be used: ')
    unsafe = write_task(directory / "more", "unsafe", SOME, **FIELDS, unsafe_code=True)
    assert (
        refusal(str(unsafe))
        == 'the task "unsafe" runs programs that the model writes, which is not done here: remove it'
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_fewshot": 2}, 'the first example of the task "tried" cannot be shown behind 2 solved ones: '),
        (
            {"metric_list": [{"metric": "exact_match", "aggregation": "nosuch", "higher_is_better": True}]},
            'the task "tried" has an "aggregation" that lm-eval does not have, of "exact_match"',
        ),
        ({"generation_kwargs": {"until": 7}}, 'the task "tried" cannot be run: until is [7]'),
        (
            {"generation_kwargs": {"until": ["x"], "max_gen_toks": 8}},
            "leave no room for a question, as the model reads 8",
        ),
        ({"test_split": "nosuch"}, "(test_split, doc_to_text, doc_to_choice, ...): correct these"),
    ],
)
def test_a_mistake_in_a_task_is_told_before_a_model_is_run(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    task = write_task(tmp_path, "tried", SOME[:1], **{**FIELDS, "generation_kwargs": {"max_gen_toks": 4}, **changes})
    with pytest.raises(NeoXError) as caught:
        find_tasks(EvaluationSettings((str(task),)), max_positions=8)
    assert said in str(caught.value)


def test_a_task_is_tried_without_a_trace(directory: Path) -> None:
    """What is sampled for the first example is sampled for it again."""
    settings = EvaluationSettings(("small_choice",), include_path=str(directory), num_fewshot=2)
    (task,) = find_tasks(settings).loaded["tasks"].values()
    tried = [request.args for request in task.instances]
    set_fewshot("small_choice", task, settings)
    task.build_all_requests()
    assert [request.args for request in task.instances][: len(tried)] == tried
    assert len(task.instances) > len(tried)


def test_a_task_made_for_no_solved_examples_is_run_with_none(tmp_path: Path) -> None:
    file = write_task(tmp_path, "bare", SOME, **FIELDS, num_fewshot=0, generation_kwargs={"max_gen_toks": 4})
    (task,) = find_tasks(EvaluationSettings((str(file),), num_fewshot=1)).loaded["tasks"].values()
    assert task.get_config("num_fewshot") == 0


@pytest.mark.parametrize(("data", "said"), [("", "is empty"), ("{", "cannot be read: ")])
def test_data_that_is_none_is_told(tmp_path: Path, data: str, said: str) -> None:
    task = write_task(tmp_path, "bad", SOME, **FIELDS)
    (tmp_path / "bad.jsonl").write_text(data)
    assert refusal(str(task)).startswith(f'the data of the task "{task}" {said}')


def test_groups_are_named_and_have_tasks(directory: Path, tmp_path: Path) -> None:
    file = directory / "small.yaml"
    assert refusal(str(file)) == (
        f'"{file}" in eval_tasks holds a group: name it, "small", and give its directory in eval_include_path (--include_path)'
    )
    catalogue, manager = (
        Catalogue(frozenset({"all", "one"}), {"all": ["one", "two"]}),
        SimpleNamespace(
            task_index={"all": SimpleNamespace(kind=SimpleNamespace(name="GROUP"), cfg={"task": ["one", "two"]})}
        ),
    )
    with pytest.raises(ConfigError, match='the group "all" in eval_tasks has "two", which is the name of no task'):
        check_members(manager, catalogue, ["all"])
    (tmp_path / "cycle.yaml").write_text("group: cycle\ntask: [cycle]")
    assert (
        refusal("cycle", include_path=tmp_path)
        == "eval_tasks (cycle) holds no task: name tasks, or groups that have some"
    )


def test_one_task_is_not_run_twice(directory: Path) -> None:
    both = refusal(str(directory / "small_words.yaml"), "small_words", include_path=directory)
    assert (
        both
        == '"small_words" in eval_tasks runs the task "small_words", as a name before it does: evaluate them in two runs'
    )


def test_without_lm_eval_the_requirements_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingRequirement, match=r"pip install -r requirements/requirements-lm-eval\.txt"):
        found("piqa")

"""The tasks to run, found and with their data read: names of lm-eval's, YAML files, and those of the user's own directory.

Only the first rank does this. It may take minutes where data is downloaded, and nothing of it needs the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.errors import ConfigError, DataError, MissingRequirement, NeoXError
from megatron.evaluation.choosing import choose
from megatron.evaluation.library import one_line, quiet, seeded, task_library
from megatron.evaluation.rehearsal import rehearse
from megatron.evaluation.settings import EvaluationSettings

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Tasks:
    """names: what was chosen; loaded: lm-eval's dictionary of the tasks and groups by name."""

    names: tuple[str, ...]
    loaded: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Tasks that are run, those of groups counted one by one."""
        return len(self.loaded["tasks"])


def find_tasks(settings: EvaluationSettings, max_positions: int | None = None) -> Tasks:
    """The tasks that `settings` name, with their data, tried. max_positions: tokens that the model reads; None: not known yet.

    Raises MissingRequirement without lm-eval, ConfigError for a name that means nothing and a task that cannot be run here, DataError for
    data that is not there.
    """
    if not settings.tasks:
        raise ConfigError(['"eval_tasks" is not given: evaluation needs tasks to run'])
    library = task_library()
    with quiet(), seeded(settings.seed):
        files = [word for word in settings.tasks if word.endswith(SUFFIXES)]
        _check_files(files)
        words = [word for word in settings.tasks if word not in files]
        manager, names = choose(library, settings.include_path, words, files)
        chosen = (*files, *names)
        loaded: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}, "group_map": {}}
        for name in chosen:
            _add(loaded, name, _load(manager, name))
        _check_kinds(loaded["tasks"])
        for name, task in loaded["tasks"].items():
            rehearse(name, task, settings, max_positions=max_positions)
    if not loaded["tasks"]:
        raise ConfigError(
            [f"eval_tasks ({', '.join(settings.tasks)}) holds no task: name tasks, or groups that have some"]
        )
    return Tasks(chosen, loaded)


def _check_files(files: Sequence[str]) -> None:
    missing = [
        f'"{file}" in eval_tasks: there is no such file; correct the path' for file in files if not _is_file(file)
    ]
    if missing:
        raise ConfigError(missing)


def _is_file(text: str) -> bool:
    return Path(text).expanduser().is_file()


def _load(manager: Any, name: str) -> Mapping[str, Any]:
    """lm-eval's dictionary for one name. Raises NeoXError, naming it, when the data is not there or the file is wrong."""
    try:
        loaded: Mapping[str, Any] = manager.load([name])
    except Exception as error:
        raise _failure(name, error) from error
    return loaded


def _failure(name: str, error: BaseException) -> NeoXError:
    if type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        return DataError(
            f'the data of the task "{name}" cannot be read: {one_line(error.__cause__)}; correct its files'
        )
    reason = one_line(error)
    if isinstance(error, ConnectionError):
        return DataError(
            f'the data of the task "{name}" is not in the cache, and cannot be downloaded ({reason}): run this once where there is a network '
            "and take its cache along (HF_HOME says where it is), or write a task of your own with dataset_path: json and "
            "dataset_kwargs: {data_files: ...}"
        )
    if isinstance(error, OSError):
        return DataError(
            f'the data of the task "{name}" cannot be read: {reason}; correct its dataset_path and dataset_kwargs'
        )
    if isinstance(error, ModuleNotFoundError):
        return MissingRequirement(f'the task "{name}" needs the package "{error.name}": pip install it')
    if isinstance(error, StopIteration):
        return DataError(f'the data of the task "{name}" is empty: give it examples')
    hint = ""
    if isinstance(error, LookupError):  # where its keys ask for what is not there
        hint = "; its first example is read with its keys (test_split, doc_to_text, doc_to_choice, ...): correct these, or the data"
    return ConfigError([f'the task "{name}" cannot be used: {reason}{hint}'])


def _add(loaded: dict[str, dict[str, Any]], name: str, new: Mapping[str, Any]) -> None:
    twice = [task for task in new["tasks"] if task in loaded["tasks"]]
    if twice:
        raise ConfigError(
            [f'"{name}" in eval_tasks runs the task "{twice[0]}", as a name before it does: evaluate them in two runs']
        )
    for part, things in loaded.items():
        things.update(new.get(part, {}))


def _check_kinds(tasks: Mapping[str, Any]) -> None:
    """Raise ConfigError for tasks that need what is not there: eyes and ears, or to run what the model writes."""
    problems = []
    for name, task in tasks.items():
        if getattr(task, "MULTIMODAL", False):
            problems.append(f'the task "{name}" shows images or plays sounds, and this model reads text: remove it')
        elif getattr(task, "UNSAFE_CODE", False):
            problems.append(f'the task "{name}" runs programs that the model writes, which is not done here: remove it')
    if problems:
        raise ConfigError(problems)

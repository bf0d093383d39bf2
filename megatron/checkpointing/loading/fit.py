"""Whether a checkpoint fits the model and the optimizer, said as a sentence before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable

from megatron.checkpointing.names import is_weight, kind_of, parameter_of
from megatron.checkpointing.state_file import Shapes
from megatron.errors import CheckpointError

_SHOWN = 5


def check_fit(saved: Shapes, wanted: Shapes, *, description: str, advice: str = "") -> None:
    """Check that a checkpoint (`saved`) holds exactly the parameters of the model and the optimizer state that is `wanted`.

    Optimizer state in the checkpoint that is not wanted (weights alone are loaded) is no error. description: of the checkpoint; advice: a
    sentence for weights that do not fit. Raises CheckpointError.
    """
    _check_weights(_weights(saved), _weights(wanted), description, advice)
    _check_optimizer(saved, {name: shape for name, shape in wanted.items() if not is_weight(name)}, description)


def merge_shapes(of_ranks: Iterable[Shapes]) -> Shapes:
    """The tensors of all ranks, each of which may know only those of its pipeline stage."""
    merged: Shapes = {}
    for shapes in of_ranks:
        for name, shape in shapes.items():
            assert merged.setdefault(name, shape) == shape, f"ranks disagree about the shape of {name}"
    return merged


def _check_weights(saved: Shapes, wanted: Shapes, description: str, advice: str) -> None:
    lacking = [name for name in wanted if name not in saved]
    foreign = [name for name in saved if name not in wanted]
    other = [
        f"{name} is {list(saved[name])} in the checkpoint and {list(shape)} in the model"
        for name, shape in wanted.items()
        if name in saved and saved[name] != shape
    ]
    findings = []
    if lacking:
        findings.append(f"{_count(lacking)} of the model {_verb(lacking)} not in it: {_shown(lacking)}")
    if foreign:
        findings.append(f"{_count(foreign)} in it {_verb(foreign)} not in the model: {_shown(foreign)}")
    if other:
        findings.append(f"{_count(other)} {'has' if len(other) == 1 else 'have'} another shape: {_shown(other)}")
    if findings:
        raise CheckpointError(f"{description} does not fit the model. {'. '.join(findings)}.{advice and f' {advice}'}")


def _check_optimizer(saved: Shapes, wanted: Shapes, description: str) -> None:
    if all(saved.get(name) == shape for name, shape in wanted.items()):
        return
    held = _kinds(name for name in saved if not is_weight(name))
    needed = _kinds(wanted)
    if not held:
        problem = "holds no optimizer state"
    elif not set(needed) <= set(held):
        problem = f"holds the optimizer state {', '.join(held)}, and this optimizer needs {', '.join(needed)}"
    else:
        differing = [name for name, shape in wanted.items() if saved.get(name) != shape]
        problem = f"lacks optimizer state, or holds it in another shape: {_shown(differing)}"
    raise CheckpointError(
        f"{description} {problem}. Use the optimizer it was trained with, or load the weights alone (no_load_optim: true or finetune: true)."
    )


def _weights(shapes: Shapes) -> Shapes:
    return {parameter_of(name): shape for name, shape in shapes.items() if is_weight(name)}


def _kinds(names: Iterable[str]) -> list[str]:
    return sorted(set(map(kind_of, names)))


def _count(names: list[str]) -> str:
    return f"{len(names)} parameter{'' if len(names) == 1 else 's'}"


def _verb(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

"""Every module of a model watched through one step: where the first number comes from that is NaN or infinite.

Waits for the device at every module, so it is for steps that have gone wrong already.

In the forward pass that is the first module with finite inputs and an output that is not. In the backward pass gradients are seen where they
reach the inputs and outputs of modules, and parameters: the first that is not finite names the module that passed it on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Origin:
    """where: in words; micro_batch counts from 0; order: how many modules and gradients this process had looked at by then."""

    backward: bool
    micro_batch: int
    order: int
    where: str


class ModuleWatch:
    """Watches `model`, whose every call is a micro-batch; `origin` is what was found."""

    def __init__(self, model: nn.Module) -> None:
        self.origin: Origin | None = None
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}
        self._calls = 0
        self._micro_batches = 0
        self._backward_of = 0
        self._in_forward = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what the model computes in the block."""
        with ExitStack() as stack:
            for module in self._names:
                handles = [
                    module.register_forward_pre_hook(self._before, with_kwargs=True),
                    module.register_forward_hook(self._after, with_kwargs=True),
                ]
                handles += [
                    parameter.register_hook(self._of_parameter(local, self._words(module)))
                    for local, parameter in module.named_parameters(recurse=False)
                    if parameter.requires_grad
                ]
                for handle in handles:
                    stack.callback(handle.remove)
            yield

    def _before(self, module: nn.Module, arguments: Any, options: Any) -> None:
        if module is self._model:
            self._in_forward = True
        for tensor in tensors_in((arguments, options)):
            self._follow(tensor, self._words(module), is_input=True)

    def _after(self, module: nn.Module, arguments: Any, options: Any, output: Any) -> None:
        outputs = list(tensors_in(output))
        self._calls += 1
        if (
            self.origin is None
            and not all(map(is_finite, outputs))
            and all(map(is_finite, tensors_in((arguments, options))))
        ):
            where = f"comes out of the forward pass of {self._words(module)}"
            self.origin = Origin(False, self._micro_batch, self._calls, where)
        for tensor in outputs:
            self._follow(tensor, self._words(module), is_input=False)
        if module is self._model:
            self._begin_backward_of(self._micro_batches, outputs)
            self._micro_batches += 1
            self._in_forward = False

    def _begin_backward_of(self, micro_batch: int, outputs: list[Tensor]) -> None:
        """Note, when gradients first reach the outputs of the model, which micro-batch's they are."""

        def note(gradient: Tensor) -> None:
            self._backward_of = micro_batch

        for tensor in outputs:
            if tensor.requires_grad:
                tensor.register_hook(note)

    def _follow(self, tensor: Tensor, words: str, *, is_input: bool) -> None:
        """Look at the gradient of a tensor that a module takes or gives; a tensor has one hook, which knows all its modules."""
        if not tensor.requires_grad or (tensor.is_leaf and isinstance(tensor, nn.Parameter)):
            return
        places: tuple[list[str], list[str]] | None = getattr(tensor, "_watched", None)
        if places is None:
            places = ([], [])
            tensor._watched = places  # type: ignore[attr-defined]
            tensor.register_hook(self._of_tensor(*places, self._micro_batch))
        places[0 if is_input else 1].append(words)

    def _of_tensor(self, takers: list[str], givers: list[str], micro_batch: int) -> Any:
        def look(gradient: Tensor) -> None:
            if takers:
                where = f"comes out of the backward pass of {takers[-1]}"
            else:
                where = f"comes out of the backward pass of what takes the output of {givers[0]}"
            self._look_backward(gradient, where, micro_batch)

        return look

    def _of_parameter(self, name: str, words: str) -> Any:
        def look(gradient: Tensor) -> None:
            where = f"comes out of the backward pass of {words} (the gradient of its {name})"
            self._look_backward(gradient, where, self._backward_of)

        return look

    @property
    def _micro_batch(self) -> int:
        """That of the modules that run now; in a backward pass they run to compute anew what was not kept."""
        return self._micro_batches if self._in_forward else self._backward_of

    def _look_backward(self, gradient: Tensor, where: str, micro_batch: int) -> None:
        self._calls += 1
        if self.origin is None and not is_finite(gradient):
            self.origin = Origin(True, micro_batch, self._calls, where)

    def _words(self, module: nn.Module) -> str:
        name = self._names[module] or "the model"
        return f"{name} ({type(module).__name__})"


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, dictionaries and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


@torch.no_grad()
def is_finite(tensor: Tensor) -> bool:
    """Whether all its values are; waits for the device."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())

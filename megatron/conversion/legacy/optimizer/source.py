"""A checkpoint that GPT-NeoX wrote with all that a run needs to go on from it: weights in fp32, the optimizer's moments, counters."""

from __future__ import annotations

from torch import Tensor

from megatron.checkpointing.names import WEIGHT, kind_of, parameter_of
from megatron.checkpointing.state_file import Shapes
from megatron.conversion.legacy.layout import Layout
from megatron.conversion.legacy.merge import is_second_bias
from megatron.conversion.legacy.optimizer.counters import Scalars, read_run_state
from megatron.conversion.legacy.optimizer.states import open_optimizer
from megatron.conversion.legacy.optimizer.zero_files import WEIGHTS_ALONE
from megatron.conversion.legacy.source import NeoXSource
from megatron.errors import CheckpointError
from megatron.neox_arguments import NeoXArgs


class NeoXState:
    """`TensorSource` of `weights` and of the optimizer's state that was saved with them, if any.

    Weights are the fp32 ones of the optimizer, where it has them. args: of the run that is to go on; scalars: what `Engine.load_scalars`
    takes; run_state: see `read_run_state`. Raises CheckpointError when the state is not whole, of no known form, or cannot go on here as it
    did there.
    """

    def __init__(self, weights: NeoXSource, args: NeoXArgs, *, trusted: bool = False) -> None:
        self._weights = weights
        names = [parameter_of(name) for name in weights.shapes]
        self._optimizer = open_optimizer(weights.files, trusted=trusted)
        if self._optimizer is not None:
            _check_can_go_on(weights.layout, args, names)
        self._kinds = [] if self._optimizer is None else self._optimizer.kinds
        self.run_state = read_run_state(weights.layout, args, trusted=trusted)
        self.scalars: Scalars = {} if self._optimizer is None else self._optimizer.scalars
        self.shapes: Shapes = {
            f"{parameter_of(name)}/{kind}": shape
            for name, shape in weights.shapes.items()
            for kind in dict.fromkeys((WEIGHT, *self._kinds))
        }

    @property
    def description(self) -> str:
        """For messages."""
        return self._weights.description

    @property
    def remarks(self) -> list[str]:
        """Where the run goes on otherwise than it would have there: sentences for warnings."""
        skipped = self.run_state.get("skipped_iterations", 0)
        if not skipped:
            return []
        return [
            f"{self.description} had skipped {skipped} of {self.run_state['iteration']} steps. GPT-NeoX does not count these in its learning "
            f"rates, ours follow the iteration: they are {skipped} steps further in the schedule"
        ]

    def read(self, name: str) -> Tensor:
        """A full tensor, fp32 if of the optimizer. Raises KeyError when there is none of this name, CheckpointError when it is damaged."""
        if name not in self.shapes:
            raise KeyError(name)
        optimizer, kind = self._optimizer, kind_of(name)
        if optimizer is None or kind not in self._kinds:
            return self._weights.read(name)
        return self._weights.assemble(parameter_of(name), lambda theirs: optimizer.shards(theirs, kind), kind=kind)


def _check_can_go_on(layout: Layout, args: NeoXArgs, parameters: list[str]) -> None:
    """Raises CheckpointError for biases of which every tensor rank had a copy that counts.

    Each of them has the gradient of their sum, and takes Adam's whole step, so that the sum took as many steps in one as there were ranks.
    A bias that is one parameter takes one, and the run would go on another way.
    """
    if layout.ranks > 1 and args.gpt_j_residual and any(map(is_second_bias, parameters)):
        raise CheckpointError(
            f"the optimizer's state in {layout.directory} cannot be taken over: with gpt_j_residual and {layout.ranks} tensor-parallel ranks "
            f"GPT-NeoX trained {layout.ranks} biases that are added up behind every attention and MLP, which are one here and would learn "
            f"{layout.ranks} times slower than they did. {WEIGHTS_ALONE}"
        )

"""A family of models in Hugging Face transformers: one table of settings and one of modules, each read in both directions.

Adding a family is adding a file to `families/` and its line to the menu `FAMILIES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.conversion.mapping.architecture import Architecture, build_architecture, differences
from megatron.conversion.mapping.kinds import wrong_values
from megatron.conversion.mapping.packing import Cut, Heads, Packing, build_packing, whole
from megatron.conversion.mapping.settings import Config, Table, Untranslatable
from megatron.conversion.mapping.shapes import parameter_shapes
from megatron.errors import CheckpointError

Shape = tuple[int, ...]
ANY_LAYER = "{layer}"


def always(architecture: Architecture) -> bool:
    """In every architecture."""
    return True


@dataclass(frozen=True)
class Module:
    """One module of ours and what holds its parameters in theirs: `{layer}` counts blocks from 0.

    ours: `"block.attention.dense"`, with the kind of its layer (embedding, block, norm, head); cut: how its rows are told apart in theirs;
    transposed: theirs hold matrices as [inputs, outputs]; leaves: their names of our parameters, where these are others than `weight` and `bias`;
    when: in which architectures, where the module of ours has several names in theirs.
    """

    ours: str
    theirs: tuple[str, ...]
    cut: Cut = whole
    transposed: bool = False
    leaves: Mapping[str, str] | None = None
    when: Callable[[Architecture], bool] = always


@dataclass(frozen=True, eq=False)
class TensorRule:
    """One parameter of ours (`"2.attention.dense.weight"`), of this full shape, and the tensors of theirs that hold it."""

    ours: str
    shape: Shape
    theirs: tuple[str, ...]
    packing: Packing

    @property
    def their_shapes(self) -> dict[str, Shape]:
        """The shapes of their tensors by name."""
        return dict(zip(self.theirs, self.packing.shapes(self.shape), strict=True))


class Inexpressible(CheckpointError):
    """A family cannot express an architecture; `problems` says what of it, one entry a setting."""

    def __init__(self, message: str, problems: Sequence[str]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Family:
    """model_type, causal, classifier: what `config.json` calls the models and their classes with an output layer and with a reward head ("" = there is none);
    older: names that the first of these has in files from before transformers knew it; buffers: patterns of names of theirs that hold no weights (masks,
    tables of frequencies); prefix: what the names of their tensors begin with, which some files leave out."""

    name: str
    model_type: str
    causal: str
    settings: Table
    modules: tuple[Module, ...]
    classifier: str = ""
    older: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    prefix: str = "model."

    def architecture(self, config: Config) -> Architecture:
        """What a `config.json` of this family describes. Raises CheckpointError naming every setting that we cannot express."""
        keys = {key for row in self.settings.rows for key in row.keys}
        damaged = list(wrong_values(config, frozenset(keys | _OF_CLASSES)))
        if damaged:
            raise CheckpointError(f"config.json describes no model: {'; '.join(damaged)}")
        is_reward_model = self._is_reward_model(config)
        try:
            values = self.settings.to_ours(config)
        except Untranslatable as problem:
            raise CheckpointError(f"this {self._class(is_reward_model)} cannot be expressed: {problem}") from problem
        return build_architecture({**values, "train_impl": "rm" if is_reward_model else "normal"})

    def config(self, architecture: Architecture) -> dict[str, Any]:
        """The `config.json` of an architecture. Raises Inexpressible naming every setting that this family cannot express."""
        is_reward_model = architecture.train_impl == "rm"
        name = self._class(is_reward_model)
        if not name:
            problem = f"{self.causal} has no form with a reward head (train_impl is 'rm')"
            raise Inexpressible(problem, [problem])
        try:
            config = {"architectures": [name], "model_type": self.model_type, **self.settings.to_theirs(architecture)}
            if is_reward_model:
                config |= {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
            understood = build_architecture({**self.settings.to_ours(config), "train_impl": architecture.train_impl})
        except Untranslatable as problem:
            raise Inexpressible(f"{name} cannot express this model: {problem}", problem.args) from problem
        lost = [
            f"{key} {ours!r} (it has {theirs!r})"
            for key, (ours, theirs) in differences(architecture, understood).items()
        ]
        if lost:
            raise Inexpressible(f"{name} cannot express {', '.join(lost)}", lost)
        return config

    def rules(self, architecture: Architecture) -> list[TensorRule]:
        """Every parameter of ours, in the order of the layers, with its place in theirs. Raises CheckpointError for one that has none."""
        modules = [module for module in self.modules if module.when(architecture)]
        by_name = {module.ours: module for module in modules}
        assert len(by_name) == len(modules), f"{self.name} names a module twice"
        heads = Heads(
            architecture.num_attention_heads,
            architecture.num_kv_heads,
            architecture.head_dim,
            rotated=int(architecture.head_dim * architecture.rotary_pct),
        )
        rules = []
        for parameter in parameter_shapes(architecture):
            module = by_name.get(f"{parameter.kind}.{parameter.module}")
            if module is None:
                raise CheckpointError(f"{self.causal} has no place for the parameter {parameter.name}")
            leaf = (module.leaves or {}).get(parameter.leaf, _LEAVES[parameter.leaf])
            theirs = tuple(f"{name.replace(ANY_LAYER, str(parameter.block))}.{leaf}" for name in module.theirs)
            packing = build_packing(module.cut, parameter.shape[0], heads, transposed=module.transposed)
            rules.append(TensorRule(parameter.name, parameter.shape, theirs, packing))
        return rules

    def name_in_transformers(self, named: str) -> str:
        """What transformers calls the class that a file calls `named`."""
        return self.causal if named in self.older else named

    def is_buffer(self, name: str) -> bool:
        """Whether a tensor of theirs holds no weights."""
        return any(re.fullmatch(pattern, name) for pattern in self.buffers)

    def _is_reward_model(self, config: Config) -> bool:
        named = config.get("architectures") or [self.causal]
        if [self.name_in_transformers(name) for name in named] == [self.causal]:
            return False
        if self.classifier and named == [self.classifier]:
            labels = config.get("num_labels") or len(config.get("id2label") or _LABELS)
            if labels != 1:
                raise CheckpointError(
                    f"this {self.classifier} has {labels} labels; only reward models, with 1, can be expressed"
                )
            return True
        known = " or ".join(filter(None, (self.causal, self.classifier)))
        raise CheckpointError(
            f"this is a {', '.join(named)}; of {self.model_type} models only {known} can be expressed"
        )

    def _class(self, is_reward_model: bool) -> str:
        return self.classifier if is_reward_model else self.causal


_OF_CLASSES = {"architectures", "num_labels", "id2label"}
# What transformers takes where nothing is said.
_LABELS = ("LABEL_0", "LABEL_1")
_LEAVES = {"weight": "weight", "scale": "weight", "bias": "bias"}

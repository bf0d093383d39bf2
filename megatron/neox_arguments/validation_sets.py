"""The named validation sets of a configuration (`validation_sets`): what they may be called, and what each is read from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from megatron.neox_arguments.keys.types import Group, Number, Texts

if TYPE_CHECKING:
    from megatron.neox_arguments.arguments import NeoXArgs

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
TAKEN = ("train", "valid", "validation", "test")
"""Names that mean something else where datasets and metrics are spoken of."""

UNNAMED = "validation"
"""What the set of valid_data_paths or split is called."""


class ValidationSet(Group):
    """What a named set is read from."""

    paths: Annotated[Texts, Field(min_length=1)]
    """Prefixes of tokenised datasets."""

    weights: tuple[Annotated[Number, Field(ge=0)], ...] | None = None
    """Relative frequency of samples from each of paths; normalised. Default: equal."""

    label_paths: Texts | None = None
    """Prefixes of their label data."""


def validation_sets(args: NeoXArgs) -> Mapping[str, ValidationSet]:
    """The named sets of a checked configuration, by name."""
    return {name: ValidationSet.model_validate(values) for name, values in (args.validation_sets or {}).items()}

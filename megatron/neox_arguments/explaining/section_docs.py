"""What keys are, in words, those within sections included: `norm`, `optimizer.params.lr`, `fp16.enabled`, ..."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.explaining.field_docs import GROUP_OF, FieldDoc, describe
from megatron.neox_arguments.keys.sections import SECTIONS
from megatron.neox_arguments.keys.types import Group


def field_of(path: str) -> FieldInfo:
    """The field of a key, or of a key within a section. Raises KeyError for a path that is none."""
    return _model_of(path).model_fields[path.rpartition(".")[2]]


def _model_of(path: str) -> type[Group]:
    section = path.rpartition(".")[0]
    return SECTIONS[section] if section else NeoXArgs


def describe_key(path: str) -> FieldDoc:
    """A key, or a key within a section, in words; its group is then the section. Raises KeyError for a path that is none."""
    doc = describe(path, path.rpartition(".")[0] or GROUP_OF[path], _model_of(path))
    assert doc.text, f"{path} has no description"
    return doc


def sub_keys(section: str) -> Iterator[str]:
    """The paths of the keys in a section in reading order, each followed by its own; none where keys are not described."""
    for key in SECTIONS[section].model_fields if section in SECTIONS else ():
        yield f"{section}.{key}"
        yield from sub_keys(f"{section}.{key}")

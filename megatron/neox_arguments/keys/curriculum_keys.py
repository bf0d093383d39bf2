"""The keys inside the section of the curriculum: sequences that start short."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer, Number, Section

Count = Annotated[Integer, Field(ge=1)]


class CurriculumKeys(Group):
    """Short sequences first, longer ones later."""

    enabled: bool = False
    """Whether sequences start short."""

    curriculum_type: Literal["seqlen"] = "seqlen"
    """What grows: the sequence length."""

    min_difficulty: Integer = Field(DERIVED, ge=1)
    """Tokens of a sample at the start. Must be given."""

    max_difficulty: Integer = Field(DERIVED, ge=1)
    """Tokens of a sample at the end, usually seq_length. Must be given."""

    schedule_type: Literal["fixed_linear", "fixed_root", "fixed_discrete"] = "fixed_linear"
    """How the length grows: in proportion to the iteration, to a root of it, or through a list of lengths."""

    schedule_config: Section = Field(DERIVED)
    """Settings of the schedule. Must be given."""


class CurriculumScheduleKeys(Group):
    """How the sequence length grows."""

    total_curriculum_step: Integer = Field(DERIVED, ge=1)
    """fixed_linear, fixed_root: iterations until sequences have their final length."""

    difficulty_step: Integer = Field(DERIVED, ge=1)
    """fixed_linear, fixed_root: every length is a multiple of this. Multiples of 8 keep half precision fast."""

    root_degree: Number = Field(DERIVED, gt=0)
    """fixed_root: 2 grows with the square root of the iteration, 3 with the cube root; more is faster at first."""

    difficulty: tuple[Count, ...] = Field(DERIVED, min_length=1)
    """fixed_discrete: the lengths in turn, each longer than the one before."""

    max_step: tuple[Count, ...] = Field(DERIVED)
    """fixed_discrete: the last iteration, counted from 1, of each length but the final one."""

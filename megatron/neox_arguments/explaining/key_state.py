"""What becomes of a key that is written: built, not built yet, accepted without effect, set while running only, or an older spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from megatron.neox_arguments.explaining.section_docs import describe_key
from megatron.neox_arguments.reading.values import quote
from megatron.neox_arguments.resolving.unsupported import ALSO_BUILT, NOT_BUILT, RUNTIME, WITHOUT_EFFECT

State = Literal["built", "not built yet", "accepted without effect", "set while running only", "older spelling"]

_OLDER = re.compile(r"Older spelling of (.+?)\.$")


@dataclass(frozen=True)
class KeyState:
    """`detail`: the missing feature, why there is no effect, or what to write instead. Empty where the key's own text says it."""

    state: State
    detail: str = ""

    def __str__(self) -> str:
        """As a sentence; nothing for what is built."""
        if self.state == "built":
            return ""
        joint = " of " if self.state == "older spelling" else ": "
        return f"{self.state[0].upper()}{self.state[1:]}{joint + self.detail if self.detail else ''}."


def state_of(path: str) -> KeyState:
    """The state of a key, or of a key within a section ("zero_optimization.cpu_offload")."""
    text = describe_key(path).text
    older = _OLDER.match(text)
    if older:
        return KeyState("older spelling", older.group(1))
    section = path.rpartition(".")[0]
    feature = NOT_BUILT.get(path) or (state_of(section).detail if section and not is_built(section) else None)
    if feature:
        also = "".join(f"; {quote(value)} is fine" for value in ALSO_BUILT.get(path, ()))
        return KeyState("not built yet", feature + also)
    if path in RUNTIME or "Set while running" in text:
        return KeyState("set while running only")
    if path in WITHOUT_EFFECT or "Accepted" in text:
        return KeyState("accepted without effect", "" if "Accepted" in text else WITHOUT_EFFECT[path])
    return KeyState("built")


def is_built(path: str) -> bool:
    """Whether values other than the default do what the key's text says."""
    return state_of(path).state != "not built yet"

"""The blocks of README's "Run on a cluster": what a user types for each launcher is what the tests run."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY

_BLOCK = re.compile(r"^<!-- launcher: (\S+) -->\n```sh\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def blocks() -> dict[str, str]:
    """The text of each block, by its launcher, in the order of the README."""
    return dict(_BLOCK.findall((REPOSITORY / "README.md").read_text()))

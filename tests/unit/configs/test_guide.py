"""`configs/README.md` names every file, and tells what is not built."""

from __future__ import annotations

import re

from tests.shipped import (
    CONFIGS,
    FILES,
    header_of,
)

GUIDE = (CONFIGS / "README.md").read_text()


def test_the_guide_names_every_file_and_no_other() -> None:
    named = {name for name in re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.yml)`", GUIDE) if not name.startswith("configs/")}
    assert named == set(FILES)


def test_the_guide_tells_what_is_not_built() -> None:
    rows = re.findall(r"^\| (`[^|]+\.yml`) \| (.+?) \|$", GUIDE.partition("## Not built yet")[2], re.MULTILINE)
    told = {file: tuple(features.split("; ")) for files, features in rows for file in re.findall(r"`([^`]+)`", files)}
    assert told == {file: header_of(file).not_built for file in FILES if header_of(file).not_built}

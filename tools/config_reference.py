"""Writes the reference of all configuration keys, for people (Markdown) and for editors (JSON Schema), from the code.

python tools/config_reference.py --write
python tools/config_reference.py --check    # exit status 1 when a file is not what the code says
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # the packages lie beside this folder, which is all that Python knows of

from megatron.neox_arguments.explaining.json_schema import schema_text  # noqa: E402
from megatron.neox_arguments.explaining.reference_page import page_text  # noqa: E402

FILES = {"configs/neox_arguments.md": page_text, "configs/neox_arguments.schema.json": schema_text}
"""Path in the repository -> what gives its text."""


def stale_files() -> list[str]:
    """The files that are missing or differ from what the code says."""
    return [name for name, text in FILES.items() if not (REPOSITORY / name).is_file() or read(name) != text()]


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write or check the reference of all configuration keys.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the files")
    action.add_argument("--check", action="store_true", help="exit with status 1 when a file is stale")
    write = parser.parse_args(argv).write
    stale = stale_files()
    if write:
        for name in stale:
            (REPOSITORY / name).write_text(FILES[name](), encoding="utf-8")
            print(f"wrote {name}")
        return 0
    for name in stale:
        print(f"{name} is not what the code says: run python tools/config_reference.py --write", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

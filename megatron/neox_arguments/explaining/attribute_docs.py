"""The texts under the fields of a class, read from its source.

pydantic would read them for every class when it is made (`use_attribute_docstrings`); a start that explains nothing need not pay for that.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache


def attribute_doc(model: type, name: str) -> str:
    """The text under a field of a class or of what it inherits from; empty where there is none."""
    return next((texts[name] for base in model.__mro__ if name in (texts := _attribute_docs(base))), "")


@cache
def _attribute_docs(model: type) -> dict[str, str]:
    """The texts under the fields that a class itself declares, by field."""
    if "__annotations__" not in vars(model):
        return {}
    (declaration,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(declaration, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in zip(declaration.body, declaration.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }

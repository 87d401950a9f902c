"""Reads the text with which published checkpoints record how their network was constructed.

Such a text, "AsymmetricMASt3R(enc_depth=24, depth_mode=('exp', -inf, inf), ...)", was meant to be run as a program. It
comes from a downloaded file, so it is parsed instead: one call of a known name, keyword arguments, literal values.
"""

import ast
from typing import Any

from anchorsfm.scene.errors import InputError

_KNOWN = ("AsymmetricMASt3R", "AsymmetricCroCo3DStereo")
_MAX_LENGTH = 4096
"""Published ones have 500 characters; very long texts can exhaust the parser."""


def parse_constructor(text: str, source: str) -> dict[str, Any]:
    """Keyword arguments of the call; `source` names the file in errors.

    Raises InputError if the text is anything else than one call of a known network with literal keyword arguments.
    """
    shown = text if len(text) <= 80 else text[:77] + "..."
    problem = f"{source}: its network description {shown!r} is not one call of {' or '.join(_KNOWN)} with plain values"
    if len(text) > _MAX_LENGTH:
        raise InputError(problem)
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in _KNOWN:
            raise InputError(problem)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise InputError(problem)
        return {str(keyword.arg): ast.literal_eval(_Infinities().visit(keyword.value)) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(problem) from error


class _Infinities(ast.NodeTransformer):
    """The name `inf` as the number, which is not a literal in Python."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(float("inf")), node) if node.id == "inf" else node

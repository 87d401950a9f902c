"""Readable JSON in which columns of numbers stay on one line."""

import json
from typing import Any

from anchorsfm.io.store import to_json


def report_json(value: Any) -> str:
    """JSON of nested dataclasses and plain values; numbers that are not finite become null."""
    return _text(json.loads(to_json(value), parse_constant=lambda _: None), "") + "\n"


def _text(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {_text(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, str)) for item in value):
        return "[\n" + ",\n".join(inner + _text(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value)

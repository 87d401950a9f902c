"""JSON from outside, held against a type."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anchorsfm.io.json_files import checked, read_json
from anchorsfm.scene.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    share: float | None
    size_wh: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    parts: tuple[Part, ...]
    counts: dict[str, int]
    anything: Any = None


GOOD = {"parts": [{"name": "a", "share": 1, "size_wh": [3, 4], "new": True}], "counts": {"x": 2}}


def test_what_fits_is_kept_and_what_is_missing_gets_its_default() -> None:
    found = checked(GOOD, Record)
    assert found["parts"] == GOOD["parts"] and found["anything"] is None
    assert checked({**GOOD, "parts": [{"name": "a", "share": None}]}, Record)["parts"][0]["size_wh"] is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "it is .* instead of an object"),
        ({"parts": []}, "counts is missing"),
        ({"parts": {}, "counts": {}}, "parts is {} instead of a list"),
        ({"parts": [{"name": 3, "share": 1}], "counts": {}}, r"parts\[0\].name is 3 instead of a text"),
        ({"parts": [{"name": "a", "share": True}], "counts": {}}, "share is true instead of a number"),
        ({"parts": [{"name": "a", "share": 1e300}], "counts": {}}, "share is 1e.300 instead"),
        ({"parts": [{"name": "a", "share": 1, "size_wh": [1]}], "counts": {}}, "has 1 values instead of 2"),
        ({"parts": [], "counts": {"x": 10**30}}, "counts.x is .* instead of a whole number"),
        ({"parts": [], "counts": {"x": 1.5}}, "instead of a whole number"),
    ],
)
def test_what_does_not_fit_is_named(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checked(value, Record)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b'{"a": 1, "a": 2}', "a is there twice"),
        (b"[" * 100_000, "too deeply"),
        (b"[" * 100 + b"]" * 100, "too deeply"),
        (b"9" * 10_000, "is not JSON"),
    ],
)
def test_what_is_no_json_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(InputError, match="a folder"):
        read_json(tmp_path)

"""Ground control points from files: OpenDroneMap's gcp_list.txt, and comma-separated values.

gcp_list.txt: the first line is the reference system (EPSG:32610, WGS84, WGS84 UTM 16N, a PROJ string), every other one
a mark: `x y z px py image [name]`; x is the easting or the longitude. Lines with the same coordinates mark the same
point.

CSV: a header with the columns x, y, z, image, px, py and perhaps name and check (1 or true: the point is only compared
with); before it there may be a line with the reference system. Without one, coordinates are metres in a frame of their
own, z upwards.

Pixels are counted from the top left corner of the upright photograph.
"""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anchorsfm.io.files import read_regular
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable

_LARGEST_FILE = 64 * 2**20
_COLUMNS = ("x", "y", "z", "image", "px", "py")
_NUMBERS = ("x", "y", "z", "px", "py")
_CHECK = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_OTHER_SEPARATORS = re.compile("[;\t]")
_LARGEST = 1e9
"""No coordinate on the Earth is larger in metres."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One line of a file."""

    line: int
    xyz: tuple[float, float, float]
    image: str
    xy_px: tuple[float, float]
    name: str = ""
    is_check: bool = False


@dataclass(frozen=True, kw_only=True)
class GcpFile:
    """Marks, and what their coordinates mean."""

    path: Path
    system: str | None
    """Reference system as the file names it; None: metres in a frame of their own."""
    marks: tuple[Mark, ...]

    def fault(self, line: int, problem: str) -> InputError:
        """The error for a line."""
        return InputError(f"{self.path}, line {line}: {problem}")


def read_gcp(path: Path) -> GcpFile:
    """The marks of a file, a .csv or a list.

    Raises InputError, which names file and line.
    """
    try:
        text = read_regular(path, _LARGEST_FILE).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no list of ground control points: it is not text in UTF-8") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} lists no ground control points")
    is_csv = path.suffix.lower() == ".csv"
    file = GcpFile(path=path, system=None, marks=())
    if is_csv:
        _require_commas(file, lines[:2])
    if not is_csv or "," not in lines[0][1]:
        file = GcpFile(path=path, system=lines[0][1], marks=())
        lines = lines[1:]
    marks = tuple(_from_table(file, lines) if is_csv else _from_list(file, lines))
    if not marks:
        raise InputError(f"{path} lists no ground control points")
    return GcpFile(path=path, system=file.system, marks=marks)


def _from_list(file: GcpFile, lines: Sequence[tuple[int, str]]) -> Iterator[Mark]:
    for number, line in lines:
        fields = line.split("\t") if "\t" in line else line.split()
        if not 6 <= len(fields) <= 9:
            raise file.fault(number, f"{len(fields)} columns instead of x y z px py image [name]")
        x, y, z, px, py = (_number(file, number, *pair) for pair in zip(_NUMBERS, fields, strict=False))
        name = fields[6] if len(fields) > 6 else ""
        yield Mark(line=number, xyz=(x, y, z), image=fields[5].strip(), xy_px=(px, py), name=name.strip())


def _require_commas(file: GcpFile, lines: Sequence[tuple[int, str]]) -> None:
    """Spreadsheets of many countries write semicolons, and commas in numbers."""
    for number, line in lines:
        if set(_COLUMNS) <= {name.strip().strip('"').lower() for name in _OTHER_SEPARATORS.split(line)}:
            raise file.fault(number, "separate columns by commas, and write decimals with a point")


def _from_table(file: GcpFile, lines: Sequence[tuple[int, str]]) -> Iterator[Mark]:
    if not lines:
        return
    header = [name.strip().lower() for name in _cells(file, *lines[0])]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise file.fault(lines[0][0], f"no column {missing[0]}; columns are {', '.join(_COLUMNS)}, name and check")
    if len(set(header)) < len(header):
        raise file.fault(lines[0][0], "a column is there twice")
    for number, line in lines[1:]:
        cells = _cells(file, number, line)
        if len(cells) != len(header):
            raise file.fault(number, f"{len(cells)} columns instead of {len(header)}")
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        x, y, z, px, py = (_number(file, number, name, row[name]) for name in _NUMBERS)
        is_check = _CHECK.get(row.get("check", "").lower())
        if is_check is None:
            raise file.fault(number, f"check is {printable(row['check'])!r} instead of 0 or 1")
        yield Mark(
            line=number, xyz=(x, y, z), image=row["image"], xy_px=(px, py), name=row.get("name", ""), is_check=is_check
        )


def _cells(file: GcpFile, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise file.fault(number, f"not comma-separated values: {error}") from error


def _number(file: GcpFile, line: int, what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if what == "z" and text.strip().lower() == "nan":
        raise file.fault(line, "no elevation (NaN), which control points need: complete or remove such lines")
    if not abs(value) < _LARGEST:
        raise file.fault(line, f"{what} is {printable(text)[:40]!r} instead of a number")
    return value

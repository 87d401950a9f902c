"""Files of ground control points."""

from pathlib import Path

import pytest

from anchorsfm.io.gcp import read_gcp
from anchorsfm.scene.errors import InputError

LIST = """EPSG:32632
# a comment
500000.5 5200000 431.2 100 200.5 a.jpg one

500000.5 5200000 431.2 90 210 b.jpg one extra
500010 5200010 430 5 6 a.jpg
"""
TABLE = """WGS84
name,x,y,z,image,px,py,check
one,7.5,46.9,431.2,a.jpg,100,200.5,
"two, far",7.6,46.9,430,"b c.jpg",5,6,yes
"""


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_lists(tmp_path: Path) -> None:
    file = read_gcp(write(tmp_path / "gcp_list.txt", LIST))
    assert file.system == "EPSG:32632" and [mark.line for mark in file.marks] == [3, 5, 6]
    first = file.marks[0]
    assert first.xyz == (500000.5, 5200000, 431.2) and first.xy_px == (100, 200.5)
    assert (first.image, first.name, first.is_check) == ("a.jpg", "one", False) and file.marks[2].name == ""


def test_tables(tmp_path: Path) -> None:
    file = read_gcp(write(tmp_path / "gcp.csv", TABLE))
    assert file.system == "WGS84" and [mark.is_check for mark in file.marks] == [False, True]
    assert file.marks[1].name == "two, far" and file.marks[1].image == "b c.jpg"
    local = read_gcp(write(tmp_path / "local.csv", TABLE.partition("\n")[2]))
    assert local.system is None and len(local.marks) == 2


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("g.txt", "", "g.txt lists no ground control points"),
        ("g.txt", "EPSG:32632\n", "g.txt lists no ground control points"),
        ("g.txt", b"\xff\xfe\x00", "it is not text in UTF-8"),
        ("g.txt", "EPSG:32632\n1 2 3 4 5\n", "line 2: 5 columns instead of x y z px py image"),
        ("g.txt", "EPSG:32632\n1 2 3 4 5 a.jpg b c d e\n", "line 2: 10 columns"),
        ("g.txt", "EPSG:32632\n\n1 2 high 4 5 a.jpg\n", "line 3: z is 'high' instead of a number"),
        ("g.txt", "EPSG:32632\n1 2 3 nan 5 a.jpg\n", "line 2: px is 'nan' instead of a number"),
        ("g.txt", "EPSG:32632\n1 2 1e300 4 5 a.jpg\n", "line 2: z is '1e300' instead of a number"),
        (
            "g.txt",
            "EPSG:32632\n1 2 NaN 4 5 a.jpg\n",
            r"line 2: no elevation \(NaN\), which control points need: complete or remove such lines",
        ),
        ("g.csv", "x,y,z,image,px,py\n1,2,nan,a.jpg,4,5\n", "line 2: no elevation"),
        ("g.csv", "x;y;z;image;px;py\n1,5;2;3;a.jpg;4;5\n", "line 1: separate columns by commas"),
        ("g.csv", 'WGS84\n"Name";"X";"Y";"Z";"image";"px";"py"\n', "line 2: separate columns by commas"),
        ("g.csv", "x\ty\tz\timage\tpx\tpy\n1\t2\t3\ta.jpg\t4\t5\n", "line 1: separate columns by commas"),
        ("g.csv", "x,y,z,px,py\n1,2,3,4,5\n", "line 1: no column image"),
        ("g.csv", "x,x,y,z,image,px,py\n", "line 1: a column is there twice"),
        ("g.csv", "x,y,z,image,px,py\n1,2,3,a.jpg,4\n", "line 2: 5 columns instead of 6"),
        ("g.csv", "x,y,z,image,px,py\n1,2,3,a.jpg,4,\n", "line 2: py is '' instead of a number"),
        ("g.csv", "x,y,z,image,px,py,check\n1,2,3,a.jpg,4,5,maybe\n", "line 2: check is 'maybe' instead of 0 or 1"),
        ("g.csv", 'x,y,z,image,px,py\n1,2,3,"a.jpg,4,5\n', "line 2: not comma-separated values"),
        ("g.csv", "EPSG:32632\n", "g.csv lists no ground control points"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(name: str, content: str | bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem) as error:
        read_gcp(write(tmp_path / name, content))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_gcp(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot read"):
        read_gcp(tmp_path)

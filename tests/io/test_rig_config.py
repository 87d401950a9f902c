"""Rigs from files and from names."""

import json
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.io.rig_config import read_rig_config, rigs_of_names, rigs_of_times
from anchorsfm.scene.errors import InputError

GOOD = [
    {
        "cameras": [
            {
                "image_prefix": "right/",
                "cam_from_rig_rotation": [0.5, 0.5, -0.5, 0.5],
                "cam_from_rig_translation": [1, 2, 3],
            },
            {"image_prefix": "left/", "ref_sensor": True, "some_other_key": 1},
        ]
    }
]


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_reference_comes_first(tmp_path: Path) -> None:
    (rig,) = read_rig_config(write(tmp_path / "rig_config.json", GOOD))
    assert [camera.image_prefix for camera in rig.cameras] == ["left/", "right/"]
    assert np.array_equal(rig.cameras[0].cam_from_rig, np.eye(3, 4))
    pose = rig.cameras[1].cam_from_rig
    assert np.allclose(pose[:, 3], [1, 2, 3]) and np.allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3))


CAMERA, REFERENCE = {"image_prefix": "b/"}, {"image_prefix": "a/", "ref_sensor": True}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ({}, "it is {} instead of a list"),
        ([], "it describes no rig"),
        ([[]], r"\[0\] is \[\] instead of an object"),
        ([{}], r"\[0\].cameras is missing"),
        ([{"cameras": [{}]}], r"\[0\].cameras\[0\].image_prefix is missing"),
        ([{"cameras": [{"image_prefix": 5}]}], r"image_prefix is 5 instead of a text"),
        ([{"cameras": [{"image_prefix": "", "ref_sensor": True}]}], "image_prefix is empty"),
        ([{"cameras": [CAMERA]}], "has 0 cameras with ref_sensor instead of one"),
        ([{"cameras": [REFERENCE, {**CAMERA, "ref_sensor": True}]}], "has 2 cameras with ref_sensor"),
        ([{"cameras": [REFERENCE, {**REFERENCE, "ref_sensor": False}]}], "the prefix 'a/' is given twice"),
        ([{"cameras": [REFERENCE, {**CAMERA, "cam_from_rig_rotation": [1, 0, 0]}]}], "has 3 values instead of 4"),
        ([{"cameras": [REFERENCE, {**CAMERA, "cam_from_rig_rotation": [1, 0, 0, "0"]}]}], "instead of a number"),
        ([{"cameras": [REFERENCE, {**CAMERA, "cam_from_rig_rotation": [1, 0, 0, 0]}]}], "and not both"),
        (
            [
                {
                    "cameras": [
                        REFERENCE,
                        {**CAMERA, "cam_from_rig_rotation": [0, 0, 0, 0], "cam_from_rig_translation": [0, 0, 0]},
                    ]
                }
            ],
            "is no quaternion",
        ),
        ([{"cameras": [REFERENCE, {**CAMERA, "camera_model_name": "PINHOLE"}]}], "and not both"),
        ('[{"cameras": [{"image_prefix": "a/", "image_prefix": "b/"}]}]', "is there twice"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(content: object, problem: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rig_config.json", content)
    with pytest.raises(InputError, match=problem) as error:
        read_rig_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json: no such file"):
        read_rig_config(tmp_path / "none.json")


def test_folders_with_the_same_names_are_a_rig() -> None:
    names = [f"{camera}/{k:03d}.{kind}" for camera, kind in (("L", "jpg"), ("R", "png")) for k in range(5)]
    (rig,) = rigs_of_names([*names, "notes/000.jpg", "other.jpg"])
    assert [camera.image_prefix for camera in rig.cameras] == ["L/", "R/"] and rig.cameras[0].ref_sensor
    deep = [f"day{day}/{name}" for day in (1, 2) for name in names]
    assert [[c.image_prefix for c in r.cameras] for r in rigs_of_names(deep)] == [
        ["day1/L/", "day1/R/"],
        ["day2/L/", "day2/R/"],
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["a/1.jpg", "b/1.jpg", "a/2.jpg", "b/2.jpg"],
        [f"a/{k}.jpg" for k in range(9)] + [f"b/{k}.jpg" for k in range(5, 14)],
        [f"{k}.jpg" for k in range(9)],
        [f"IMG_{k}.jpg" for k in range(9)] + [f"DSC_{k}.jpg" for k in range(5, 14)],
        [f"cam{k}.jpg" for k in range(9)] + [f"cam{k}_edited.jpg" for k in range(9)],
    ],
)
def test_few_common_names_are_none(names: list[str]) -> None:
    assert not rigs_of_names(names)


def test_beginnings_of_names_in_one_folder_are_a_rig() -> None:
    names = [f"day/{camera}{k:03d}.jpg" for camera in ("cam0_", "cam1_", "left") for k in range(5)]
    (rig,) = rigs_of_names([*names, "day/notes.jpg", "12.jpg"])
    assert [camera.image_prefix for camera in rig.cameras] == ["day/cam0_", "day/cam1_", "day/left"]


NAMES = [f"{camera}/{100 * ord(camera) + k}.jpg" for camera in "ab" for k in range(6)]


def test_folders_with_the_same_times_are_a_rig() -> None:
    """One second apart at shots every five; one has no time, one was taken by one camera alone."""
    taken = np.array([0.0, 5, 10, 15, 20, 25, 1, 6, 11, 16, np.nan, 33])
    (rig,), moment = rigs_of_times(NAMES, taken)
    assert [camera.image_prefix for camera in rig.cameras] == ["a/", "b/"]
    assert {name: of for name, of in moment.items() if name != of} == dict(zip(NAMES[6:10], NAMES[:4], strict=True))
    assert set(moment) == set(NAMES) - {NAMES[10]}


@pytest.mark.parametrize(
    "second",
    [
        [100.0, 105, 110, 115, 120, 125],  # another clock
        [2.0, 7, 12, 17, 22, 27],  # between the others
        [0.0, 0, 5, 10, 15, 20],  # two at once
        [np.nan] * 6,
    ],
)
def test_other_times_are_none(second: list[float]) -> None:
    assert rigs_of_times(NAMES, np.array([0.0, 5, 10, 15, 20, 25, *second])) == ((), {})

"""What is kept of a model: which descriptors, of which points, in which order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anchorsfm.features.base import Features
from anchorsfm.localisation.index import VERSION, IndexSettings, make_index, read_index, write_index
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks

SETTINGS = IndexSettings(
    version=VERSION, max_image_size=1024, max_keypoints=64, contrast_threshold=0.005, max_ratio=0.85
)
OBSERVED = {
    7: {2: (100.0, 200.0), 0: (300.0, 400.0), 1: (500.0, 600.0)},
    3: {1: (50.0, 60.0)},
}
"""Where images show points."""


def model() -> Reconstruction:
    """Views that are not in the order of their images."""
    rows = [(point, image, xy) for image, points in OBSERVED.items() for point, xy in points.items()]
    point, image, xy = (np.array(column) for column in zip(*rows, strict=True))
    order = np.lexsort((image, point))
    return Reconstruction(
        image_index=np.array([7, 3]),
        cam_from_world=np.tile(np.eye(3, 4), (2, 1, 1)),
        cameras=(Camera(model="SIMPLE_RADIAL", width=2048, height=1536, params=(2000.0, 1024.0, 768.0, 0.0)),),
        camera_index=np.zeros(2, np.int64),
        points=np.zeros((3, 3)),
        rgb=np.zeros((3, 3), np.uint8),
        error_px=np.zeros(3),
        tracks=Tracks(obs_point=point[order], obs_image=image[order], obs_xy=xy[order]),
    )


def features(image: int) -> Features:
    """Keypoints 1.2 pixels from what was observed, a working pixel being two; one of them is further away, one has two
    descriptors, and one was not observed. Descriptors tell image and row."""
    if image == 3:
        xy, keypoint, score = np.array([[51.2, 60.0]]), np.array([0]), np.array([1.0])
    else:
        xy = np.array([[900.0, 900.0], [101.2, 200.0], [300.0, 401.7], [500.0, 598.8]])
        keypoint, score = np.array([0, 1, 1, 2, 3]), np.array([9.0, 1.0, 4.0, 8.0, 3.0])
    descriptor = np.zeros((len(keypoint), 128), np.uint8)
    descriptor[:, 0], descriptor[:, 1] = image, np.arange(len(keypoint))
    return Features(
        size_wh=np.array([2048, 1536]), xy=xy, descriptor=descriptor, keypoint=keypoint, score=score.astype(np.float32)
    )


def test_descriptors_of_observed_keypoints_are_kept_largest_structure_first() -> None:
    index = make_index(model(), features, SETTINGS)
    assert index.num_points == 3 and index.num_views == 2
    assert index.start.tolist() == [0, 1, 4], "in the order of the images"
    assert index.descriptor[:, :2].tolist() == [[3, 0], [7, 2], [7, 4], [7, 1]]
    assert index.point.tolist() == [1, 2, 1, 2]


def test_images_without_keypoints_or_observations_are_empty() -> None:
    def none(image: int) -> Features:
        return replace(
            features(image),
            xy=np.zeros((0, 2)), descriptor=np.zeros((0, 128), np.uint8), keypoint=np.zeros(0, np.int64),
            score=np.zeros(0, np.float32),
        )  # fmt: skip

    assert make_index(model(), none, SETTINGS).start.tolist() == [0, 0, 0]


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    index = make_index(model(), features, SETTINGS)
    write_index(tmp_path / "0.safetensors", index)
    again = read_index(tmp_path / "0.safetensors")
    assert again is not None and again.settings == SETTINGS and np.array_equal(again.descriptor, index.descriptor)
    write_index(tmp_path / "0.safetensors", replace(index, settings=replace(SETTINGS, version=VERSION + 1)))
    with pytest.raises(InputError, match="of another version of AnchorSfM: make it anew with anchorsfm index"):
        read_index(tmp_path / "0.safetensors")

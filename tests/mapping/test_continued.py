"""Models of earlier runs grow, and become one when new images connect them."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.align.config import AlignConfig
from anchorsfm.io.store import Store
from anchorsfm.mapping.base import Mapped, MapperInput, MapperSettings
from anchorsfm.mapping.continued import EarlierModel, map_continued, with_earlier_cameras
from anchorsfm.scene.edit import moved, select_views
from anchorsfm.scene.errors import NoReconstructionError
from anchorsfm.scene.progress import SILENT
from anchorsfm.scene.reconstruction import Reconstruction
from matched_images import mapper_input
from point_scene import make_point_scene

POSE = np.column_stack([Rotation.from_rotvec([0.4, -1.2, 0.7]).as_matrix(), [5.0, -3.0, 20.0]])


def input_of(pairs_with_new_images: bool = True) -> tuple[MapperInput, Reconstruction, Reconstruction]:
    """Eight images of one scene, the first three and the last three of them as models in different frames."""
    scene = make_point_scene(8, 400)
    i, j = scene.matches.image_i, scene.matches.image_j
    new = np.isin(i, (3, 4)) | np.isin(j, (3, 4))
    matches = scene.matches if pairs_with_new_images else scene.matches.select(~new)
    given = mapper_input(matches, 8, scene.model.cameras[0], is_known=False)
    first = select_views(scene.model, np.arange(3))
    return given, first, moved(select_views(scene.model, np.arange(5, 8)), 2.0, POSE)


def continued(given: MapperInput, *models: Reconstruction, keeps: bool, runs: tuple[int, ...], joins: bool) -> Mapped:
    earlier = [
        EarlierModel(model=model, keeps=keeps, run=run, number=number)
        for number, (model, run) in enumerate(zip(models, runs, strict=True))
    ]
    members = np.zeros((max(runs) + 1, 8), bool)
    for entry in earlier:
        members[entry.run, entry.model.image_index] = True
    settings = MapperSettings(align=AlignConfig(), store=Store(None))
    given = with_earlier_cameras(given, earlier)
    return map_continued(earlier, members, given, settings, SILENT, joins_runs=joins)


def test_models_of_one_run_join_through_new_images_and_the_first_keeps_its_bits() -> None:
    given, first, second = input_of()
    (start,) = continued(given, first, second, keeps=True, runs=(0, 0), joins=False).starts
    assert start.model.image_index.tolist() == list(range(8))
    assert start.held.pose.tolist() == [True] * 3 + [False] * 5 and start.held.camera.all()
    truth = make_point_scene(8, 400).model.cam_from_world
    np.testing.assert_allclose(start.model.cam_from_world, truth, atol=0.03)


def test_what_one_run_left_apart_stays_apart_without_new_images() -> None:
    given, first, second = input_of(pairs_with_new_images=False)
    mapped = continued(given, first, second, keeps=True, runs=(0, 0), joins=False)
    assert [len(start.model.image_index) for start in mapped.starts] == [3, 3]
    assert all(start.held.pose.all() for start in mapped.starts)
    assert set(mapped.reasons) == {3, 4}


def test_models_of_two_runs_join_by_overlap_alone_and_refusals_have_numbers() -> None:
    given, first, second = input_of(pairs_with_new_images=False)
    (start,) = continued(given, first, second, keeps=False, runs=(0, 1), joins=True).starts
    assert start.model.image_index.tolist() == [0, 1, 2, 5, 6, 7] and not start.held.pose.any()
    apart = given.matches.select((given.matches.image_i < 3) == (given.matches.image_j < 3))
    nothing = mapper_input(apart, 8, given.cameras[0], is_known=False)
    with pytest.raises(NoReconstructionError, match="cannot be joined: they have 0 images in common and 0 points"):
        continued(nothing, first, second, keeps=False, runs=(0, 1), joins=True)

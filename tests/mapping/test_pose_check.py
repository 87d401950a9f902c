"""Known poses are held against matches that were found without them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import with_focal_length
from anchorsfm.geometry.transforms import camera_centres, invert
from anchorsfm.mapping.base import MapperInput
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.consistency import examine
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.mapping.pose_check import check_poses, name_doubtful_poses, name_far_poses
from anchorsfm.mapping.with_poses import along_epipolar_lines, median_offsets_px, model_of_poses
from anchorsfm.scene.edit import with_poses
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.progress import SILENT, RecordingProgress
from anchorsfm.tracks.config import AdjustConfig
from matched_images import mapper_input
from point_scene import make_point_scene, perturb

SCENE = make_point_scene(outliers=0.05)
POSES = SCENE.model.cam_from_world


def given_with(
    poses: np.ndarray, focal_px: float | None = None, *, frozen: bool = True, has_lens: bool = True
) -> MapperInput:
    """Matches of the scene, and poses that are said to be known."""
    camera = SCENE.model.cameras[0]
    camera = camera if focal_px is None else with_focal_length(camera, focal_px)
    known = KnownCameras(
        config=KnownConfig(freeze_poses=frozen),
        poses=dict(enumerate(poses)),
        cameras={0: camera} if has_lens else {},
        camera_index=SCENE.model.camera_index,
    )
    return replace(mapper_input(SCENE.matches, 8, camera, is_known=has_lens), known=known)


def warnings_of(given: MapperInput) -> list[str]:
    progress = RecordingProgress(SILENT)
    name_doubtful_poses(given, progress)
    return list(progress.warnings)


def test_true_poses_pass() -> None:
    check = check_poses(given_with(POSES))
    assert len(check.view) == 18 and not check.contradicted.any() and check.off_px < 1
    assert warnings_of(given_with(POSES)) == []


def test_two_swapped_poses_are_named() -> None:
    swapped = POSES.copy()
    swapped[[2, 6]] = POSES[[6, 2]]
    (line,) = warnings_of(given_with(swapped))
    assert "of 2.jpg, 6.jpg are not where" in line


@pytest.mark.parametrize(
    ("poses", "remedy"),
    [
        (invert(POSES), "when they are inverted (world_from_cam"),
        (np.diag([1.0, -1, -1]) @ POSES, "with y and z of the cameras turned round (y up"),
        (invert(np.diag([1.0, -1, -1]) @ POSES), "inverted, with y and z"),
        (POSES[::-1], "those of other photographs"),
    ],
)
def test_poses_that_most_pairs_contradict_are_refused(poses: np.ndarray, remedy: str) -> None:
    with pytest.raises(InputError) as raised:
        name_doubtful_poses(given_with(poses), SILENT)
    assert "contradict the photographs" in str(raised.value) and remedy in str(raised.value)
    (line,) = warnings_of(given_with(poses, frozen=False))
    assert remedy in line


def test_poses_that_are_not_exact_are_only_kept_with_a_warning() -> None:
    off = perturb(SCENE.model, degrees=0.2, distance=0.0, focal=1.0).cam_from_world
    (line,) = warnings_of(given_with(off))
    assert "px (median) off the lines" in line
    assert warnings_of(given_with(off, frozen=False)) == []


def test_focal_lengths_that_do_not_come_with_poses_make_these_no_less_exact() -> None:
    """They are found in the adjustment: what a few percent move the lines is no reason to adjust the poses."""
    focal_px = 1.04 * float(SCENE.model.cameras[0].params[0])
    assert 1.5 < check_poses(given_with(POSES, focal_px)).off_px < 8
    assert len(warnings_of(given_with(POSES, focal_px))) == 1
    assert warnings_of(given_with(POSES, focal_px, has_lens=False)) == []


@pytest.mark.parametrize("degrees", [1.0, 2.5])
def test_adjusted_poses_may_be_off_by_degrees(degrees: float) -> None:
    """Nothing speaks of wrong poses where the deviation is stated, and their lines take few matches away."""
    off = perturb(SCENE.model, degrees=degrees, distance=0.0, focal=1.0).cam_from_world
    given = given_with(off, frozen=False)
    assert given.known is not None
    stated = replace(given.known.config, position_sigma=0.01, rotation_sigma_deg=degrees)
    assert warnings_of(replace(given, known=replace(given.known, config=stated))) == []
    count = len(SCENE.matches.image_i)
    assert len(along_epipolar_lines(given).matches.image_i) > 0.9 * count
    assert len(along_epipolar_lines(given_with(off)).matches.image_i) < 0.4 * count


def test_matches_of_things_that_look_alike_do_not_refuse_poses_that_others_confirm() -> None:
    """Of a thing with equal sides only neighbours match where they should: 11 of 18 pairs are wrong."""
    matches = SCENE.matches
    alike = np.abs(matches.image_i - matches.image_j) > 1
    moved = replace(matches, xy_j=matches.xy_j + np.where(alike, 150.0, 0.0)[:, None] * [0, 1])
    given = replace(given_with(POSES), matches=moved)
    check = check_poses(given)
    assert check.share > 0.5 and check.confirmed.tolist() == list(range(8))
    (line,) = warnings_of(given)
    assert "in 11 of 18 pairs" in line and "things in different places look alike" in line and "wrong" not in line


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_poses_of_one_place_are_refused_by_that_name(offset: float) -> None:
    rotations = POSES[:, :, :3]
    place = offset + np.array([[0.1], [0.2], [0.3]])
    one_place = np.concatenate([rotations, -rotations @ place], axis=2)
    for frozen in (True, False):
        with pytest.raises(InputError, match="all 8 poses are in one place"):
            name_doubtful_poses(given_with(one_place, frozen=frozen), SILENT)
    with pytest.raises(InputError, match=r"only 0\.jpg has a pose"):
        name_doubtful_poses(given_with(POSES[:1]), SILENT)


@pytest.mark.parametrize(("count", "warned"), [(2, 1), (3, 0)])
def test_deviations_of_two_poses_are_said_to_have_no_effect(count: int, warned: int) -> None:
    given = given_with(POSES[:count], frozen=False)
    assert given.known is not None
    stated = replace(given.known.config, position_sigma=0.01)
    lines = warnings_of(replace(given, known=replace(given.known, config=stated)))
    assert len(lines) == warned and all("no effect with fewer than 3 poses" in line for line in lines)


def test_offsets_of_a_pair_count_matches_of_both_directions() -> None:
    """And matches that the lens shows nowhere count for nothing."""
    matches = SCENE.matches
    turned = np.arange(len(matches.image_i)) % 2 == 0
    either = replace(
        matches,
        image_i=np.where(turned, matches.image_j, matches.image_i),
        image_j=np.where(turned, matches.image_i, matches.image_j),
        xy_i=np.where(turned[:, None], matches.xy_j, matches.xy_i),
        xy_j=np.where(turned[:, None], matches.xy_i, matches.xy_j),
    )
    found, expected = (dict(median_offsets_px(replace(given_with(POSES), matches=m))) for m in (either, matches))
    assert found.keys() == expected.keys() and len(found) == 18
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()), rtol=1e-9)
    xy_i = matches.xy_i.copy()
    xy_i[::10] = np.nan
    nowhere = median_offsets_px(replace(given_with(POSES), matches=replace(matches, xy_i=xy_i)))
    assert np.isfinite([off for _, off in nowhere]).all()


def test_the_focal_length_of_another_camera_is_noticed() -> None:
    lines = warnings_of(given_with(POSES, focal_px=1900.0))
    assert any("focal lengths are not as exact" in line for line in lines)


@pytest.mark.parametrize(("shift", "degrees"), [(0.0, 1.0), (0.2, 0.0), (0.0, 0.05)])
def test_adjusted_poses_far_from_the_given_ones_are_named(shift: float, degrees: float) -> None:
    """One view has moved, or turned, by more than a deviation of a centimetre and a twentieth of a degree allows."""
    given = given_with(POSES, frozen=False)
    stated = KnownConfig(freeze_poses=False, position_sigma=0.01, rotation_sigma_deg=0.05)
    assert given.known is not None
    given = replace(given, known=replace(given.known, config=stated))
    poses = POSES.copy()
    turn = Rotation.from_rotvec([0, np.radians(degrees), 0]).as_matrix()
    rotation = turn @ POSES[3, :, :3]
    poses[3] = np.column_stack([rotation, -rotation @ (camera_centres(POSES)[3] + [shift, 0, 0])])
    progress = RecordingProgress(SILENT)
    name_far_poses(with_poses(SCENE.model, poses), given, progress)
    assert len(progress.warnings) == (0 if degrees == 0.05 else 1)
    assert all("1 of 8 adjusted poses" in line and "(3.jpg: " in line for line in progress.warnings)


def test_matches_that_poses_exclude_remain_evidence_against_them() -> None:
    swapped = POSES.copy()
    swapped[[2, 6]] = POSES[[6, 2]]
    near = along_epipolar_lines(given_with(swapped))
    assert near.free is SCENE.matches
    evidence = examine(model_of_poses(near), near, AdjustConfig())
    assert (np.isin(evidence.view, [2, 6]).any(axis=1) == evidence.contradicted).all() and evidence.contradicted.any()

"""Models of overlapping views become one: the similarity between them, and refusals in numbers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.mapping.joining import join_models, relate_models
from anchorsfm.scene.edit import moved, select_views, with_image_index
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.build import build_tracks
from anchorsfm.tracks.points import triangulate_model
from point_scene import make_point_scene

SCALE = 2.5
POSE = np.column_stack([Rotation.from_rotvec([0.4, -1.2, 0.7]).as_matrix(), [5.0, -3.0, 20.0]])


def halves(
    first: slice, second: slice, *, num_points: int = 400, outliers: float = 0.0
) -> tuple[Reconstruction, Reconstruction, Tracks]:
    """Two models of parts of eight views, the second one in another frame, and the tracks of all views."""
    scene = make_point_scene(8, num_points, outliers=outliers)
    tracks = build_tracks(scene.matches, 8)
    limit = np.full(8, 4.0)
    whole = triangulate_model(scene.model, tracks, max_error_px=limit, min_angle_deg=1.5)

    def part(rows: slice) -> Reconstruction:
        model = select_views(whole, np.arange(8)[rows])
        return triangulate_model(model, tracks, max_error_px=limit[rows], min_angle_deg=1.5)

    return part(first), moved(part(second), SCALE, POSE), tracks


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [(slice(0, 4), slice(4, 8), 0), (slice(0, 5), slice(3, 8), 2)],
    ids=["overlapping views", "common images"],
)
def test_the_similarity_is_found_from_what_both_saw(first: slice, second: slice, common: int) -> None:
    a, b, tracks = halves(first, second, outliers=0.05)
    relation = relate_models(a, b, tracks, np.full(8, 3.0))
    assert relation.is_strong and relation.num_images == common
    assert relation.scale * SCALE == pytest.approx(1, abs=0.003)
    np.testing.assert_allclose(relation.pose[:, :3] @ POSE[:, :3], np.eye(3), atol=0.003)

    joined = join_models(a, b, relation, cameras=a.cameras, camera_index=np.zeros(8, np.int64))
    truth = make_point_scene(8, 400, outliers=0.05).model.cam_from_world
    assert joined.image_index.tolist() == list(range(8)) and len(joined.cameras) == 1
    np.testing.assert_allclose(joined.cam_from_world, truth, atol=0.03)
    np.testing.assert_array_equal(joined.cam_from_world[: len(a.image_index)], a.cam_from_world)


def test_models_of_other_things_are_refused_in_numbers() -> None:
    a, b, tracks = halves(slice(0, 4), slice(4, 8))
    rng = np.random.default_rng(0)
    elsewhere = replace(b, points=rng.permutation(b.points))
    relation = relate_models(a, elsewhere, tracks, np.full(8, 3.0))
    assert not relation.is_strong and relation.num_agreeing < 0.1 * relation.num_tracks
    assert f"{relation.num_tracks} points that both saw" in relation.weakness()
    nothing = relate_models(a, b, Tracks.empty(), np.full(8, 3.0))
    assert nothing.num_tracks == 0 and not nothing.is_strong


def test_few_points_and_points_on_a_line_do_not_join() -> None:
    a, b, tracks = halves(slice(0, 4), slice(4, 8), num_points=25)
    few = relate_models(a, b, tracks, np.full(8, 3.0))
    assert 3 <= few.num_agreeing < 40 and not few.is_strong
    assert "40 and 30 % are needed" in few.weakness()
    line = replace(few, num_agreeing=400, num_tracks=400, is_on_line=True)
    assert not line.is_strong and "on one line" in line.weakness()


def test_views_are_in_the_order_of_their_new_images() -> None:
    a, _, _ = halves(slice(0, 4), slice(4, 8))
    turned = with_image_index(a, np.array([7, 5, 6, 2]))
    assert turned.image_index.tolist() == [2, 5, 6, 7]
    np.testing.assert_array_equal(turned.cam_from_world, a.cam_from_world[[3, 1, 2, 0]])
    of_seven = turned.tracks.obs_xy[turned.tracks.obs_image == 7]
    np.testing.assert_array_equal(of_seven, a.tracks.obs_xy[a.tracks.obs_image == 0])
    order = turned.tracks.obs_point * 10 + turned.tracks.obs_image
    assert (np.diff(order) > 0).all()

"""What the viewer draws and says, without a browser."""

import json
import re
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.write import write_models
from anchorsfm.geometry.transforms import camera_centres, invert
from anchorsfm.geometry.upright import up_direction
from anchorsfm.io.colours import linear_light
from anchorsfm.io.ply import read_ply, write_ply
from anchorsfm.results.errors import write_errors
from anchorsfm.results.model import StoredModel
from anchorsfm.results.run import StoredRun
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes
from anchorsfm.viewer.browser import BACKGROUND, on_background
from anchorsfm.viewer.clouds import (
    CAMERA_COLOURS,
    POINT_COLOURS,
    PointFilter,
    camera_colours,
    read_dense,
    sparse_cloud,
    thin,
)
from anchorsfm.viewer.colours import format_number, legend_html, model_colours, scale_colours
from anchorsfm.viewer.ellipsoids import ball, ellipsoids_of
from anchorsfm.viewer.frame import SCENE_RADIUS, look_through, overview, shown_frame
from anchorsfm.viewer.frusta import corners, half_picture, make_frusta, outline_colours, outlines, spread
from anchorsfm.viewer.photographs import Photograph, Photographs
from anchorsfm.viewer.pictures import draw_matches, draw_observations
from anchorsfm.viewer.selection import facts_markdown, image_facts, pair_markdown, shared_points
from anchorsfm.viewer.server import Viewer, find_free_port
from anchorsfm.viewer.shown import show_model
from anchorsfm.viewer.sources import read_folder
from point_scene import project_pinhole
from viewer_scene import coloured_model, moved, names_of, without_points, write_output

NO_POINTS = np.zeros((0, 3))
TURN = Rotation.from_euler("xyz", [130, 40, -70], degrees=True).as_matrix()


def poses_of(centres: np.ndarray, forward: np.ndarray, up: np.ndarray, roll_deg: np.ndarray) -> np.ndarray:
    """Cameras at places, looking along directions, rolled about them."""
    poses = []
    for centre, ahead, roll in zip(
        centres, forward / np.linalg.norm(forward, axis=1, keepdims=True), roll_deg, strict=True
    ):
        right = np.cross(ahead, up)
        right /= np.linalg.norm(right)
        rotation = Rotation.from_euler("z", roll, degrees=True).as_matrix() @ np.stack(
            [right, np.cross(ahead, right), ahead]
        )
        poses.append(np.concatenate([rotation, -(rotation @ centre)[:, None]], axis=1))
    return np.array(poses)


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


@pytest.fixture
def viewed() -> StoredModel:
    model = coloured_model()
    return StoredModel(folder=Path("0"), model=model, names=tuple(names_of(model)))


# ------------------------------------------------------------------------------------------------------------- frame


@pytest.mark.parametrize("way", ["around", "around, looking down", "along a wall", "from the air, to and fro"])
def test_up_is_found_however_the_photographs_were_taken(way: str) -> None:
    rng = np.random.default_rng(0)
    up, count = TURN @ [0, 0, 1.0], 12
    if way.startswith("around"):
        turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
        centres = np.stack([np.cos(turn), np.sin(turn), np.full(count, 1.5 if "down" in way else 0.0)], axis=1)
        forward = -centres + rng.normal(0, 0.05, (count, 3))
    elif "wall" in way:
        centres = np.stack([np.linspace(-3, 3, count), np.zeros(count), np.zeros(count)], axis=1)
        forward = np.array([0, 1.0, 0]) + rng.normal(0, 0.05, (count, 3))
    else:
        centres = np.concatenate([rng.uniform(-3, 3, (count, 2)), np.full((count, 1), 5.0)], axis=1)
        forward = np.array([0, 0, -1.0]) + rng.normal(0, 0.02, (count, 3))
    towards = np.array([0.0, 1.0, 0.0]) if "air" in way else np.array([0.0, 0.0, 1.0])
    roll = np.where(np.arange(count) % 2, 180.0, 0.0) if "air" in way else rng.normal(0, 2, count)
    poses = poses_of(centres, forward, towards, roll)
    turned = np.concatenate([poses[:, :, :3] @ TURN.T, poses[:, :, 3:]], axis=2)
    assert angle_deg(up_direction(turned, NO_POINTS), up) < 6


@pytest.mark.parametrize("lines", [1, 3])
def test_up_of_a_flight_that_keeps_its_heading_is_where_the_cameras_come_from(lines: int) -> None:
    """Not what is up in the pictures; people along a wall move along their x axes."""
    rng = np.random.default_rng(1)
    across, along = (axis.ravel() for axis in np.meshgrid(np.arange(lines) - lines // 2, np.linspace(-3, 3, 6)))
    count, high = len(along), np.full(len(along), 5.0)
    ground = np.column_stack([rng.uniform(-5, 5, (300, 2)), rng.uniform(0, 0.3, 300)])
    forward = np.array([0, 0, -1.0]) + rng.normal(0, 0.02, (count, 3))
    forth = np.array([0.0, 1.0, 0.0])
    flight = poses_of(np.column_stack([across, along, high]), forward, forth, np.zeros(count))
    assert angle_deg(up_direction(flight, ground), np.array([0, 0, 1.0])) < 6
    if lines == 1:
        walk = poses_of(np.column_stack([along, across, high]), forward, forth, np.zeros(count))
        assert angle_deg(up_direction(walk, ground), forth) < 6


def test_up_of_no_camera_and_of_one() -> None:
    assert np.isclose(np.linalg.norm(up_direction(np.zeros((0, 3, 4)), NO_POINTS)), 1)
    one = np.concatenate([TURN.T, np.zeros((3, 1))], axis=1)[None]
    np.testing.assert_allclose(up_direction(one, NO_POINTS), -TURN[:, 1], atol=1e-9)


def test_the_shown_frame_does_not_depend_on_the_unit_or_on_points_at_infinity() -> None:
    model = coloured_model()
    far = np.concatenate([model.points, np.full((8, 3), 1e7), np.full((1, 3), np.nan)])
    reach = []
    for entry, points in (
        (model, model.points),
        (moved(model, TURN, 250.0, np.array([1e4, -2e3, 50.0])), None),
        (model, far),
    ):
        frame = shown_frame(entry.cam_from_world, entry.points if points is None else points)
        shown = frame.points(entry.points)
        centres = frame.shown_from_cam(entry.cam_from_world)[:, :, 3]
        np.testing.assert_allclose(frame.points(camera_centres(entry.cam_from_world)), centres, atol=1e-9)
        reach.append(np.quantile(np.linalg.norm(np.concatenate([shown, centres]), axis=1), 0.9))
        assert np.linalg.det(frame.rotation) == pytest.approx(1)
    assert 0.3 * SCENE_RADIUS < reach[0] <= 1.05 * SCENE_RADIUS
    np.testing.assert_allclose(reach[1:], reach[0], rtol=0.05)


def test_a_lone_camera_without_points_has_a_frame() -> None:
    model = without_points(coloured_model())
    frame = shown_frame(model.cam_from_world[:1], model.points)
    assert frame.scale == 1.0
    place = overview(frame.shown_from_cam(model.cam_from_world[:1]))
    assert np.isfinite(place.position).all() and np.linalg.norm(place.position) > SCENE_RADIUS


def test_the_overview_stands_behind_and_above_the_cameras_and_sees_the_scene() -> None:
    model = coloured_model()
    frame = shown_frame(model.cam_from_world, model.points)
    shown = frame.shown_from_cam(model.cam_from_world)
    place = overview(shown)
    assert place.position[2] > 0 and place.up[2] == 1
    towards = -place.position / np.linalg.norm(place.position)
    assert towards @ shown[:, :, 2].mean(0) > 0.5
    rays = frame.points(model.points) - place.position
    angle = np.arccos(rays @ towards / np.linalg.norm(rays, axis=1))
    assert np.quantile(angle, 0.95) < place.fov / 2


@pytest.mark.parametrize(("aspect", "side"), [(3.0, 1), (0.5, 0)])
def test_looking_through_a_camera_shows_just_its_picture(aspect: float, side: int) -> None:
    pose = np.concatenate([TURN, np.array([[1.0], [2.0], [3.0]])], axis=1)
    half = np.array([0.6, 0.4])
    place = look_through(pose, half, aspect, 4.0)
    np.testing.assert_allclose(place.position, pose[:, 3])
    np.testing.assert_allclose(place.look_at, pose[:, 3] + 4 * TURN[:, 2])
    np.testing.assert_allclose(place.up, -TURN[:, 1])
    window = np.tan(place.fov / 2) * np.array([aspect, 1.0])
    assert window[side] == pytest.approx(half[side]) and (window >= half - 1e-12).all()


# ------------------------------------------------------------------------------------------------------------ frusta


def test_corners_of_a_pyramid_project_to_the_corners_of_the_picture(viewed: StoredModel) -> None:
    model = viewed.model
    frame = shown_frame(model.cam_from_world, model.points)
    frusta = make_frusta(frame.shown_from_cam(model.cam_from_world), model.cameras, model.camera_index)
    corner = corners(frusta, 0.7)
    cam_from_shown = invert(frusta.shown_from_cam)
    seen = np.einsum("vij,vcj->vci", cam_from_shown[:, :, :3], corner) + cam_from_shown[:, None, :, 3]
    camera = model.cameras[0]
    xy = camera.params[0] * seen[:, :, :2] / seen[:, :, 2:] + np.array([camera.width, camera.height]) / 2
    expected = np.array([[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]])
    np.testing.assert_allclose(xy, np.broadcast_to(expected, xy.shape), atol=1e-6)
    lines = outlines(frusta, 0.7)
    rgb = np.arange(3 * len(viewed.names), dtype=np.uint8).reshape(-1, 3)
    assert lines.shape == outline_colours(rgb).shape == (10 * len(viewed.names), 2, 3)
    np.testing.assert_array_equal(lines[10, 0], frusta.shown_from_cam[1, :, 3])
    np.testing.assert_array_equal(outline_colours(rgb)[10:20], np.broadcast_to(rgb[1], (10, 2, 3)))


@pytest.mark.parametrize("model", ["OPENCV_FISHEYE", "SIMPLE_RADIAL"])
def test_pictures_of_wide_lenses_stay_of_a_size(model: str) -> None:
    distortion = (0.0,) * (4 if "FISHEYE" in model else 1)
    focal = (300.0, 300.0) if "FISHEYE" in model else (100.0,)
    camera = Camera(model=model, width=1000, height=800, params=(*focal, 500.0, 400.0, *distortion))
    width, height = half_picture(camera)
    assert 0 < height <= width <= 1.5 + 1e-9


@pytest.mark.parametrize("position", [0.003, 2e-6, 30.0])
def test_ellipsoids_of_deviations_can_be_seen_and_their_factor_is_round(tmp_path: Path, position: float) -> None:
    output = write_output(tmp_path / "out", [coloured_model()], photographs=False)
    (entry,) = json.loads((output / "uncertainty.json").read_text())
    for image in entry["images"]:
        image["position"] = position
    entry["images"][2]["position"] = None
    (output / "uncertainty.json").write_text(json.dumps([entry]))
    (viewed,) = read_folder(output).models
    shown = show_model(None, viewed)
    found = ellipsoids_of(viewed, shown.frame, shown.frusta)
    assert found.view.tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_allclose(found.centre, shown.frusta.shown_from_cam[found.view, :, 3])
    np.testing.assert_allclose(found.radius, found.factor * position * shown.frame.scale)
    assert found.are_spheres
    leading = found.factor / 10 ** np.floor(np.log10(found.factor) + 1e-9)
    assert found.factor >= 1 and leading == pytest.approx(np.round(leading)) and round(leading) in (1, 2, 5)
    share = found.radius[0, 0] / shown.frusta.depth
    assert 0.19 < share <= 0.5 or (found.factor == 1 and share > 0.5)
    rng, count = np.random.default_rng(0), len(viewed.names)
    modes = ErrorModes(
        rotation=np.zeros((4, count, 3)),
        position=position * rng.standard_normal((4, count, 3)),
        params=np.zeros((4, sum(len(camera.params) for camera in viewed.model.cameras))),
    )
    write_errors(output / "errors" / "0.safetensors", modes, viewed.view_names)
    (viewed,) = read_folder(output).models
    along = ellipsoids_of(viewed, shown.frame, shown.frusta)
    assert along.factor == found.factor and not along.are_spheres and along.view.tolist() == found.view.tolist()
    axes = along.rotation * along.radius[:, None]
    there = along.factor * shown.frame.scale * modes.position[:, along.view] @ shown.frame.rotation.T
    expected = np.einsum("mvi,mvj->vij", there, there)
    np.testing.assert_allclose(axes @ axes.swapaxes(1, 2), expected, rtol=1e-4, atol=1e-5 * expected.max())
    np.testing.assert_allclose(np.linalg.det(along.rotation), 1)
    nothing = replace(viewed, run=None)
    assert ellipsoids_of(nothing, shown.frame, shown.frusta) is None
    corner, face = ball()
    np.testing.assert_allclose(np.linalg.norm(corner, axis=1), 1)
    assert len(np.unique(np.sort(face[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)) == 1.5 * len(face)


def test_chosen_pictures_are_spread_over_the_images() -> None:
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    chosen = spread(1000, 300)
    assert len(chosen) == 300 and chosen[0] == 0 and chosen[-1] == 999 and np.diff(chosen).max() <= 4
    assert len(spread(0, 10)) == len(spread(10, 0)) == 0


# ------------------------------------------------------------------------------------------------ clouds and colours


def test_points_are_filtered_by_track_length_and_error(viewed: StoredModel) -> None:
    frame = shown_frame(viewed.model.cam_from_world, viewed.model.points)
    everything = sparse_cloud(viewed, frame, "photographs", PointFilter())
    assert len(everything.xyz) == everything.total == len(viewed.model.points)
    np.testing.assert_array_equal(everything.rgb, viewed.model.rgb)
    limit = float(np.median(viewed.point_error_px))
    few = sparse_cloud(viewed, frame, "reprojection error", PointFilter(min_track_length=4, max_error_px=limit))
    expected = (viewed.track_length >= 4) & (viewed.point_error_px <= limit)
    assert 0 < len(few.xyz) == expected.sum() < everything.total
    np.testing.assert_allclose(few.xyz, frame.points(viewed.model.points[expected]))
    thinned = sparse_cloud(viewed, frame, "photographs", PointFilter(max_points=50))
    assert len(thinned.xyz) == 50 and thinned.total == everything.total


def test_points_at_infinity_are_not_drawn(viewed: StoredModel) -> None:
    points = viewed.model.points.copy()
    points[3], points[4] = 1e9, np.nan
    model = replace(viewed.model, points=points)
    frame = shown_frame(model.cam_from_world, points)
    cloud = sparse_cloud(replace(viewed, model=model), frame, "photographs", PointFilter())
    assert len(cloud.xyz) == len(points) - 2 and np.isfinite(cloud.xyz).all()


@pytest.mark.parametrize("colour", POINT_COLOURS)
def test_every_colour_of_points_works_with_and_without_points(viewed: StoredModel, colour) -> None:
    for model in (viewed.model, without_points(viewed.model)):
        entry = replace(viewed, model=model)
        cloud = sparse_cloud(entry, shown_frame(model.cam_from_world, model.points), colour, PointFilter())
        assert cloud.rgb.shape == (len(model.points), 3)
        assert (cloud.legend is not None) == (colour in ("reprojection error", "track length"))


@pytest.mark.parametrize("colour", CAMERA_COLOURS)
def test_every_colour_of_cameras_works_with_and_without_points(viewed: StoredModel, colour) -> None:
    for model in (viewed.model, without_points(viewed.model)):
        assert camera_colours(replace(viewed, model=model), colour).rgb.shape == (len(viewed.names), 3)


def test_a_scale_rises_from_blue_to_red_and_unknown_is_grey() -> None:
    values = np.array([np.nan, 1.0, 10.0, 100.0])
    coloured = scale_colours(values, "things", logarithmic=True)
    assert coloured.rgb[0].tolist() == [128, 128, 128]
    assert coloured.rgb[1, 2] > coloured.rgb[1, 0] and coloured.rgb[3, 0] > coloured.rgb[3, 2]
    assert coloured.rgb[2, 1] == coloured.rgb[:, 1].max()
    assert coloured.legend is not None and 1 <= coloured.legend.low < coloured.legend.high <= 100
    html = legend_html(coloured.legend)
    assert "things" in html and html.count("rgb(") == len(coloured.legend.stops)
    same = scale_colours(np.full(4, 2.0), "equal")
    assert same.legend is not None and same.legend.low < 2 < same.legend.high
    assert len(scale_colours(np.zeros(0), "none").rgb) == 0


def test_numbers_have_three_digits() -> None:
    written = [format_number(value) for value in (0.0, 3.0, 5.196, 2659.4, 0.00937, 1.23e-7, -12.345)]
    assert written == ["0", "3", "5.2", "2659", "0.00937", "1.23e-07", "-12.3"]


def test_models_have_colours_of_their_own() -> None:
    assert len({tuple(rgb) for rgb in model_colours(np.arange(8)).tolist()}) == 8
    assert linear_light(np.array([[0, 128, 255]], np.uint8)).tolist() == [[0, 55, 255]]


def with_cloud(viewed: StoredModel, output: Path) -> StoredModel:
    """The model as one that lies in OUT/sparse, for a cloud in OUT/dense."""
    (output / "dense").mkdir()
    return replace(viewed, folder=output / "sparse" / "0", run=StoredRun(output))


def test_a_dense_cloud_is_read_and_thinned(viewed: StoredModel, tmp_path: Path) -> None:
    entry = with_cloud(viewed, tmp_path)
    write_ply(tmp_path / "dense" / "0.ply", viewed.model.points, viewed.model.rgb)
    frame = shown_frame(viewed.model.cam_from_world, viewed.model.points)
    dense = read_dense(entry, frame, 1000)
    np.testing.assert_allclose(dense.xyz, frame.points(viewed.model.points), atol=1e-5)
    assert dense.filtered(5.0) is dense  # it has no confidence
    few = read_dense(entry, frame, 30)
    assert len(few.xyz) == 30 and few.total == len(viewed.model.points)
    rows = thin(np.ones(1000, bool), 10)
    np.testing.assert_array_equal(rows, thin(np.ones(1000, bool), 10))


# --------------------------------------------------------------------------------------------------------------- PLY


def test_dense_points_of_little_confidence_can_be_left_out(viewed: StoredModel, tmp_path: Path) -> None:
    kinds = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("confidence", "<f4")]
    vertex = np.zeros(10, kinds)
    vertex["x"], vertex["confidence"] = np.arange(10), np.arange(10)
    entry, lines = with_cloud(viewed, tmp_path), ["element vertex 10", *(f"property float {name}" for name, _ in kinds)]
    write_vertices(tmp_path / "dense" / "0.ply", vertex, lines)
    frame = shown_frame(viewed.model.cam_from_world, viewed.model.points)
    dense = read_dense(entry, frame, 1000)
    kept = dense.filtered(7.0)
    assert kept.confidence is not None and kept.confidence.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(kept.xyz, dense.xyz[7:])
    assert len(kept.rgb) == 3 and kept.total == 10


def write_vertices(path: Path, vertex: np.ndarray, lines: list[str], before: bytes = b"") -> None:
    head = ["ply", "format binary_little_endian 1.0", "comment made for a test", *lines, "end_header", ""]
    path.write_bytes("\n".join(head).encode() + before + vertex.tobytes())


def test_a_ply_with_normals_and_confidence_is_read(tmp_path: Path) -> None:
    kinds = [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("nx", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"),
             ("confidence", "<f4")]  # fmt: skip
    vertex = np.zeros(5, kinds)
    vertex["x"], vertex["nx"], vertex["green"], vertex["confidence"] = np.arange(5), 0.5, 7, np.arange(5) / 4
    names = {"<f8": "double", "<f4": "float", "u1": "uchar"}
    lines = ["element label 2", "property ushort id", "element vertex 5"]
    lines += [f"property {names[kind]} {name}" for name, kind in kinds]
    write_vertices(
        tmp_path / "a.ply", vertex, [*lines, "element face 0", "property list uchar int vertex_indices"], bytes(4)
    )
    cloud = read_ply(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.xyz[:, 0], np.arange(5))
    assert cloud.rgb is not None and cloud.rgb.tolist() == [[0, 7, 0]] * 5
    assert sorted(cloud.others) == ["confidence", "nx"]
    np.testing.assert_allclose(cloud.others["confidence"], np.arange(5) / 4)
    bare = np.zeros(2, [("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    write_vertices(tmp_path / "b.ply", bare, ["element vertex 2", *(f"property float {axis}" for axis in "xyz")])
    assert read_ply(tmp_path / "b.ply").rgb is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no such thing", "not a PLY file"),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n", "ascii"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nend_header\n", "cut short"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\nend_header\n", "cannot be used"),
        (b"ply\nformat binary_little_endian 1.0\nend_header\n", "no vertices"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty strange x\nend_header\n", "strange"),
        (None, "No such file"),
    ],
)
def test_a_ply_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.ply.*{words}"):
        read_ply(tmp_path / "a.ply")


# ---------------------------------------------------------------------------------------------------------- selection


def test_facts_of_an_image_are_those_of_its_observations(viewed: StoredModel) -> None:
    view = 2
    facts = image_facts(viewed, view)
    mine = viewed.model.tracks.obs_image == view
    np.testing.assert_array_equal(viewed.observations(view), np.flatnonzero(mine))
    assert facts.num_points == mine.sum()
    assert facts.mean_error_px == pytest.approx(viewed.residual_px[mine].mean())
    assert 0.4 < facts.mean_error_px < 0.9  # noise of 0.5 px
    counted = {
        other: len(np.intersect1d(viewed.model.tracks.obs_point[mine],
                                  viewed.model.tracks.obs_point[viewed.model.tracks.obs_image == other]))
        for other in range(len(viewed.names)) if other != view
    }  # fmt: skip
    assert {n.view: n.shared for n in facts.neighbours} == {k: v for k, v in counted.items() if v}
    assert [n.shared for n in facts.neighbours] == sorted((v for v in counted.values() if v), reverse=True)
    table = facts_markdown(facts)
    assert "SIMPLE_RADIAL, 1600x1200" in table and f"| points | {mine.sum()} |" in table and "±" not in table


def test_residuals_lead_from_the_observation_to_the_projection(viewed: StoredModel) -> None:
    model = viewed.model
    rows = viewed.observations(3)
    projected = project_pinhole(model.cameras[0], model.cam_from_world[3], model.points[model.tracks.obs_point[rows]])
    np.testing.assert_allclose(model.tracks.obs_xy[rows] + viewed.residual[rows], projected, atol=1e-6)
    behind = replace(model, points=-50 * model.cam_from_world[3, 2, :3] + 0 * model.points)
    assert np.isnan(replace(viewed, model=behind).residual[rows]).all()


def test_shared_points_are_seen_where_both_images_say(viewed: StoredModel) -> None:
    shared = shared_points(viewed, 1, 2)
    assert len(shared.point) > 20
    tracks = viewed.model.tracks
    for view, xy in ((1, shared.xy_a), (2, shared.xy_b)):
        rows = (tracks.obs_image == view) & np.isin(tracks.obs_point, shared.point)
        np.testing.assert_array_equal(tracks.obs_xy[rows], xy)
    centres = camera_centres(viewed.model.cam_from_world[1:3])
    at = viewed.model.points[shared.point]
    rays = [(at - c) / np.linalg.norm(at - c, axis=1, keepdims=True) for c in centres]
    expected = np.median(np.degrees(np.arccos((rays[0] * rays[1]).sum(1))))
    assert shared.angle_deg == pytest.approx(expected)
    assert f"{len(shared.point)} shared points" in pair_markdown(viewed, 1, 2, shared)


def test_an_image_that_sees_nothing_has_facts_too(viewed: StoredModel) -> None:
    lonely = replace(viewed, model=without_points(viewed.model))
    facts = image_facts(lonely, 0)
    assert facts.num_points == 0 and facts.mean_error_px is None and facts.neighbours == ()
    assert "| points | 0 |" in facts_markdown(facts)
    shared = shared_points(lonely, 0, 1)
    assert len(shared.point) == 0 and pair_markdown(lonely, 0, 1, shared).startswith("0 shared points")


# ----------------------------------------------------------------------------------------------------------- pictures


def test_residuals_are_drawn_where_they_are() -> None:
    photograph = Photograph(rgb=np.zeros((100, 200, 3), np.uint8), scale=np.array([0.5, 0.5]))
    drawn = draw_observations(photograph, np.array([[101.0, 101.0]]), np.array([[2.0, 0.0]]), 20.0)
    assert not photograph.rgb.any()  # it is kept for other pictures
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert abs(rows.mean() - 50) < 1.5
    assert columns.min() == pytest.approx(48, abs=1.5) and columns.max() == pytest.approx(70, abs=1.5)
    behind = draw_observations(photograph, np.array([[101.0, 101.0]]), np.array([[np.nan, np.nan]]), 20.0)
    assert behind[:, :, 0].max() == 255 and behind[:, :, 1].max() == 0
    assert not draw_observations(photograph, np.zeros((0, 2)), np.zeros((0, 2)), 20.0).any()


def test_matches_join_the_same_point_in_two_photographs() -> None:
    left = Photograph(rgb=np.zeros((100, 200, 3), np.uint8), scale=np.array([1.0, 1.0]))
    right = Photograph(rgb=np.zeros((200, 100, 3), np.uint8), scale=np.array([1.0, 1.0]))
    drawn = draw_matches(left, right, np.array([[20.5, 30.5]]), np.array([[80.5, 160.5]]))
    assert drawn.shape == (100, 200 + 6 + 50, 3)
    assert drawn[30, 20].any() and drawn[80, 206 + 40].any()
    assert not drawn[60:, :100].any()
    nothing = draw_matches(left, right, np.zeros((0, 2)), np.zeros((0, 2)))
    assert not nothing[:, :200].any()


def test_a_smaller_copy_stands_for_a_photograph_and_another_picture_does_not(tmp_path: Path) -> None:
    camera = Camera(model="SIMPLE_PINHOLE", width=1600, height=1200, params=(1500.0, 800.0, 600.0))
    Image.new("RGB", (800, 600), (1, 2, 3)).save(tmp_path / "a.png")
    Image.new("RGB", (600, 800)).save(tmp_path / "turned.png")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    photographs = Photographs(tmp_path)
    found = photographs.load("a.png", camera, 400)
    assert found.rgb.shape == (300, 400, 3) and found.scale.tolist() == [0.25, 0.25]
    assert photographs.load("a.png", camera, 400) is found
    with pytest.raises(InputError, match=r"turned\.png is 600x800"):
        photographs.load("turned.png", camera, 400)
    for name in ("broken.jpg", "missing.jpg"):
        with pytest.raises(InputError, match=name):
            photographs.load(name, camera, 400)
    with pytest.raises(InputError, match="--images"):
        Photographs(None).load("a.png", camera, 400)


def test_a_screenshot_has_the_colour_of_the_page_behind_it() -> None:
    rendered = np.zeros((2, 2, 4), np.uint8)
    rendered[0] = [200, 100, 50, 255]
    shown = on_background(rendered)
    assert shown[0, 0].tolist() == [200, 100, 50] and shown[1, 1].tolist() == list(BACKGROUND)


# ------------------------------------------------------------------------------------------------------------ sources


def test_an_output_folder_is_read_with_everything_beside_its_models(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [coloured_model()])
    for folder in (output, output / "sparse", output / "sparse" / "0"):
        found = read_folder(folder)
        (viewed,) = found.models
        assert found.photo_root == tmp_path / "photographs" and found.notes == ()
        assert viewed.cloud_file is not None and viewed.cloud_file.samefile(output / "dense" / "0.ply")
        assert viewed.precision["photo 0.jpg"].weak and not viewed.precision["photo 1.jpg"].weak
        assert "weakly held" in facts_markdown(image_facts(viewed, 0))
        assert "0.1 % of the scene size" in facts_markdown(image_facts(viewed, 1))


def test_uncertainties_of_report_json_serve_if_there_are_no_others(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [coloured_model()])
    entries = json.loads((output / "uncertainty.json").read_text())
    (output / "uncertainty.json").unlink()
    (output / "report.json").write_text(json.dumps({"models": [{"uncertainty": entries[0]}]}))
    assert read_folder(output).models[0].precision["photo 0.jpg"].weak


def test_each_model_has_its_own_precision(tmp_path: Path) -> None:
    output = write_output(tmp_path, [coloured_model(), coloured_model(seed=1)])
    entries = json.loads((output / "uncertainty.json").read_text())
    entries[1] = entries[1] | {"images": [image | {"weak": not image["weak"]} for image in entries[1]["images"]]}
    (output / "uncertainty.json").write_text(json.dumps(entries))
    first, second = read_folder(output).models
    assert first.precision["photo 0.jpg"].weak and not second.precision["photo 0.jpg"].weak


def test_a_plain_model_is_read_and_what_is_missing_is_said(tmp_path: Path) -> None:
    model = coloured_model()
    write_models(tmp_path / "model", [model], names_of(model), text=False)
    found = read_folder(tmp_path / "model" / "0")
    assert found.photo_root is None and "were not found" in found.notes[0] and "--images" in found.notes[0]
    assert found.models[0].cloud_file is None and found.models[0].precision == {}
    write_output(tmp_path / "out", [model])
    assert read_folder(tmp_path / "model" / "0", tmp_path / "photographs").notes == ()


def test_damaged_files_beside_a_model_are_named_and_left_out(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [coloured_model()])
    (output / "report.json").write_text("{")
    (output / "uncertainty.json").write_text('[{"scene_size": 1, "images": [3, {"name": 5}]}, "x"]')
    (output / "errors").mkdir()
    (output / "errors" / "0.safetensors").write_text("x")
    found = read_folder(output)
    assert any("errors/0.safetensors is damaged" in note for note in found.notes)
    assert any("report.json is not JSON" in note for note in found.notes)
    assert any("uncertainty.json cannot be used: [0].images[0] is 3" in note for note in found.notes)
    assert found.photo_root is None


def test_photographs_that_moved_are_said(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [coloured_model()], photographs=False)
    found = read_folder(output)
    assert found.photo_root is None and "no longer in" in found.notes[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"none of the photographs.*photo 0\.jpg"):
        read_folder(output, tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        read_folder(output, tmp_path / "absent")


def test_photographs_in_a_folder_images_beside_sparse_are_found(tmp_path: Path) -> None:
    model = coloured_model()
    write_models(tmp_path / "sparse", [model], names_of(model))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (400, 300)).save(tmp_path / "images" / names_of(model)[2])
    found = read_folder(tmp_path)
    assert found.photo_root == tmp_path / "images" and found.notes == ()


def test_a_model_without_images_is_nothing_to_look_at(tmp_path: Path) -> None:
    model = without_points(coloured_model())
    nobody = replace(
        model,
        image_index=model.image_index[:0],
        cam_from_world=model.cam_from_world[:0],
        camera_index=model.camera_index[:0],
        cameras=(),
    )
    write_models(tmp_path / "model", [nobody], [])
    with pytest.raises(InputError, match="no registered images"):
        read_folder(tmp_path / "model")


# -------------------------------------------------------------------------------------------------------------- ports


def test_a_busy_port_is_passed_over() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(1)
        port = busy.getsockname()[1]
        assert port < find_free_port("127.0.0.1", port) < port + 100


@pytest.mark.parametrize(
    ("host", "url", "words"),
    [
        ("127.0.0.1", "http://localhost:8081/secret/", "ssh -L 8081:localhost:8081"),
        (
            "0.0.0.0",
            "http://localhost:8081/secret/",
            f"everyone who knows this address: http://{socket.gethostname()}:8081/secret/",
        ),
        ("192.168.0.7", "http://192.168.0.7:8081/secret/", None),
        ("fd00::7", "http://[fd00::7]:8081/secret/", None),
    ],
)
def test_the_user_is_told_where_to_look(host: str, url: str, words: str | None) -> None:
    lines = Viewer(server=None, panel=None, host=host, port=8081, secret="secret", notes=("something",)).lines()
    assert lines[0] == "note: something" and lines[1].startswith(f"open {url} in a browser")
    assert len(lines) == 2 if words is None else words in lines[2]


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [("127.0.0.1", 0, "not a port"), ("127.0.0.1", 70000, "not a port"), ("192.0.2.1", 8080, "--host 192.0.2.1"),
     ("no.such.host.invalid", 8080, "not known")],
)  # fmt: skip
def test_an_address_that_cannot_be_used_is_named(host: str, port: int, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        find_free_port(host, port)


def test_the_frame_of_a_model_keeps_left_and_right() -> None:
    model: Reconstruction = coloured_model()
    frame = shown_frame(model.cam_from_world, model.points)
    shown = frame.shown_from_cam(model.cam_from_world)
    in_world = model.points @ model.cam_from_world[0, :, :3].T + model.cam_from_world[0, :, 3]
    in_shown = (frame.points(model.points) - shown[0, :, 3]) @ shown[0, :, :3]
    np.testing.assert_allclose(in_shown, frame.scale * in_world, atol=1e-9)

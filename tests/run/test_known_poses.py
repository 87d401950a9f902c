"""Known poses in, points out: the whole command on rendered photographs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.cli.parsing import parse
from anchorsfm.cli.wording import in_words
from anchorsfm.colmap.cameras import with_focal_length
from anchorsfm.colmap.write import write_models
from anchorsfm.export.run import export
from anchorsfm.geometry.transforms import camera_centres, invert, rotation_angle_deg
from anchorsfm.mapping.config import KnownConfig
from anchorsfm.mapping.known import KnownCameras
from anchorsfm.mapping.with_poses import along_epipolar_lines
from anchorsfm.pipeline import reconstruct
from anchorsfm.results.model import read_models
from anchorsfm.run.checks import check_settings
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.edit import without_points
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.synthetic import SceneConfig, SyntheticScene, make_scene
from anchorsfm.synthetic.scenes import cast_pixels, rays
from anchorsfm.terminal import Terminal
from matched_images import mapper_input
from point_scene import make_point_scene

SCENE = SceneConfig(num_images=5, size_wh=(480, 360), arc_deg=50.0, seed=3)


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyntheticScene, Path]:
    """The true poses of four of the five rendered photographs, as a COLMAP model and in other files."""
    folder, scene = tmp_path_factory.mktemp("trajectory"), make_scene(SCENE)
    model = without_points(np.arange(4), scene.cam_from_world[:4], [scene.camera(0)], np.zeros(4, np.int64))
    write_models(folder / "sparse", [model], scene.names)
    export(folder, ["transforms", "tum"], folder)
    return scene, folder


def model_of(out: Path) -> tuple[Reconstruction, list[str]]:
    stored = read_models(out)[0]
    return stored.model, stored.view_names


def test_points_lie_on_the_surfaces_and_poses_stay(
    trajectory: tuple[SyntheticScene, Path], rendered: Path, tmp_path: Path
) -> None:
    """The fifth photograph has no pose: it is placed by the points."""
    scene, folder = trajectory
    words = [str(rendered / "images"), "--poses", str(folder / "transforms" / "transforms.json"), "--quiet"]
    parse("triangulate", [*words, "-o", str(tmp_path / "out")]).run(Terminal())
    model, names = model_of(tmp_path / "out")
    assert names == list(scene.names)
    np.testing.assert_allclose(model.cam_from_world[:4], scene.cam_from_world[:4], atol=1e-9)
    assert np.abs(model.cam_from_world[4] - scene.cam_from_world[4]).max() < 0.01
    assert model.cameras[0].params[0] == pytest.approx(432, abs=1e-9)
    rows = np.flatnonzero(model.tracks.obs_image == 1)
    centre, direction = rays(scene, 1, model.tracks.obs_xy[rows])
    truth = centre + cast_pixels(scene, 1, model.tracks.obs_xy[rows]).distance[:, None] * direction
    off = np.linalg.norm(model.points[model.tracks.obs_point[rows]] - truth, axis=1)
    assert len(rows) > 500 and np.median(off) < 0.01  # of a room of nine metres
    (entry,) = json.loads((tmp_path / "out" / "report.json").read_text())["models"]
    assert entry["up"] is None and entry["uncertainty"]["images"][4]["position_m"] is not None


def test_intrinsics_follow_their_photographs_where_cameras_are_told_apart() -> None:
    """Photographs a b c d with cameras 0 0 1 2, of which the last two are known, and then 0 1 2 3."""
    scene = make_point_scene(num_views=4)
    camera = scene.model.cameras[0]
    images = mapper_input(scene.matches, 4, camera, is_known=True).images
    cameras = {row: with_focal_length(camera, 1000.0 * row) for row in (1, 2)}
    known = KnownCameras(
        config=KnownConfig(), poses={}, cameras=cameras, camera_index=np.array([0, 0, 1, 2]), exact=frozenset([2])
    )
    apart = known.regrouped(replace(images, camera_index=np.array([0, 1, 2, 3])))
    assert apart.cameras == {2: cameras[1], 3: cameras[2]} and apart.exact == {3}
    assert apart.frozen_cameras([0, 1, 2, 3]).tolist() == [False, False, True, True]


def test_matches_off_the_known_lines_are_left_out() -> None:
    scene = make_point_scene(num_points=200)
    known = KnownCameras(
        config=KnownConfig(),
        poses=dict(enumerate(scene.model.cam_from_world)),
        cameras={0: scene.model.cameras[0]},
        camera_index=scene.model.camera_index,
    )
    count = len(scene.matches.image_i)
    wrong = np.arange(count) % 7 == 0
    moved = replace(scene.matches, xy_j=scene.matches.xy_j + np.where(wrong, 40.0, 0.0)[:, None] * [0, 1])
    given = replace(mapper_input(moved, 8, scene.model.cameras[0], is_known=True), known=known)
    kept = along_epipolar_lines(given)
    assert (np.isin(moved.xy_j[:, 1], kept.matches.xy_j[:, 1]) == ~wrong).mean() > 0.99
    assert len(kept.tracks.obs_point) < len(given.tracks.obs_point)
    assert len(along_epipolar_lines(replace(given, known=None)).matches.image_i) == count


def test_known_poses_must_be_given_to_those_who_take_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"takes all poses from --known\.model"):
        check_settings(PipelineConfig(mapper="known"))
    with pytest.raises(InputError) as raised:
        parse("triangulate", ["--poses", str(tmp_path), "-o", str(tmp_path / "o")]).run(Terminal())
    assert "name the photographs" in in_words(raised.value)


def test_triangulate_speaks_of_its_own_options(tmp_path: Path) -> None:
    words = [str(tmp_path), "--poses", str(tmp_path), "-o", str(tmp_path / "o"), "--position-sigma", "0.1"]
    with pytest.raises(InputError) as raised:
        parse("triangulate", words).run(Terminal())
    message = in_words(raised.value)
    assert "--position-sigma" in message and "--adjust-poses" in message and "--known" not in message
    words = [str(tmp_path), "--poses", str(tmp_path), "-o", str(tmp_path / "o"), "--rotation-sigma-deg", "0.1"]
    with pytest.raises(InputError) as raised:
        parse("triangulate", words).run(Terminal())
    message = in_words(raised.value)
    assert "--rotation-sigma-deg" in message and "add --position-sigma" in message and "--known" not in message


def test_a_file_of_inverted_poses_is_refused(
    trajectory: tuple[SyntheticScene, Path], rendered: Path, tmp_path: Path
) -> None:
    scene, _ = trajectory
    known = without_points(np.arange(5), invert(scene.cam_from_world[:5]), [scene.camera(0)], np.zeros(5, np.int64))
    write_models(tmp_path / "sparse", [known], scene.names)
    words = [str(rendered / "images"), "--poses", str(tmp_path / "sparse" / "0"), "--quiet"]
    with pytest.raises(InputError, match="they agree when they are inverted") as raised:
        parse("triangulate", [*words, "-o", str(tmp_path / "out")]).run(Terminal())
    assert str(tmp_path / "sparse" / "0") in str(raised.value) and "\n" not in str(raised.value)


def test_adjusted_poses_keep_to_their_deviations(
    trajectory: tuple[SyntheticScene, Path], rendered: Path, tmp_path: Path
) -> None:
    """Poses that are off by a tenth of a degree and a centimetre come closer to the truth with both priors."""
    scene, _ = trajectory
    rng, poses = np.random.default_rng(0), scene.cam_from_world[:5].copy()
    rotation = Rotation.from_rotvec(np.radians(0.1) * rng.standard_normal((5, 3))).as_matrix() @ poses[:, :, :3]
    centre = camera_centres(poses) + 0.01 * rng.standard_normal((5, 3))
    poses = np.concatenate([rotation, -rotation @ centre[:, :, None]], axis=2)
    known = without_points(np.arange(5), poses, [scene.camera(0)], np.zeros(5, np.int64))
    write_models(tmp_path / "sparse", [known], scene.names)
    words = [str(rendered / "images"), "--poses", str(tmp_path / "sparse" / "0"), "--quiet", "--adjust-poses"]
    words += ["--position-sigma", "0.01", "--rotation-sigma-deg", "0.1", "-o", str(tmp_path / "out")]
    parse("triangulate", words).run(Terminal())
    model, _ = model_of(tmp_path / "out")

    def off_deg(of: np.ndarray) -> float:
        true = scene.cam_from_world[:5, :, :3]
        return float(rotation_angle_deg(of[:, :, :3] @ np.swapaxes(true, 1, 2)).mean())

    assert len(model.image_index) == 5 and off_deg(model.cam_from_world) < 0.6 * off_deg(poses)
    config = parse("triangulate", words).configured()
    config = replace(config, known=replace(config.known, guided_matching=False))
    without = reconstruct(rendered / "images", tmp_path / "without", config).models[0]
    assert len(model.points) > 1.02 * len(without.points)
    assert off_deg(model.cam_from_world) < off_deg(without.cam_from_world) + 0.01

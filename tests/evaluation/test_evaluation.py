"""Pose errors: agreement with the independent evaluator, and readers."""

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.evaluation import evaluate_poses, format_table, poses_of, read_poses, to_dict
from anchorsfm.evaluation.poses import area_under_curve, match_names
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.poses import PoseSet
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks

NUM = 9


def random_poses(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(rng.normal(size=(NUM, 3))).as_matrix()
    return np.concatenate([rotation, rng.normal(size=(NUM, 3, 1)) * 4], axis=2)


def disturb(poses: np.ndarray, rotation_deg: float, shift: float, seed: int = 1) -> np.ndarray:
    """The same poses with noise, in another world frame: turned, shifted and three times larger."""
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-1, 1, NUM)  # so that errors lie on both sides of the thresholds
    noise = Rotation.from_rotvec(np.radians(rotation_deg) * size[:, None] * rng.normal(size=(NUM, 3))).as_matrix()
    world = Rotation.from_rotvec([0.3, -0.5, 0.9]).as_matrix()
    centres = -np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3]) + shift * size[:, None] * rng.normal(
        size=(NUM, 3)
    )
    rotation = noise @ poses[:, :, :3] @ world.T
    centres = 3 * centres @ world.T + [1, 2, 3]
    return np.concatenate([rotation, -rotation @ centres[:, :, None]], axis=2)


def pose_set(poses: np.ndarray, names: list[str] | None = None, focal: float = 500.0, width: int = 640) -> PoseSet:
    names = names or [f"{k:02d}.jpg" for k in range(len(poses))]
    size = np.tile([width, width * 3 // 4], (len(poses), 1))
    return PoseSet(
        names=tuple(names), cam_from_world=poses, focal_px=np.full(len(poses), focal), size_wh=size.astype(np.int64)
    )


def as_json(poses: PoseSet) -> dict[str, dict[str, list]]:
    return {
        name: {
            "R_cam_from_world": pose[:, :3].tolist(),
            "t_cam_from_world": pose[:, 3].tolist(),
            "K": [[focal, 0, 320], [0, focal, 240], [0, 0, 1]],
        }
        for name, pose, focal in zip(poses.names, poses.cam_from_world, poses.focal_px, strict=True)
    }


def colmap_model(poses: PoseSet) -> pycolmap.Reconstruction:
    """A model of one camera per image."""
    model = pycolmap.Reconstruction()
    for k, name in enumerate(poses.names):
        width, height = map(int, poses.size_wh[k])
        camera = pycolmap.Camera.create_from_model_name(k + 1, "SIMPLE_RADIAL", float(poses.focal_px[k]), width, height)
        model.add_camera_with_trivial_rig(camera)
        pose = pycolmap.Rigid3d(poses.cam_from_world[k])
        model.add_image_with_trivial_frame(pycolmap.Image(name=name, camera_id=k + 1, image_id=k + 1), pose)
    return model


def write_colmap(poses: PoseSet, folder: Path, text: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = colmap_model(poses)
    (model.write_text if text else model.write_binary)(str(folder))
    return folder


@pytest.fixture(scope="module")
def reference(bench_tools: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pose_eval", bench_tools / "pose_eval.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --------------------------------------------------------------------------------------------------- agreement


@pytest.mark.parametrize("rotation_deg, shift", [(0.1, 0.003), (0.5, 0.05), (3.0, 0.4)])
@pytest.mark.parametrize("missing", [0, 2, 7])
def test_agrees_with_the_independent_evaluator(
    tmp_path: Path, reference: ModuleType, rotation_deg: float, shift: float, missing: int
) -> None:
    truth = pose_set(random_poses())
    moved = disturb(truth.cam_from_world, rotation_deg, shift)[missing:]
    estimate = pose_set(moved, list(truth.names[missing:]))
    expected = reference.evaluate(colmap_model(estimate), as_json(truth))
    ours = evaluate_poses(read_poses(write_colmap(estimate, tmp_path / "m")), truth)
    assert (ours.num_registered, ours.num_images) == (expected["registered"], expected["images"])
    assert ours.auc[:3] == pytest.approx([expected[f"auc{t}"] for t in (1, 3, 5)], abs=5.1e-4)
    assert (ours.rra[2], ours.rta[2]) == pytest.approx((expected["rra5"], expected["rta5"]), abs=5.1e-4)
    medians = ours.median_rotation_deg, ours.median_translation_deg
    assert medians == pytest.approx((expected["med_rot"], expected["med_tra"]), abs=5.1e-5)
    if expected["ate_m"] is None:
        assert math.isnan(ours.ate_rmse)
    else:
        assert ours.ate_rmse == pytest.approx(expected["ate_m"], abs=5.1e-5)


def test_area_agrees_at_every_threshold(reference: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for errors in (rng.exponential(4, 45), np.full(6, 180.0), np.array([0.0, 0.0, 2.0]), np.array([5.0])):
        for limit in (1, 3, 5, 10, 30):
            assert area_under_curve(errors, limit) == pytest.approx(reference.auc(errors, limit), abs=1e-12)


def test_real_truth_files(photos: Path, reference: ModuleType) -> None:
    path = photos / "fountain-P11" / "gt.json"
    truth = read_poses(path)
    assert len(truth.names) == 11 and truth.focal_px == pytest.approx(np.full(11, 1380.91), abs=0.01)
    estimate = pose_set(truth.cam_from_world[:6] + 1e-3, [name.replace(".jpg", ".png") for name in truth.names[:6]])
    rotations = np.linalg.svd(estimate.cam_from_world[:, :, :3])
    estimate.cam_from_world[:, :, :3] = rotations[0] @ rotations[2]
    expected = reference.evaluate(colmap_model(estimate), json.loads(path.read_text()))
    ours = evaluate_poses(estimate, truth)
    assert ours.auc[0] == pytest.approx(expected["auc1"], abs=5.1e-4)
    assert ours.ate_rmse == pytest.approx(expected["ate_m"], abs=5.1e-5) and ours.num_registered == 6


# ---------------------------------------------------------------------------------------------------- values


def test_perfect_model_up_to_a_similarity() -> None:
    truth = pose_set(random_poses())
    ours = evaluate_poses(pose_set(disturb(truth.cam_from_world, 0, 0)), truth)
    assert ours.auc == pytest.approx(np.ones(5), abs=1e-4) and (ours.rra == 1).all() and (ours.rta == 1).all()
    assert ours.ate_rmse < 1e-9 and ours.focal_error == 0 and ours.missing == ()


def test_known_errors() -> None:
    truth = pose_set(random_poses())
    poses = truth.cam_from_world.copy()
    poses[0] = np.concatenate(
        [Rotation.from_rotvec([0, 0, np.radians(2)]).as_matrix(), np.zeros((3, 1))], 1
    ) @ np.vstack([poses[0], [0, 0, 0, 1]])
    ours = evaluate_poses(pose_set(poses), truth)
    pairs_with_first = (NUM - 1) / (NUM * (NUM - 1) / 2)
    assert ours.rotation_error_deg[: NUM - 1] == pytest.approx(np.full(NUM - 1, 2.0))
    assert ours.rotation_error_deg[NUM - 1 :] == pytest.approx(np.zeros(28), abs=1e-5)
    assert ours.rra == pytest.approx([1 - pairs_with_first, 1, 1])


def test_missing_images_count_180_degrees() -> None:
    truth = pose_set(random_poses())
    ours = evaluate_poses(pose_set(truth.cam_from_world[:3], list(truth.names[:3])), truth)
    assert ours.num_registered == 3 and ours.missing == truth.names[3:]
    assert (ours.rotation_error_deg == 180).sum() == 36 - 3 and ours.median_rotation_deg == 180
    assert ours.rra == pytest.approx(np.full(3, 3 / 36))


def test_focal_error_is_compared_at_the_size_of_the_truth() -> None:
    truth = pose_set(random_poses(), focal=1000.0, width=1280)
    half = pose_set(truth.cam_from_world, focal=510.0, width=640)
    assert evaluate_poses(half, truth).focal_error == pytest.approx(0.02)
    assert math.isnan(evaluate_poses(half, pose_set(truth.cam_from_world, focal=math.nan)).focal_error)


def test_names_match_exactly_or_by_unique_stem() -> None:
    wanted = ("a/1.jpg", "b/1.jpg", "c/2.jpg", "3.JPG", "4.jpg")
    available = ("4.jpg", "x/2.png", "b/1.jpg", "3.png", "y/3.png", "sub/4.jpg")
    assert match_names(wanted, available).tolist() == [-1, 2, 1, -1, 0]


# ---------------------------------------------------------------------------------------------------- readers


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("place", [".", "sparse", "sparse/0", "0"])
def test_colmap_folders(tmp_path: Path, place: str, text: bool) -> None:
    folder = "sub-folder" if text else "sub folder"  # COLMAP's text format ends names at the first space
    poses = pose_set(random_poses(), [f"{folder}/{k}ü.jpg" for k in range(NUM)])
    write_colmap(poses, tmp_path / place, text)
    read = read_poses(tmp_path)
    assert read.names == poses.names
    assert read.cam_from_world == pytest.approx(poses.cam_from_world)
    assert (read.focal_px == 500).all() and read.size_wh.tolist() == poses.size_wh.tolist()


def test_largest_component_is_taken(tmp_path: Path) -> None:
    poses = random_poses()
    write_colmap(pose_set(poses[:2]), tmp_path / "sparse" / "0")
    write_colmap(pose_set(poses[:5]), tmp_path / "sparse" / "1")
    assert len(read_poses(tmp_path).names) == 5
    assert len(read_poses(tmp_path / "sparse" / "0").names) == 2


def test_colmap_model_as_truth(tmp_path: Path) -> None:
    poses = pose_set(random_poses())
    truth = read_poses(write_colmap(poses, tmp_path / "truth"))
    assert evaluate_poses(poses, truth).auc == pytest.approx(np.ones(5), abs=1e-4)


def test_reconstruction_in_memory() -> None:
    none = np.zeros(0, np.int64)
    poses = random_poses()
    images = ImageSet(
        root=Path(),
        names=("a", "b", "c"),
        size_wh=np.full((3, 2), 100),
        camera_index=np.zeros(3, np.int64),
        focal_prior_px=np.full(3, np.nan),
        digests=("", "", ""),
    )
    reconstruction = Reconstruction(
        image_index=np.array([0, 2]),
        cam_from_world=poses[:2],
        cameras=(
            Camera(model="SIMPLE_RADIAL", width=100, height=80, params=(90.0, 50.0, 40.0, 0.1)),
            Camera(model="OPENCV", width=100, height=80, params=(90.0, 94.0, 50.0, 40.0, 0.0, 0.0, 0.0, 0.0)),
        ),
        camera_index=np.array([1, 0]),
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=Tracks(obs_point=none, obs_image=none, obs_xy=np.zeros((0, 2))),
    )
    read = poses_of(reconstruction, images)
    assert read.names == ("a", "c") and read.focal_px.tolist() == [92, 90] and read.size_wh[0].tolist() == [100, 80]


def _truth_without(key: str) -> Callable[[dict], object]:
    def remove(entries: dict) -> object:
        del entries["00.jpg"][key]
        return entries

    return remove


@pytest.mark.parametrize(
    "change, pattern",
    [
        (lambda entries: [1, 2], "expected a JSON object that maps"),
        (lambda entries: {}, "expected a JSON object that maps"),
        (lambda entries: {"a.jpg": 3}, r"a\.jpg: expected an object"),
        (_truth_without("R_cam_from_world"), r"truth\.json, 00\.jpg: R_cam_from_world is missing"),
        (_truth_without("t_cam_from_world"), "t_cam_from_world is missing"),
        (lambda e: e["00.jpg"].update(t_cam_from_world=[1, 2]) or e, "must hold 3 finite numbers"),
        (lambda e: e["00.jpg"].update(t_cam_from_world=["x", 2, 3]) or e, "not an array of numbers"),
        (lambda e: e["00.jpg"].update(R_cam_from_world=np.ones((3, 3)).tolist()) or e, "is not a rotation"),
    ],
)
def test_ill_formed_truth(tmp_path: Path, change: Callable[[dict], object], pattern: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(change(as_json(pose_set(random_poses())))))
    with pytest.raises(InputError, match=pattern):
        read_poses(path)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: no such file"):
        read_poses(tmp_path / "gone.json")
    with pytest.raises(InputError, match="gone: no such folder"):
        read_poses(tmp_path / "gone")
    with pytest.raises(InputError, match=r"no COLMAP model \(images\.bin"):
        read_poses(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json is not JSON"):
        read_poses(tmp_path / "broken.json")
    model = write_colmap(pose_set(random_poses()), tmp_path / "model")
    (model / "points3D.bin").write_bytes(b"\xff" * 20)  # not needed, and not looked at
    assert len(read_poses(model).names) == NUM
    (model / "cameras.bin").unlink()
    with pytest.raises(InputError, match=r"model/cameras\.bin is missing") as caught:
        read_poses(model)
    assert "\n" not in str(caught.value)


def test_nothing_in_common() -> None:
    truth = pose_set(random_poses())
    with pytest.raises(InputError, match=r"no image in common: the truth has 00\.jpg, the model x\.jpg"):
        evaluate_poses(pose_set(random_poses()[:1], ["x.jpg"]), truth)
    with pytest.raises(InputError, match="no image in common"):
        evaluate_poses(pose_set(random_poses()[:0], []), truth)


# ----------------------------------------------------------------------------------------------------- output


def test_table_and_plain_values() -> None:
    truth = pose_set(random_poses())
    good = evaluate_poses(pose_set(disturb(truth.cam_from_world, 0.2, 0.01)), truth)
    poor = evaluate_poses(pose_set(truth.cam_from_world[:2], list(truth.names[:2]), focal=math.nan), truth)
    lines = format_table({"good": good, "a longer name": poor})
    assert len(lines) == 3 and len(set(map(len, lines))) == 1
    assert lines[0].split()[:3] == ["images", "AUC@1", "AUC@3"] and "9/9" in lines[1]
    assert lines[2].split()[-2:] == ["-", "-"]
    alone = format_table(good)
    assert alone[0].split() == lines[0].split() and alone[1].split() == lines[1].split()[1:]
    plain = json.loads(json.dumps(to_dict(poor), allow_nan=False))
    assert plain["ate_rmse"] is None and plain["num_registered"] == 2 and len(plain["missing"]) == 7
    assert plain["auc_1"] == pytest.approx(1 / 36, abs=1e-4) and set(plain) >= {"rra_5", "rta_1", "auc_30"}

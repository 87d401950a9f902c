"""The alignment block by block, on a synthetic scene with known truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch

import anchorsfm
from anchorsfm.api.settings import with_settings
from anchorsfm.evaluation import evaluate_poses
from anchorsfm.frontend.classical import ClassicalFrontend
from anchorsfm.scene.poses import PoseSet
from anchorsfm.synthetic import OracleNoise, SceneConfig, SyntheticFrontend, image_set, make_scene

SCENE = make_scene(SceneConfig(num_images=5, size_wh=(160, 120), arc_deg=60.0, seed=2))
FRONTEND = SyntheticFrontend(scene=SCENE, noise=OracleNoise(outlier_share=0.0), grid_long_side=96)
IMAGES = image_set(SCENE)


@pytest.fixture(scope="module")
def predictions() -> anchorsfm.Predictions:
    return anchorsfm.predict_pairs(IMAGES, "complete", FRONTEND)


@pytest.fixture(scope="module")
def aligned() -> anchorsfm.Alignment:
    return anchorsfm.sparse_global_alignment(IMAGES, frontend=FRONTEND, matching_conf_thr=4)


FEW = {"niter1": 3, "niter2": 3}


@pytest.fixture(scope="module")
def few_iterations(predictions) -> anchorsfm.Alignment:
    return anchorsfm.sparse_global_alignment(predictions, **FEW)


def auc(alignment: anchorsfm.Alignment) -> float:
    names = alignment.names
    size_wh = np.tile(SCENE.config.size_wh, (len(names), 1))
    poses = np.stack([alignment.poses[name].cam_from_world for name in names])
    found = PoseSet(names=names, cam_from_world=poses, focal_px=alignment.focals, size_wh=size_wh)
    true = PoseSet(names=SCENE.names, cam_from_world=SCENE.cam_from_world, focal_px=SCENE.focal_px, size_wh=size_wh)
    return evaluate_poses(found, true).auc[2]


def test_the_blocks_one_by_one_are_the_whole(predictions, aligned):
    scene = anchorsfm.condense(predictions, matching_conf_thr=4)
    tree = anchorsfm.kinematic_tree(scene, "hclust-ward")
    coarse = anchorsfm.align_coarse(scene, tree)
    fine = anchorsfm.align_fine(coarse)
    assert np.array_equal(fine.cam2w, aligned.cam2w) and np.array_equal(fine.focals, aligned.focals)
    assert auc(fine) > 0.9 and auc(fine) >= auc(coarse) - 0.02
    assert len(coarse.losses["fine"]) == 0 and len(fine.losses["fine"]) > 1
    assert "coarse only" in repr(coarse) and len(repr(fine)) < 120


def test_the_result_has_what_people_ask_for(aligned):
    count = len(aligned.names)
    assert aligned.names == SCENE.names
    assert aligned.cam2w.shape == (count, 4, 4) and aligned.principal_points.shape == (count, 2)
    assert np.allclose(aligned.cam2w[1, :3, 3], aligned.poses[aligned.names[1]].centre)
    assert np.abs(aligned.focals / SCENE.focal_px - 1).max() < 0.03
    for name in aligned.names:
        depth = aligned.depth_maps[name]
        assert depth.depth.shape == depth.confidence.shape == depth.rgb.shape[:2] == depth.points().shape[:2]
        assert len(aligned.pts3d[name]) == len(aligned.pts3d_confidences[name]) == len(aligned.pts3d_colors[name]) > 50
    assert "data:image/png" in aligned._repr_html_()


def test_depth_maps_and_points_agree(aligned):
    name = aligned.names[2]
    depth, points = aligned.depth_maps[name], aligned.pts3d[name]
    in_camera = points @ depth.cam_from_world[:, :3].T + depth.cam_from_world[:, 3]
    xy = (in_camera @ depth.K.T)[:, :2] / in_camera[:, 2:]
    x, y = np.floor(xy + 1e-6).astype(int).clip(0, np.array(depth.depth.shape[::-1]) - 1).T
    assert np.median(np.abs(depth.depth[y, x] / in_camera[:, 2] - 1)) < 0.02


def test_it_is_saved_with_multi_view_tracks(aligned, tmp_path):
    aligned.save_colmap(tmp_path / "model")
    model = pycolmap.Reconstruction(str(tmp_path / "model"))
    assert model.num_reg_images() == 5 and model.num_points3D() > 100 and model.compute_mean_track_length() > 2.2
    assert model.compute_mean_reprojection_error() < 1.5


@pytest.mark.parametrize(
    "pairs",
    [
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)],
        np.array([(1, 0), (1, 2), (2, 3), (3, 4), (0, 4)]),
        torch.tensor([(1, 0), (1, 2), (2, 3), (3, 4), (0, 4)]),
        [(SCENE.names[k], SCENE.names[(k + 1) % 5]) for k in range(5)],
        [({"idx": k, "instance": str(k)}, {"idx": (k + 1) % 5}) for k in range(5)],
        "swin-1",
    ],
    ids=["rows", "array", "tensor", "names", "dictionaries", "graph"],
)
def test_pairs_come_in_any_of_their_forms(pairs):
    assert anchorsfm.predict_pairs(IMAGES, pairs, FRONTEND).pairs == [(0, 1), (0, 4), (1, 2), (2, 3), (3, 4)]


def test_pairs_are_made_from_counts_names_and_pictures(tmp_path):
    assert anchorsfm.make_pairs(3) == [(0, 1), (0, 2), (1, 2)]
    assert anchorsfm.make_pairs(["a.jpg", "b.jpg", "c.jpg"], "oneref-1") == [(0, 1), (1, 2)]
    listed = tmp_path / "pairs.txt"
    listed.write_text("a.jpg c.jpg\n")
    assert anchorsfm.make_pairs(["a.jpg", "b.jpg", "c.jpg"], f"pairs:{listed}") == [(0, 2)]
    assert anchorsfm.make_pairs([np.zeros((20, 20, 3), np.uint8)] * 2) == [(0, 1)]


def test_ready_predictions_need_no_images(predictions, aligned):
    known = anchorsfm.sparse_global_alignment(list(predictions), matching_conf_thr=4, shared_intrinsics=True)
    assert np.allclose(known.cam2w, aligned.cam2w) and known.names == ("0", "1", "2", "3", "4")
    entries = []
    for p in predictions:
        entry = {"i": p.i, "j": p.j, "xy_i": p.matches.xy_i, "xy_j": p.matches.xy_j, "confidence": p.matches.confidence}
        for frame, names in ((p.frame_i, ("ii", "ji")), (p.frame_j, ("jj", "ij"))):
            for end, name in zip(("own", "other"), names, strict=True):
                entry[f"points_{name}"] = torch.from_numpy(getattr(frame, end))
                entry[f"confidence_{name}"] = torch.from_numpy(getattr(frame, f"{end}_confidence"))
        entries.append(entry)
    again = anchorsfm.sparse_global_alignment(entries, matching_conf_thr=4, shared_intrinsics=True)
    assert np.allclose(again.cam2w, aligned.cam2w)


def test_a_canonical_view_of_one_image_by_itself(predictions):
    scene = anchorsfm.condense(predictions)
    maps = [p.frame_i if p.i == 0 else p.frame_j for p in predictions if 0 in (p.i, p.j)]
    view = anchorsfm.canonical_view([m.own for m in maps], [m.own_confidence for m in maps])
    kept = scene.canonical[SCENE.names[0]]
    assert np.allclose(view.anchor_depth, kept.anchor_depth) and view.focal_px == pytest.approx(kept.focal_px)
    assert scene.scores.shape == (5, 5) and scene.scores[0, 1] == len(scene.matches(0, SCENE.names[1]))
    assert np.array_equal(scene.matches(1, 0).xy_i, scene.matches(0, 1).xy_j)


def test_a_tree_of_a_plain_matrix():
    scores = np.array([[0, 90, 0], [90, 0, 50], [0, 50, 0]])
    assert anchorsfm.kinematic_tree(scores, "mst").root == 1
    assert anchorsfm.kinematic_tree(torch.tensor(scores), num_blocks=[300, 300, 300]).parent.tolist() == [1, -1, 1]


def test_adams_settings_choose_adam_and_shared_intrinsics_are_shared(predictions):
    found = anchorsfm.sparse_global_alignment(
        predictions, lr1=0.05, niter1=5, lr2=0.01, niter2=5, gamma1=1.2, shared_intrinsics=True, opt_pp=False
    )
    assert found.prepared.config.solver == "adam" and len(found.losses["coarse"]) == 5
    assert np.ptp(found.focals) < 1e-6
    assert np.allclose(found.principal_points, np.array(SCENE.config.size_wh) / 2)
    alone = anchorsfm.sparse_global_alignment(predictions, shared_intrinsics=False)
    assert np.ptp(alone.focals) > 1e-6 and alone.prepared.config.solver == "second-order"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subsample", 4), ("matching_conf_thr", 1000), ("kinematic_mode", "mst"), ("gamma2", 0.9),
        ("opt_depth", False), ("opt_pp", False), ("desc_conf", "conf"), ("niter2", 1), ("niter1", 1),
    ],
)  # fmt: skip
def test_no_parameter_is_without_effect(name, value, predictions, few_iterations):
    other = anchorsfm.sparse_global_alignment(predictions, **(FEW | {name: value}))
    assert not np.array_equal(other.cam2w, few_iterations.cam2w)


def test_pictures_in_memory_are_cached_by_content(tmp_path):
    rng = np.random.default_rng(1)
    texture = (rng.random((240, 400, 3)) * 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    pictures = [texture[:360, 20 * k : 480 + 20 * k] for k in range(2)]
    asked = []

    class Mine(anchorsfm.PairFrontend):
        def predict(self, rgb_i, rgb_j):
            asked.append((rgb_i.shape, rgb_j.shape))
            return None

    found = anchorsfm.predict_pairs(pictures, [(0, 1)], Mine(), cache=tmp_path)
    assert [p.status for p in found] == ["unmatched"] and asked == [((360, 480, 3), (360, 480, 3))]
    assert found.names == ("0000.png", "0001.png") and found.images.path(0).is_file()
    floats = [picture / 255 for picture in pictures]
    assert anchorsfm.predict_pairs(floats, "complete", Mine()).images.digests == found.images.digests


def known_pose(view: int) -> np.ndarray:
    return SCENE.cam_from_world[view]


def test_known_poses_and_intrinsics_are_kept_and_place_the_rest(predictions):
    matrix = np.array([[SCENE.focal_px[0], 0, 80], [0, SCENE.focal_px[0], 60], [0, 0, 1.0]])
    known = {"poses": {SCENE.names[0]: known_pose(0), 3: np.vstack([known_pose(3), [0, 0, 0, 1]])}}
    found = anchorsfm.sparse_global_alignment(
        predictions, **known, intrinsics={SCENE.names[1]: torch.tensor(matrix)}, shared_intrinsics=False
    )
    for view in (0, 3):
        assert np.abs(found.poses[SCENE.names[view]].cam_from_world - known_pose(view)).max() < 1e-12
    assert found.focals[1] == pytest.approx(SCENE.focal_px[1], rel=1e-6)
    assert np.allclose(found.principal_points[1], (80, 60), atol=1e-4)
    assert not np.isclose(found.focals[2], SCENE.focal_px[2], rtol=1e-6)
    centres, true = found.cam2w[:, :3, 3], np.stack([-p[:, :3].T @ p[:, 3] for p in SCENE.cam_from_world])
    assert np.linalg.norm(centres - true, axis=1).max() < 0.05 * np.ptp(true, axis=0).max()
    blocks = anchorsfm.align_coarse(
        anchorsfm.condense(predictions), **known, intrinsics={SCENE.names[1]: matrix}, shared_intrinsics=False
    )
    assert np.array_equal(anchorsfm.align_fine(blocks).cam2w, found.cam2w)
    assert np.abs(blocks.poses[SCENE.names[3]].cam_from_world - known_pose(3)).max() < 1e-12


def test_known_cameras_of_another_model_may_be_a_start_only(predictions, aligned):
    moved = {name: pose for name, pose in aligned.poses.items() if name != SCENE.names[2]}
    found = anchorsfm.sparse_global_alignment(
        predictions, poses=moved, intrinsics=aligned.model.intrinsics, freeze_poses=False, freeze_intrinsics=False,
        shared_intrinsics=False, niter1=0,
    )  # fmt: skip
    apart = np.linalg.norm(found.cam2w[:, :3, 3] - aligned.cam2w[:, :3, 3], axis=1)
    assert apart.max() < 0.02 * np.ptp(aligned.cam2w[:, :3, 3], axis=0).max()
    assert apart.max() > 1e-6 and not np.isclose(found.focals, aligned.focals, rtol=1e-6).any()


def test_a_front_end_is_told_what_is_known():
    told = []

    class Listening(anchorsfm.PairFrontend):
        def open(self, images, pairs, store, progress):
            told.append((images.focal_prior_px.tolist(), images.camera_index.tolist()))
            return FRONTEND.open(images, pairs, store, progress)

        def predict(self, rgb_i, rgb_j):
            raise AssertionError

    focal = {name: float(400 + k) for k, name in enumerate(SCENE.names)}
    few = {"pairs": "swin-1", "frontend": Listening(), **FEW}
    found = anchorsfm.sparse_global_alignment(IMAGES, intrinsics=focal, shared_intrinsics=False, **few)
    assert np.allclose(found.focals, list(focal.values()))
    anchorsfm.sparse_global_alignment(IMAGES, intrinsics={0: 444.0}, shared_intrinsics=True, **few)
    anchorsfm.sparse_global_alignment(IMAGES, poses={0: known_pose(0)}, **few)
    plain, cameras = IMAGES.focal_prior_px.tolist(), IMAGES.camera_index.tolist()
    expected = [(list(focal.values()), cameras), ([444.0] * 5, cameras), (plain, cameras)]
    assert str(told) == str(expected)


@pytest.mark.parametrize(("given", "told"), [({}, 0.0), ({"recorded_focal_spread": 0.2}, 0.2)])
def test_the_classical_front_end_takes_known_focal_lengths_as_exact(given, told, monkeypatch):
    seen = {}

    def stop(images, pairs, frontend, **settings):
        seen.update(settings, focal=images.focal_prior_px[0])
        raise InterruptedError

    monkeypatch.setattr("anchorsfm.api.alignment.predict_pairs", stop)
    with pytest.raises(InterruptedError):
        anchorsfm.sparse_global_alignment(IMAGES, intrinsics=321, **given)
    names = ("cache", "focal_px", "progress", "focal")
    config = with_settings(ClassicalFrontend(), {k: v for k, v in seen.items() if k not in names})
    assert (config.intrinsics.recorded_focal_spread, seen["focal"]) == (told, 321)


def test_components_come_apart_and_lone_images_are_named(predictions):
    few = [p for p in predictions if (p.i, p.j) in ((0, 1), (2, 3))]
    found = anchorsfm.sparse_global_alignment(
        anchorsfm.as_predictions([*few, replace(list(predictions)[-1], matches=anchorsfm.Matches.empty())], SCENE.names)
    )
    assert found.names == SCENE.names[:2] and [o.names for o in found.others] == [SCENE.names[2:4]]
    assert set(found.unregistered) == {SCENE.names[4]}
    scene = anchorsfm.condense(few)
    with pytest.raises(anchorsfm.InputError, match=r"expected one of scene\.components"):
        anchorsfm.kinematic_tree(scene)


def test_predictions_of_files_continue_from_the_cache(workplace: Path, tmp_path):
    call = {"pairs": [(0, 1)], "cache": tmp_path, "dense__enabled": False}
    files = sorted((workplace / "photos").iterdir())[:2]
    first = list(anchorsfm.predict_pairs(files, **call))
    again = list(anchorsfm.predict_pairs([str(path) for path in files], **call))
    assert len(first[0].keypoint_matches) == len(again[0].keypoint_matches) > 0
    assert any(tmp_path.rglob("*.safetensors"))

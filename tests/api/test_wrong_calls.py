"""Wrong calls: one sentence each that names the argument and what is expected, before any work is done."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

import anchorsfm as sfm
from tiny_network import MAST3R, write_weights

XY = np.random.default_rng(0).uniform(20, 300, (40, 2))
SIZES = {"a.jpg": (640, 480), "b.jpg": (640, 480)}
AB = ("a.jpg", "b.jpg")
POSES = np.stack([np.eye(3, 4), np.eye(3, 4)])
MAP, SURE = np.ones((24, 32, 3)), np.full((24, 32), 5.0)
READY = {
    "i": 0, "j": 1, "xy_i": XY / 12, "xy_j": XY / 12, "points_ii": MAP, "points_ji": MAP, "points_jj": MAP,
    "points_ij": MAP, **{f"confidence_{end}": SURE for end in ("ii", "ji", "jj", "ij")},
}  # fmt: skip


class Matcher(sfm.PairFrontend):
    """Says what it is told to."""

    def __init__(self, said: object) -> None:
        self.said = said

    def predict(self, rgb_i: Any, rgb_j: Any) -> Any:
        return self.said


class NoPredictor:
    def open(self, images: Any, pairs: Any, store: Any, progress: Any) -> Any:
        return [1, 2]


class Keypoints(Matcher):
    """Matches of keypoints, from a predictor with attributes of its own."""

    def __init__(self, found: bool = True, **attributes: Any) -> None:
        super().__init__({"xy_i": XY, "xy_j": XY})
        self.found, self.attributes = found, attributes

    def open(self, images: Any, pairs: Any, store: Any, progress: Any) -> Any:
        opened = super().open(images, pairs, store, progress)
        for name, value in self.attributes.items():
            setattr(opened, name, value)
        plain = opened.predictions
        opened.predictions = lambda rows: (
            replace(p, keypoint_matches=p.matches if self.found else None) for p in plain(rows)
        )
        return opened


def matches(value: Any = (XY, XY), sizes: Any = SIZES, **more: Any) -> Any:
    return sfm.reconstruct_matches({AB: value}, sizes, **more)


def points(**more: Any) -> Any:
    usual = {"point": np.zeros(40, int), "image": np.zeros(40, int), "cam_from_world": POSES, "params": [500, 320, 240]}
    return sfm.triangulate(**{"xy": XY, **usual, **more})


def run(photos: Any = "P", output: Any = "out", *arguments: Any, **more: Any) -> Any:
    return sfm.reconstruct(PHOTOS if photos == "P" else photos, output, *arguments, **more)


def aligned(pairs: Any = "complete", **more: Any) -> Any:
    return sfm.sparse_global_alignment(PICTURES, pairs, **more)


PHOTOS = "set by the fixture"
PICTURES = [np.zeros((64, 64, 3), np.uint8)] * 3

CALLS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    # reconstruct, load, save
    "photos-number": (lambda: run(3), ["photos", "path", "int 3"]),
    "photos-empty": (lambda: run(""), ["photos", "path of a file or folder"]),
    "photos-empty-list": (lambda: run([]), ["photos", "empty list"]),
    "photos-list-of-numbers": (lambda: run([1, 2]), ["photos[0]", "path"]),
    "output-none": (lambda: run("P", None), ["output", "path", "None"]),
    "config-dictionary": (lambda: run("P", "out", {"seed": 1}), ["config", "PipelineConfig", "dict"]),
    "frontend-case": (lambda: run(frontend="Mast3r"), ["frontend", "'mast3r'", "classical, mast3r"]),
    "frontend-class": (lambda: run(frontend=NoPredictor), ["frontend", "class", "NoPredictor()"]),
    "frontend-number": (lambda: run(frontend=5), ["frontend", "open(images, pairs, store, progress)"]),
    "frontend-without-predictor": (lambda: run(frontend=NoPredictor()), ["frontend.open()", "lacks grid"]),
    "frontend-undeclared-keypoints": (lambda: run(frontend=Keypoints()), ["0000.jpg", "set detects_keypoints = True"]),
    "frontend-without-keypoints": (
        lambda: run(frontend=Keypoints(found=False, detects_keypoints=True)),
        ["0000.jpg", "no keypoint_matches", "detects_keypoints = True"],
    ),
    "frontend-focal": (lambda: run(frontend=Keypoints(focal_px=[500.0])), ["focal_px", "one per image"]),
    "frontend-licence": (lambda: run(frontend=Keypoints(licence="free")), ["licence", "LicenceRecord"]),
    "mapper-case": (lambda: run(mapper="Tracks"), ["mapper", "'tracks'", "align, tracks"]),
    "adjust-string": (lambda: run(adjust="no"), ["adjust", "True or False"]),
    "setting-misspelt": (lambda: run(max_image_sise=500), ["max_image_sise", "max_image_size"]),
    "setting-ambiguous": (lambda: run(num_threads=2), ["num_threads", "ambiguous", "adjust.num_threads"]),
    "setting-range": (lambda: run(max_image_size=3), ["max_image_size = 3", "from 64"]),
    "setting-type": (lambda: run(focal_px="long"), ["focal_px", "must be a number"]),
    "setting-nan": (lambda: run(align__gamma2=float("nan")), ["align.gamma2", "finite"]),
    "setting-literal": (lambda: run(camera_mode="Single"), ["camera_mode", "did you mean single", "per-folder"]),
    "setting-group": (lambda: run(align=7), ["align", "AlignConfig"]),
    "setting-scene-graph": (lambda: run(scene_graph="swim-3"), ["scene_graph", "swin-K"]),
    "solver-underscore": (lambda: run(solver="second_order"), ["align.solver", "second-order"]),
    "solver-without-lr": (lambda: run(solver="second-order", lr1=0.1), ["align.lr1", "second-order", "adam"]),
    "progress-string": (lambda: run(progress="yes"), ["progress", "True, False or an anchorsfm.Progress"]),
    "no-depth-to-align": (lambda: run(frontend=Matcher(None), mapper="align"), ["mapper", "pointmaps", "tracks"]),
    "load-nothing": (lambda: sfm.load("nowhere"), ["nowhere", "no such folder"]),
    "load-number": (lambda: sfm.load(3), ["folder", "path"]),
    # what a front end says
    "frontend-shape": (lambda: run(frontend=Matcher({"xy_i": XY.T, "xy_j": XY})), ["xy_i", "(match, 2)", "(2, 40)"]),
    "frontend-nan": (lambda: run(frontend=Matcher({"xy_i": XY * np.nan, "xy_j": XY})), ["xy_i", "NaN", "finite"]),
    "frontend-key": (lambda: run(frontend=Matcher({"xy_1": XY})), ["unknown key 'xy_1'", "did you mean 'xy_"]),
    "frontend-list": (lambda: run(frontend=Matcher([XY, XY])), ["(0, 1)", "dictionary with xy_i, xy_j"]),
    "frontend-lengths": (lambda: run(frontend=Matcher({"xy_i": XY[:3], "xy_j": XY})), ["3, 40", "one each per match"]),
    # the alignment
    "pairs-string": (lambda: aligned("compleet"), ["'compleet'", "complete"]),
    "pairs-flat": (lambda: aligned([0, 1]), ["pairs[0] = 0", "[(0, 1), (0, 2)]"]),
    "pairs-three": (lambda: aligned([(0, 1, 2)]), ["pairs[0]", "(0, 1)"]),
    "pairs-range": (lambda: aligned([(0, 9)]), ["pairs[0]", "no image 9", "3 images"]),
    "pairs-same": (lambda: aligned([(1, 1)]), ["pairs[0]", "paired with itself"]),
    "pairs-names": (lambda: aligned([("0000.png", "001.png")]), ["pairs[0]", "'001.png'", "0001.png"]),
    "pairs-dictionary": (lambda: aligned([({"index": 0}, {"idx": 1})]), ["pairs[0]", "idx"]),
    "pairs-float": (lambda: aligned([(0.0, 1.0)]), ["pairs[0]", "row, name or dictionary with idx"]),
    "pairs-empty": (lambda: aligned([]), ["pairs is empty", "[(0, 1)"]),
    "align-setting": (lambda: aligned(niter=3), ["'niter'", "did you mean 'niter"]),
    "align-shared": (
        lambda: sfm.sparse_global_alignment([READY], shared_intrinsics="all"),
        ["shared_intrinsics", "True"],
    ),
    "align-conf": (lambda: aligned(desc_conf="descriptor"), ["desc_conf", "desc_conf, conf"]),
    "align-tree": (lambda: aligned(kinematic_mode="ward"), ["kinematic_mode", "hclust-ward"]),
    "align-poses-list": (lambda: aligned(poses=[POSES[0]]), ["poses", "image name -> cam_from_world (3, 4)", "list"]),
    "align-poses-name": (lambda: aligned(poses={"0.png": POSES[0]}), ["poses['0.png']", "no image is named"]),
    "align-poses-row": (lambda: aligned(poses={7: POSES[0]}), ["poses[7]", "there is no image 7"]),
    "align-poses-twice": (lambda: aligned(poses={0: POSES[0], "0000.png": POSES[0]}), ["0000.png", "twice"]),
    "align-poses-shape": (lambda: aligned(poses={0: np.eye(3)}), ["poses[0]", "(3, 4)", "(3, 3)"]),
    "align-poses-nan": (lambda: aligned(poses={0: POSES[0] * np.nan}), ["poses[0]", "NaN"]),
    "align-poses-scaled": (lambda: aligned(poses={0: POSES[0] * 2}), ["poses[0]", "[R | t] with a rotation R"]),
    "align-poses-mirrored": (lambda: aligned(poses={0: POSES[0] * [[1], [1], [-1]]}), ["poses[0]", "rotation R"]),
    "align-poses-last-row": (lambda: aligned(poses={0: np.diag([1, 1, 1, 2.0])}), ["poses[0]", "rotation R"]),
    "align-poses-text": (lambda: aligned(poses={0: "identity"}), ["poses[0]", "expected an array", "identity"]),
    "align-intrinsics": (lambda: aligned(intrinsics=np.eye(4)), ["intrinsics", "(3, 3)", "(4, 4)"]),
    "align-intrinsics-shared": (
        lambda: aligned(intrinsics={0: 500, 1: 501}, shared_intrinsics=True),
        ["intrinsics[1]", "shared_intrinsics=False"],
    ),
    "align-focal-and-intrinsics": (lambda: aligned(focal_px=500, intrinsics=500), ["focal_px and intrinsics", "one"]),
    "align-focal": (lambda: aligned(focal_px=-500, poses={0: POSES[0]}), ["focal_px", "more than 0"]),
    "align-freeze": (lambda: aligned(poses={0: POSES[0]}, freeze_poses="no"), ["freeze_poses", "True or False"]),
    "coarse-poses": (
        lambda: sfm.align_coarse(sfm.condense([READY]), poses={"2": POSES[0]}),
        ["poses['2']", "no image is named"],
    ),
    "images-first-channel": (
        lambda: sfm.predict_pairs([np.zeros((3, 64, 64), np.uint8)] * 2),
        ["images[0]", "(height, width, 3)", "last"],
    ),
    "images-floats": (
        lambda: sfm.predict_pairs([np.full((64, 64, 3), 255.0)] * 2),
        ["images[0]", "floats from 0 to 1"],
    ),
    "images-mixed": (lambda: sfm.predict_pairs([PICTURES[0], "b.jpg"]), ["images[1]", "all files or all arrays"]),
    "images-one": (lambda: sfm.predict_pairs(PICTURES[:1]), ["images", "at least two"]),
    "ready-pairs": (lambda: sfm.sparse_global_alignment([READY], "swin-2"), ["pairs has no effect", "ready"]),
    "ready-focal": (
        lambda: sfm.sparse_global_alignment([READY], focal_px=500),
        ["focal_px has no effect", "intrinsics"],
    ),
    "ready-setting": (
        lambda: sfm.predict_pairs([READY], features__max_keypoints=5),
        ["features__max_keypoints has no effect", "leave it out"],
    ),
    "ready-frontend": (lambda: sfm.predict_pairs([READY], frontend=NoPredictor()), ["frontend has no effect"]),
    "ready-shape": (lambda: sfm.condense([READY | {"points_ii": MAP[0]}]), ["points_ii", "(h, w, 3)", "(32, 3)"]),
    "ready-confidence": (
        lambda: sfm.condense([READY | {"confidence_ij": None}]),
        ["confidence_ij", "missing", "(h, w)"],
    ),
    "ready-twice": (lambda: sfm.condense([READY, READY]), ["(0, 1)", "twice"]),
    "canonical-axes": (lambda: sfm.canonical_view(MAP, SURE), ["pointmaps", "(prediction, h, w, 3)", "(24, 32, 3)"]),
    "canonical-low": (lambda: sfm.canonical_view([MAP], [SURE * 0]), ["confidences", "at least 1"]),
    "canonical-nan": (lambda: sfm.canonical_view([MAP * np.inf], [SURE]), ["pointmaps", "NaN or infinite"]),
    "tree-matrix": (lambda: sfm.kinematic_tree([[0, 1], [2, 0]], "mst"), ["scene", "symmetric matrix (image, image)"]),
    "tree-blocks": (lambda: sfm.kinematic_tree([[0, 1], [1, 0]]), ["num_blocks", "(image,)"]),
    "coarse-scene": (lambda: sfm.align_coarse([READY]), ["scene", "condense()"]),
    "fine-setting": (
        lambda: sfm.align_fine(sfm.align_coarse(sfm.condense([READY])), subsample=4),
        ["'subsample'", "there is no setting"],
    ),
    "fine-late": (
        lambda: sfm.align_fine(sfm.align_coarse(sfm.condense([READY])), niter1=4),
        ["niter1", "align_coarse()"],
    ),
    "pairs-count": (lambda: sfm.make_pairs(1), ["images", "at least 2"]),
    "pairs-similarity": (
        lambda: sfm.make_pairs(3, "retrieval-1-2", similarity=np.eye(2)),
        ["similarity", "(3, 3)", "(2, 2)"],
    ),
    # own matches
    "matches-list": (lambda: sfm.reconstruct_matches([(XY, XY)], SIZES), ["matches", "('a.jpg', 'b.jpg')", "list"]),
    "matches-key": (lambda: sfm.reconstruct_matches({"a.jpg": (XY, XY)}, SIZES), ["matches['a.jpg']", "pair"]),
    "matches-name": (
        lambda: sfm.reconstruct_matches({("a.jpg", "c.jpg"): (XY, XY)}, SIZES),
        ["c.jpg", "no image is named"],
    ),
    "matches-axes": (lambda: matches((XY.T, XY.T)), ["xy_i", "(match, 2)", "(2, 40)"]),
    "matches-three-columns": (lambda: matches(np.ones((40, 3))), ["(match, 4)", "(40, 3)"]),
    "matches-lengths": (lambda: matches((XY, XY[:5])), ["40, 5", "expected equal"]),
    "matches-scale": (lambda: matches((XY, XY, np.ones(40))), ["confidence", "'probability', 'score' or 'log'"]),
    "matches-scale-name": (lambda: matches(confidence="prob"), ["confidence", "'probability'"]),
    "matches-probability": (
        lambda: matches((XY, XY, np.full(40, 7.0)), confidence="probability"),
        ["confidence 7", "0 .. 1"],
    ),
    "matches-log": (lambda: matches((XY, XY, np.full(40, 0.9)), confidence="log"), ["confidence 0.9", "at most 0"]),
    "matches-score": (lambda: matches((XY, XY, np.full(40, 0.9)), confidence="score"), ["confidence", "'probability'"]),
    "matches-normalised": (lambda: matches((XY / 640, XY / 480)), ["-1 .. 1", "original pixels"]),
    "matches-outside": (lambda: matches((XY * 20, XY)), ["outside the images", "(width, height)"]),
    "sizes-missing": (lambda: matches(sizes=None), ["sizes is missing", "(width, height)"]),
    "sizes-negative": (
        lambda: matches(sizes={"a.jpg": (640, -1), "b.jpg": (1, 1)}),
        ["sizes['a.jpg']", "(width, height)"],
    ),
    "sizes-three": (lambda: matches(sizes={"a.jpg": (3, 4, 3), "b.jpg": (1, 1)}), ["sizes['a.jpg']", "(2,)", "(3,)"]),
    "intrinsics-shape": (lambda: matches(intrinsics=np.eye(4)), ["intrinsics", "(3, 3)", "(4, 4)"]),
    "intrinsics-matrix": (lambda: matches(intrinsics=np.ones((3, 3))), ["intrinsics", "K = [[fx, 0, cx]"]),
    "intrinsics-nan": (lambda: matches(intrinsics=float("nan")), ["intrinsics", "at least 1"]),
    "intrinsics-name": (lambda: matches(intrinsics={"q.jpg": 500}), ["intrinsics['q.jpg']", "no image is named"]),
    "matches-align": (lambda: matches(mapper="align"), ["mapper", "sparse_global_alignment()"]),
    "matches-model": (lambda: matches(camera_model="pinhole"), ["camera_model", "'PINHOLE'"]),
    "matches-setting": (lambda: matches(min_inlier=3), ["min_inlier", "min_inliers"]),
    # triangulation
    "triangulate-xy": (lambda: points(xy=torch.zeros(2, 40)), ["xy", "(obs, 2)", "(2, 40)"]),
    "triangulate-point": (lambda: points(point=np.zeros(40)), ["point", "whole numbers (obs,)"]),
    "triangulate-image": (lambda: points(image=np.full(40, 9)), ["image", "9 is no row"]),
    "triangulate-pose": (lambda: points(cam_from_world=np.eye(4)[None]), ["cam_from_world", "(image, 3, 4)"]),
    "triangulate-params": (lambda: points(params=[500.0, 320.0]), ["params", "(3,)", "(2,)"]),
    "triangulate-nan": (lambda: points(params=[np.nan, 320.0, 240.0]), ["params", "NaN"]),
    # the network
    "network-device": (lambda: sfm.load_mast3r("x/y", device="gpu"), ["device", "auto, cpu, cuda, mps"]),
    "network-weights": (lambda: sfm.load_mast3r(5), ["weights", "Hugging Face id or a file"]),
    "network-setting": (lambda: sfm.load_mast3r("x/y", image_sise=4), ["image_sise", "image_size"]),
    "network-half": (lambda: sfm.load_mast3r("x/y", half_precision=True), ["half_precision", "auto, on, off"]),
    "network-lengths": (lambda: NET.match(PICTURES, PICTURES[:2]), ["a and b", "3 and 2"]),
    "network-mixed": (lambda: NET.match(PICTURES, PICTURES[0]), ["a and b", "two lists"]),
    "network-shape": (lambda: NET.match(PICTURES[0], np.zeros((64, 64, 2))), ["b", "(height, width, 3)"]),
    "network-folder": (lambda: NET.match(".", PICTURES[0]), ["a = .", "folder", "picture"]),
}
NET: sfm.Mast3r


@pytest.fixture(scope="module", autouse=True)
def plain_python(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As users run it: without the checks of annotations that the tests add."""
    global NET, PHOTOS
    weights = write_weights(tmp_path_factory.mktemp("weights") / "net", MAST3R)
    NET, PHOTOS = sfm.load_mast3r(weights, device="cpu", accept_weights_license=True), str(workplace / "photos")
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", CALLS)
def test_one_sentence_names_the_argument_and_what_is_expected(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, expected = CALLS[name]
    with pytest.raises(sfm.InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 320 and "--" not in message
    assert not [part for part in expected if part not in message], message
    assert not list(tmp_path.glob("*.*")) and not (tmp_path / "out" / "sparse").exists()


def test_there_are_enough_of_them():
    assert len(CALLS) >= 40

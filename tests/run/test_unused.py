"""Settings that other settings leave without effect are said."""

import pytest

from anchorsfm.run.unused import without_effect

USED = {
    "frontend": "classical",
    "detector": "sift",
    "matcher": "ratio-test",
    "uses_networks": False,
    "has_second_method": True,
    "mapper": "align",
    "dense": True,
    "refines_keypoints": True,
    "has_known_model": True,
    "has_video": True,
    "has_panoramas": True,
    "has_rig": True,
    "has_ground_points": True,
    "reads_positions": True,
    "lacks_positions": False,
    "has_focal_deviation": True,
}
LEARNED = {"detector": "aliked", "matcher": "lightglue", "uses_networks": True}


@pytest.mark.parametrize(
    ("name", "otherwise", "reason"),
    [
        ("align.niter1", {"mapper": "tracks"}, "the mapper is tracks"),
        ("graph.subsample", {"mapper": "global", "dense": False}, "neither an alignment nor"),
        ("classical.dense.size", {"frontend": "mast3r"}, "the front end is mast3r"),
        ("subpixel.radius", {"refines_keypoints": False}, "keypoints are not refined"),
        ("known.use_poses", {"has_known_model": False}, "no known model"),
        ("cloud.mesh", {"dense": False}, "no dense cloud"),
        ("epsg", {"reads_positions": False}, "no recorded positions are looked at"),
        ("gps", {"lacks_positions": True}, "no photograph has a recorded position"),
        ("focal_deviation", {"has_focal_deviation": False}, "no focal length is recorded or given"),
        ("gcp.check", {"has_ground_points": False}, "there are no ground control points"),
        ("rig.refine", {"has_rig": False}, "no rig is given"),
        ("panorama.size", {"has_panoramas": False}, "there is no panorama"),
        ("video.fps", {"has_video": False}, "no video is given"),
        ("sparsify.max_detected_keypoints", {"frontend": "mast3r"}, "has no detector"),
        ("classical.second.budget", {"has_second_method": False}, "there is no second detector"),
        ("classical.features.max_keypoints", LEARNED, "keypoints are those of aliked"),
        ("classical.matching.max_ratio", LEARNED, "the matcher is lightglue"),
    ],
)
def test_each_group_has_its_reason(name: str, otherwise: dict, reason: str) -> None:
    assert not list(without_effect([name, "adjust.min_angle_deg", "seed"], **USED))
    (line,) = without_effect([name, "adjust.min_angle_deg", "seed"], **{**USED, **otherwise})
    assert line.startswith(f"without effect, because {reason}") or reason in line
    assert line.endswith(f": {name}")


def test_settings_of_learned_features_are_said_with_sift() -> None:
    changed = [
        "classical.networks.batch_size",
        "classical.features.max_learned_keypoints",
        "classical.matching.min_score",
    ]
    assert [line.rpartition(": ")[2] for line in without_effect(changed, **USED)] == changed
    assert not list(without_effect(changed, **{**USED, **LEARNED}))


def test_settings_of_a_network_are_said_with_the_classical_front_end() -> None:
    changed = ["mast3r.device", "sparsify.merge_radius", "sparsify.max_error", "sparsify.min_confidence"]
    first, second = without_effect(changed, **USED)
    assert first.endswith("the front end is classical: mast3r.device")
    assert second.endswith(": sparsify.merge_radius, sparsify.max_error")
    assert len(list(without_effect(changed, **{**USED, "frontend": "mast3r"}))) == 0

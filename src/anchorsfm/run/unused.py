"""Settings that were changed and have no effect in a run, because of other settings."""

from collections.abc import Iterator, Sequence

_OF_GRID_MATCHES = tuple(
    f"sparsify.{name}"
    for name in (
        "confidence_percentile",
        "max_error",
        "max_iterations",
        "min_inliers",
        "degenerate_ratio",
        "merge_radius",
        "suppress_radius",
        "max_keypoints",
    )
)
_OF_SIFT = ("classical.features.max_keypoints", "classical.features.contrast_threshold")


def without_effect(
    changed: Sequence[str],
    *,
    frontend: str,
    detector: str,
    matcher: str,
    uses_networks: bool,
    has_second_method: bool,
    mapper: str,
    dense: bool,
    refines_keypoints: bool,
    has_known_model: bool,
    has_video: bool,
    has_panoramas: bool,
    has_rig: bool,
    has_ground_points: bool,
    reads_positions: bool,
    lacks_positions: bool,
    has_focal_deviation: bool,
) -> Iterator[str]:
    """One line for each reason why some of the changed settings (dotted names) are not used."""
    classical, aligned = frontend == "classical", mapper == "align"
    learned = classical and detector != "sift"
    for unused, names, reason in (
        (not aligned, ("align.",), f"the mapper is {mapper}"),
        (not (aligned or dense), ("graph.", "classical.dense."), "neither an alignment nor a dense cloud is made"),
        (not classical, ("classical.",), f"the front end is {frontend}"),
        (frontend != "mast3r", ("mast3r.",), f"the front end is {frontend}"),
        (learned, _OF_SIFT, f"keypoints are those of {detector}"),
        (classical and not has_second_method, ("classical.second.",), "there is no second detector"),
        (classical and not uses_networks, ("classical.networks.",), "no network finds or matches keypoints"),
        (classical and not learned, ("classical.features.max_learned_keypoints",), "keypoints are those of sift"),
        (classical and matcher != "ratio-test", ("classical.matching.max_ratio",), f"the matcher is {matcher}"),
        (classical and matcher != "lightglue", ("classical.matching.min_score",), f"the matcher is {matcher}"),
        (classical, _OF_GRID_MATCHES, "the front end classical verifies its matches and finds exact keypoints itself"),
        (not classical, ("sparsify.max_detected_keypoints",), f"the front end {frontend} has no detector"),
        (not refines_keypoints, ("subpixel.",), "keypoints are not refined"),
        (not has_known_model, ("known.",), "no known model is given"),
        (not reads_positions, ("epsg",), "no recorded positions are looked at"),
        (lacks_positions, ("gps",), "no photograph has a recorded position"),
        (not has_focal_deviation, ("focal_deviation",), "no focal length is recorded or given"),
        (not dense, ("cloud.",), "no dense cloud is made"),
        (not has_video, ("video.",), "no video is given"),
        (not has_ground_points, ("gcp.check",), "there are no ground control points"),
        (not has_rig, ("rig.refine",), "no rig is given"),
        (not has_panoramas, ("panorama.views", "panorama.size"), "there is no panorama of 360 degrees"),
    ):
        found = [name for name in changed if name.startswith(names)] if unused else []
        if found:
            yield f"without effect, because {reason}: {', '.join(found)}"

"""Which relative poses agree with those of the other pairs (docs/method.md, Which pairs to believe)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from anchorsfm.frontend.classical.two_view import RelativePose
from anchorsfm.pairing.config import ConsistencyConfig
from anchorsfm.pairing.consistency import judge_pairs
from anchorsfm.pairing.rotations import RelativeRotations, loop_error_deg, triplets
from anchorsfm.scene.pairs import PairStatus

_ROUNDS = 3
"""Times that each plane is looked at: its neighbours may be planes too."""


def with_closing_poses(
    pairs: Int[np.ndarray, "pair 2"],
    poses: Sequence[RelativePose],
    others: Mapping[int, RelativePose],
    num_images: int,
    agreement_deg: float,
) -> tuple[RelativePose, ...]:
    """The poses of pairs; where there is another one, that which closes triplets with more matches.

    Args:
        pairs: i < j.
        poses: of each.
        others: row of a pair -> the other pose that explains its matches (`planes`).
        num_images: of all.
        agreement_deg: triplets close up to this angle.
    """
    if not others:
        return tuple(poses)
    rows, given = _rotations(pairs, poses, num_images)
    place_of = {row: place for place, row in enumerate(rows.tolist())}
    triplet = triplets(given)
    triplet = triplet[np.argsort(triplet[:, 0], kind="stable")]
    start = np.searchsorted(triplet[:, 0], np.arange(len(rows) + 1))

    def closing(place: int) -> float:
        mine = triplet[start[place] : start[place + 1]]
        closes = loop_error_deg(given, mine) < agreement_deg
        return float(np.minimum(given.evidence[mine[:, 1]], given.evidence[mine[:, 2]])[closes].sum())

    chosen, left = list(poses), dict(others)
    for _ in range(_ROUNDS):
        changed = False
        for row in sorted(left):
            place = place_of[row]
            before, given.rotation[place] = closing(place), left[row].j_from_i[:, :3]
            if closing(place) > before:
                chosen[row], left[row], changed = left[row], chosen[row], True
            else:
                given.rotation[place] = chosen[row].j_from_i[:, :3]
        if not changed:
            break
    return tuple(chosen)


def believed(
    pairs: Int[np.ndarray, "pair 2"], poses: Sequence[RelativePose], num_images: int, config: ConsistencyConfig
) -> tuple[RelativePose, ...]:
    """The same relative poses; those that contradict better confirmed ones say so."""
    rows, given = _rotations(pairs, poses, num_images)
    rejected = set(rows[judge_pairs(given, config).rejected].tolist())
    return tuple(
        replace(pose, status=PairStatus.CONTRADICTED) if row in rejected else pose for row, pose in enumerate(poses)
    )


def _rotations(
    pairs: Int[np.ndarray, "pair 2"], poses: Sequence[RelativePose], num_images: int
) -> tuple[Int[np.ndarray, "row"], RelativeRotations]:
    """Rows of the pairs that match, and their rotations."""
    rows = np.flatnonzero([pose.status is not PairStatus.UNMATCHED for pose in poses])
    return rows, RelativeRotations(
        num_images=num_images,
        pair=pairs[rows],
        rotation=np.array([poses[row].j_from_i[:, :3] for row in rows.tolist()]).reshape(-1, 3, 3),
        evidence=np.array([len(poses[row].keypoint) for row in rows.tolist()], np.float64),
    )

"""The recorded six-view scene as a stream of predictions, condensed by the package's own code."""

from functools import cache
from pathlib import Path

import numpy as np

from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import ObservedScene, build_scene_graph
from anchorsfm.scene.images import ImageGrid
from anchorsfm.scene.pairs import Matches, PairPrediction, PairStatus, Pointmaps

SUBSAMPLE = 8


def _blown_up(blocks, size_hw):
    """Predictions recorded at block corners only, repeated over the block."""
    return blocks.repeat(SUBSAMPLE, 0).repeat(SUBSAMPLE, 1)[: size_hw[0], : size_hw[1]]


def golden_predictions(golden: Path, confidence: str = "corr_conf"):
    data = dict(np.load(golden / "sparse_scene_inputs.npz"))
    row = {tuple(pair): k for k, pair in enumerate(data["directed_pairs"].tolist())}
    hw = data["hw"]

    def frame(own: int, other: int) -> Pointmaps:
        k = row[own, other]
        return Pointmaps(
            own=data["X1"][k],
            own_confidence=data["C1"][k],
            other=_blown_up(data["X2_sub"][k], hw),
            other_confidence=_blown_up(data["C2_sub"][k], hw),
        )

    for p, (i, j) in enumerate(data["undirected_pairs"].tolist()):
        rows = slice(*data["corr_offsets"][p : p + 2])
        yield PairPrediction(
            i=i,
            j=j,
            status=PairStatus.OK,
            matches=Matches(
                xy_i=data["corr_xy1"][rows].astype(float),
                xy_j=data["corr_xy2"][rows].astype(float),
                confidence=data[confidence][rows],
            ),
            keypoint_matches=None,
            frame_i=frame(i, j),
            frame_j=frame(j, i),
        )


@cache
def golden_scene(golden: Path, confidence: str = "corr_conf", *, double: bool = True) -> ObservedScene:
    """Condensed as the original does it: pixel centres at integers, targets at block corners."""
    grid = ImageGrid(size_wh=np.tile([128, 96], (6, 1)), scale=np.ones((6, 2)), offset=np.zeros((6, 2)))
    side = 1 / (2 * np.tan(np.radians(30)))  # the focal length of a view of 60 degrees over the longer side
    config = GraphConfig(
        pixel_centre=0.0,
        corner_targets=True,
        robust_focal=False,
        double_precision=double,
        focal_range=(0.5 * side, 3.5 * side),
    )
    return build_scene_graph(6, golden_predictions(golden, confidence), grid, config)

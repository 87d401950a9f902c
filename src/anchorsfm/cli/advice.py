"""What would have made a run shorter, and what may make one model of several."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from anchorsfm.io.clock import StageTiming
from anchorsfm.run.stages import Stage

if TYPE_CHECKING:
    from anchorsfm.scene.pairs import PairSearch

_WORTH_S = 20.0
"""Runs as short as this need no advice."""
_SHORTENED_BY: Mapping[str, str] = {
    Stage.FEATURES: "a smaller --max-image-size, fewer --classical.features.max-keypoints or, of networks, "
    "--classical.features.max-learned-keypoints shorten it",
    Stage.DEPTH: "--mapper tracks --no-dense needs none, a smaller --classical.dense.size shortens it",
    Stage.TRACKS: "fewer --sparsify.max-detected-keypoints shorten it",
    Stage.ALIGNMENT: "--mapper tracks is shorter",
    Stage.ADJUSTMENT: "more --adjust.num-threads or a smaller --max-image-size shorten it",
    Stage.DENSE_CLOUD: "--no-dense leaves it out, a smaller --classical.dense.size shortens it",
}


def advice(stages: Sequence[StageTiming]) -> str | None:
    """The stage that took longest and the option that would shorten it; None where it does not matter."""
    whole_s = sum(stage.wall_s for stage in stages)
    slowest = max(stages, key=lambda stage: stage.wall_s, default=None)
    if slowest is None or whole_s < _WORTH_S or slowest.stage not in _SHORTENED_BY:
        return None
    share = slowest.wall_s / whole_s
    return f"{share:.0%} of the time went into {slowest.stage}: {_SHORTENED_BY[slowest.stage]}"


def wider_search(num_models: int, num_images: int, search: "PairSearch | None") -> str | None:
    """What may join the models of a run; None where there is one, or all pairs were looked at."""
    if num_models < 2 or search is None:
        return None
    left = num_images * (num_images - 1) // 2 - search.tried
    if left <= 0:
        return None
    return (
        f"the {num_models} models may belong together: {left} pairs of photographs were not looked at, which "
        "--scene-graph complete does; photographs between them join them too (anchorsfm extend)"
    )

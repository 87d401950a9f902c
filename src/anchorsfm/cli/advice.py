"""What would have made a run shorter."""

from collections.abc import Mapping, Sequence

from anchorsfm.io.clock import StageTiming
from anchorsfm.run.stages import Stage

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

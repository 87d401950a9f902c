"""The focal length that straight edges at right angles show (docs/method.md, Recorded focal lengths).

A segment of a photograph lies in a plane through the camera centre; seen from the principal point, the image of a
direction v (camera frame) lies at f v_xy / v_z, its vanishing point. From the middle m of the segment to that point
goes t = f v_xy - v_z m, and the angle between t and the segment is 0 if the segment has the direction v. In a world of
three directions at right angles (Coughlan and Yuille, "Manhattan world", ICCV 1999) the angle to one of them is normal,
or, with a probability of one half, the segment has any direction. The log-likelihood of a focal length is that of the
best frame of three directions, shared by all photographs with the rotations that belong to the focal length; the frame
is found from samples of three segments and refined by Gauss-Newton with soft assignments.

That likelihood is too sure of itself: edges of one wall or one moulding err together. So its curvature is not the
deviation that is stated, a bootstrap over segments has a say, and there are reasons to say nothing: few segments, or
other focal lengths that fit about as well. And walls need not be at right angles. Two views that are turned against
each other check it: parallel edges have one direction in both with the right focal length only, so three directions at
whatever angles have to prefer it too.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.geometry.transforms import cross_matrix

_ANYTHING = 0.5
"""Share of segments in any direction."""
UNCHECKED = "nothing shows whether straight edges are at right angles"
"""Where views are hardly turned against each other: directions at other angles fit with other focal lengths."""
FEWEST = 20
"""Segments that say something."""
_SAMPLES, _REFINED = 200, 4
"""Frames from samples at one focal length, and how many of the best are refined."""
_SEARCHED = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9)
"""Where samples are drawn, as shares of the focal lengths that are tried."""
_AROUND = 6
"""Focal lengths on either side that frames of samples are refined for."""
_STEPS, _FEW_STEPS, _SWEEPS = 8, 4, 4
_DRAWINGS = 16
"""Of the bootstrap."""
_LEAST_DEVIATION, _LARGEST_DEVIATION = 0.05, 0.12
"""Of the logarithm of a focal length: the least that is stated (principal points are off, walls are not exactly at
right angles), and what says too little."""
_SAFETY = 2.0
"""Deviations that are stated, over those of likelihood and bootstrap."""
_NEAR = 0.15
"""Distance of logarithms from which on another focal length is another answer."""
_LEAD = 8.0
"""Log-likelihood by which the best focal length must surpass all others."""
_LEAST_ANGLE_COS = 0.87
"""Of two directions of a frame that need not be at right angles: 30 degrees. Two that are one would count it twice."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Straight edges of some photographs of one camera without distortion."""

    ends_px: Float[np.ndarray, "segment 2 2"]
    """From the principal point."""
    view: Int[np.ndarray, " segment"]
    sigma: Float[np.ndarray, " segment"]
    """Standard deviation of the direction in radians."""


@dataclass(frozen=True, kw_only=True)
class LineFocal:
    """What lines say about a focal length."""

    focal_px: float
    """The most likely one; NaN where there are few segments."""
    deviation: float
    """Standard deviation of its logarithm; infinite where nothing can be stated."""
    doubt: str
    """Why it should not be used; empty: it can."""


def focal_of_lines(
    segments: Segments,
    focal_px: Float[np.ndarray, " try"],
    rotations: Float[np.ndarray, "try view 3 3"],
    seed: int = 0,
) -> LineFocal:
    """The most likely of focal lengths.

    Args:
        segments: of all photographs.
        focal_px: increasing, steps of a few percent.
        rotations: cam from world, with each of the focal lengths.
        seed: of the samples.
    """
    if len(segments.view) < FEWEST:
        return LineFocal(focal_px=math.nan, deviation=math.inf, doubt="there are few straight edges")
    rng, log_focal = np.random.default_rng(seed), np.log(focal_px)
    lines = _Lines.of(segments, rotations.shape[1])
    found = _profile(lines, focal_px, rotations, rng)
    best = int(found.score.argmax())
    place, curvature = _peak(log_focal, found.score)
    drawn = [log_focal[k] for k in _drawn(lines, found, focal_px, rotations, rng)]
    deviation = max(_LEAST_DEVIATION, _SAFETY * curvature, _SAFETY * float(np.std(drawn)))
    is_other = np.abs(log_focal - log_focal[best]) > _NEAR
    doubt = ""
    if best in (0, len(focal_px) - 1) or found.score[best] - found.score[is_other].max() < _LEAD:
        doubt = "straight edges fit other focal lengths as well"
    elif deviation > _LARGEST_DEVIATION:
        doubt = "some straight edges say one focal length, some another"
    else:
        doubt = _doubt_of_angles(_loose_scores(lines, found, focal_px, rotations), is_other)
    return LineFocal(focal_px=math.exp(place), deviation=deviation, doubt=doubt)


def _doubt_of_angles(loose: Float[np.ndarray, " try"], is_other: Bool[np.ndarray, " try"]) -> str:
    """Why directions that edges share, at whatever angles, do not confirm the focal length of right angles."""
    lead = float(loose[~is_other].max() - loose[is_other].max())
    if lead > _LEAD:
        return ""
    return "straight edges do not seem to be at right angles" if lead < -_LEAD else UNCHECKED


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """Segments in the order of their views."""

    middle: Float[np.ndarray, "segment 2"]
    along: Float[np.ndarray, "segment 2"]
    length: Float[np.ndarray, " segment"]
    sigma: Float[np.ndarray, " segment"]
    weight: Float[np.ndarray, " segment"]
    views: tuple[slice, ...]
    """Segments of each."""

    @staticmethod
    def of(segments: Segments, num_views: int) -> "_Lines":
        order = np.argsort(segments.view, kind="stable")
        ends = segments.ends_px[order]
        step = ends[:, 1] - ends[:, 0]
        length = np.linalg.norm(step, axis=1)
        bounds = np.searchsorted(segments.view[order], np.arange(num_views + 1))
        return _Lines(
            middle=ends.mean(axis=1),
            along=step / length[:, None],
            length=length,
            sigma=segments.sigma[order],
            weight=np.ones(len(order)),
            views=tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)),
        )


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """Three directions (columns of `axes`, world) for each focal length, and how well segments fit."""

    axes: Float[np.ndarray, "try 3 3"]
    score: Float[np.ndarray, " try"]

    def or_better(self, row: Int[np.ndarray, " other"], other: "_Frames") -> "_Frames":
        """With those of others, of the focal lengths `row`, that fit better."""
        axes, score = self.axes.copy(), self.score.copy()
        for k in np.argsort(other.score, kind="stable"):
            if other.score[k] > score[row[k]]:
                axes[row[k]], score[row[k]] = other.axes[k], other.score[k]
        return _Frames(axes=axes, score=score)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """How segments fit three directions, for each of several focal lengths."""

    miss: Float[np.ndarray, "try 3 segment"]
    """Angles to each direction in radians."""
    slope: Float[np.ndarray, "try 3 segment 3"]
    """Their derivative by the direction, in the world."""
    density: Float[np.ndarray, "try 3 segment"]
    score: Float[np.ndarray, " try"]

    @staticmethod
    def of(
        lines: _Lines,
        weight: Float[np.ndarray, " segment"],
        focal_px: Float[np.ndarray, " try"],
        rotations: Float[np.ndarray, "try view 3 3"],
        axes: Float[np.ndarray, "try 3 3"],
    ) -> "_Fit":
        miss = np.empty((len(focal_px), 3, len(lines.length)))
        slope = np.empty((*miss.shape, 3))
        for view, rows in enumerate(lines.views):
            cam_axes = rotations[:, view] @ axes
            middle, along = lines.middle[rows], lines.along[rows]
            there_x, there_y = (
                (focal_px[:, None] * cam_axes[:, k])[:, :, None] - cam_axes[:, 2, :, None] * middle[:, k]
                for k in (0, 1)
            )
            ahead = along[:, 0] * there_x + along[:, 1] * there_y
            aside = along[:, 0] * there_y - along[:, 1] * there_x
            miss[:, :, rows] = np.arctan2(aside, np.abs(ahead))
            size = np.sign(ahead) / (ahead**2 + aside**2 + 1e-12)
            by_x = size * (-along[:, 1] * ahead - along[:, 0] * aside)
            by_y = size * (along[:, 0] * ahead - along[:, 1] * aside)
            by_z = -(middle[:, 0] * by_x + middle[:, 1] * by_y)
            focal = focal_px[:, None, None]
            slope[:, :, rows] = np.stack([focal * by_x, focal * by_y, by_z], axis=-1) @ rotations[:, view, None]
        density = np.exp(-0.5 * (miss / lines.sigma) ** 2) * (
            (1 - _ANYTHING) / 3 / math.sqrt(2 * math.pi) / lines.sigma
        )
        score = np.log(_ANYTHING / math.pi + density.sum(axis=1)) @ weight
        return _Fit(miss=miss, slope=slope, density=density, score=score)

    def steps(
        self, lines: _Lines, weight: Float[np.ndarray, " segment"], axes: Float[np.ndarray, "try 3 3"], is_rigid: bool
    ) -> Float[np.ndarray, "try 3 3"]:
        """Rotation vectors (rows) of each direction that Gauss-Newton wants; one for all if the frame is rigid."""
        belongs = self.density / (_ANYTHING / math.pi + self.density.sum(axis=1, keepdims=True))
        information = belongs * (weight / lines.sigma**2)
        weighted = self.slope * information[..., None]
        normal = np.swapaxes(weighted, 2, 3) @ self.slope
        pull = (weighted * self.miss[..., None]).sum(axis=2)
        turn = cross_matrix(np.swapaxes(axes, 1, 2))
        normal = turn @ normal @ np.swapaxes(turn, 2, 3)
        pull = (turn @ pull[..., None])[..., 0]
        if is_rigid:
            step = np.linalg.solve(normal.sum(axis=1) + 1e-6 * np.eye(3), -pull.sum(axis=1)[..., None])
            return np.repeat(np.swapaxes(step, 1, 2), 3, axis=1)
        return np.linalg.solve(normal + 1e-2 * np.eye(3), -pull[..., None])[..., 0]


def _refined(
    lines: _Lines,
    focal_px: Float[np.ndarray, " try"],
    rotations: Float[np.ndarray, "try view 3 3"],
    axes: Float[np.ndarray, "try 3 3"],
    steps: int,
    *,
    is_rigid: bool = True,
    weight: Float[np.ndarray, " segment"] | None = None,
) -> _Frames:
    """The best directions near some, at right angles if they start so and stay rigid."""
    weight = lines.weight if weight is None else weight
    axes, score = axes.copy(), np.empty(len(axes))
    at, row = _Fit.of(lines, weight, focal_px, rotations, axes), np.arange(len(axes))
    score[:] = at.score
    for _ in range(steps):
        wanted = _turned(axes[row], at.steps(lines, weight, axes[row], is_rigid))
        there = _Fit.of(lines, weight, focal_px[row], rotations[row], wanted)
        better = there.score > score[row] + 1e-4
        if not is_rigid:
            better &= _are_apart(wanted)
        if not better.any():
            break
        row = row[better]
        axes[row], score[row] = wanted[better], there.score[better]
        at = _Fit(**{name: value[better] for name, value in vars(there).items()})
    return _Frames(axes=axes, score=score)


def _turned(axes: Float[np.ndarray, "try 3 3"], step: Float[np.ndarray, "try 3 3"]) -> Float[np.ndarray, "try 3 3"]:
    """Each direction (column) rotated by the rotation vector of its own (row)."""
    direction = np.swapaxes(axes, 1, 2)
    angle = np.linalg.norm(step, axis=-1, keepdims=True)
    about = step / np.maximum(angle, 1e-300)
    across = np.cross(about, direction)
    out = direction * np.cos(angle) + across * np.sin(angle)
    out = out + about * (about * direction).sum(axis=-1, keepdims=True) * (1 - np.cos(angle))
    return np.swapaxes(out, 1, 2)


def _are_apart(axes: Float[np.ndarray, "try 3 3"]) -> Bool[np.ndarray, " try"]:
    cosines = np.abs(np.swapaxes(axes, 1, 2) @ axes)
    return cosines[:, (0, 0, 1), (1, 2, 2)].max(axis=1) < _LEAST_ANGLE_COS


def _profile(
    lines: _Lines,
    focal_px: Float[np.ndarray, " try"],
    rotations: Float[np.ndarray, "try view 3 3"],
    rng: np.random.Generator,
) -> _Frames:
    """The best frame for each focal length: from samples, then from those of its neighbours."""
    count = len(focal_px)
    found = _Frames(axes=np.tile(np.eye(3), (count, 1, 1)), score=np.full(count, -np.inf))
    for share in _SEARCHED:
        k = int(share * count)
        frames = _sampled(lines, focal_px[k], rotations[k], rng)
        row = np.repeat(np.arange(max(k - _AROUND, 0), min(k + _AROUND + 1, count)), len(frames))
        axes = np.tile(frames, (len(row) // max(len(frames), 1), 1, 1))
        found = found.or_better(row, _refined(lines, focal_px[row], rotations[row], axes, _STEPS))
    for _ in range(_SWEEPS):
        found = _from_neighbours(lines, found, focal_px, rotations, _FEW_STEPS)
    return found


def _from_neighbours(
    lines: _Lines,
    found: _Frames,
    focal_px: Float[np.ndarray, " try"],
    rotations: Float[np.ndarray, "try view 3 3"],
    steps: int,
    *,
    is_rigid: bool = True,
) -> _Frames:
    count = len(focal_px)
    row = np.concatenate([np.arange(1, count), np.arange(count - 1)])
    start = np.concatenate([np.arange(count - 1), np.arange(1, count)])
    refined = _refined(lines, focal_px[row], rotations[row], found.axes[start], steps, is_rigid=is_rigid)
    return found.or_better(row, refined)


def _sampled(
    lines: _Lines, focal_px: float, rotation: Float[np.ndarray, "view 3 3"], rng: np.random.Generator
) -> Float[np.ndarray, "frame 3 3"]:
    """The best frames of samples: an axis from two segments, one across it from a third; long ones are likelier."""
    normal = np.concatenate(
        [
            np.cross(
                np.column_stack([lines.middle[rows], np.full(rows.stop - rows.start, focal_px)]),
                np.column_stack([lines.along[rows], np.zeros(rows.stop - rows.start)]),
            )
            @ rotation[view]
            for view, rows in enumerate(lines.views)
        ]
    )
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    share = lines.length / lines.length.sum()
    picked = np.stack([rng.choice(len(normal), 3, replace=False, p=share) for _ in range(_SAMPLES)])
    axis = np.cross(normal[picked[:, 0]], normal[picked[:, 1]])
    across = np.cross(axis, normal[picked[:, 2]])
    sizes = np.linalg.norm(axis, axis=1), np.linalg.norm(across, axis=1)
    clear = np.minimum(*sizes) > 0.05
    axis, across = axis[clear] / sizes[0][clear, None], across[clear] / sizes[1][clear, None]
    frames = np.stack([axis, across, np.cross(axis, across)], axis=2)
    count = len(frames)
    fit = _Fit.of(lines, lines.weight, np.full(count, focal_px), np.tile(rotation, (count, 1, 1, 1)), frames)
    return frames[np.argsort(-fit.score, kind="stable")[:_REFINED]]


def _peak(log_focal: Float[np.ndarray, " try"], score: Float[np.ndarray, " try"]) -> tuple[float, float]:
    """Place and deviation of the maximum, from a parabola; as it is and infinite at an end."""
    best = int(score.argmax())
    if best in (0, len(score) - 1):
        return float(log_focal[best]), math.inf
    near = slice(best - 1, best + 2)
    second, first, _ = np.polyfit(log_focal[near] - log_focal[best], score[near], 2)
    return float(log_focal[best] - first / (2 * second)), float(1 / math.sqrt(-2 * second))


def _drawn(
    lines: _Lines,
    found: _Frames,
    focal_px: Float[np.ndarray, " try"],
    rotations: Float[np.ndarray, "try view 3 3"],
    rng: np.random.Generator,
) -> list[int]:
    """The best focal length of each drawing of segments with replacement."""
    count, best = len(lines.length), []
    for _ in range(_DRAWINGS):
        weight = np.bincount(rng.integers(0, count, count), minlength=count).astype(float)
        again = _refined(lines, focal_px, rotations, found.axes, _FEW_STEPS, weight=weight)
        best.append(int(again.score.argmax()))
    return best


def _loose_scores(
    lines: _Lines,
    found: _Frames,
    focal_px: Float[np.ndarray, " try"],
    rotations: Float[np.ndarray, "try view 3 3"],
) -> Float[np.ndarray, " try"]:
    """Log-likelihoods with three directions at any angles."""
    loose = _refined(lines, focal_px, rotations, found.axes, _STEPS, is_rigid=False)
    for _ in range(2 * _AROUND):
        loose = _from_neighbours(lines, loose, focal_px, rotations, _FEW_STEPS, is_rigid=False)
    return loose.score

"""What there is to know about one image, and about two that see the same points."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from anchorsfm.colmap.cameras import focal_length_px
from anchorsfm.geometry.transforms import camera_centres, rotation_angle_deg
from anchorsfm.results.model import StoredModel
from anchorsfm.results.record import PoseDeviation
from anchorsfm.scene.reconstruction import Camera
from anchorsfm.viewer.colours import format_number

MAX_NEIGHBOURS = 12


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another image that sees some of the same points."""

    view: int
    shared: int


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """One image of a model."""

    name: str
    camera: Camera
    focal_px: float
    centre: Float[np.ndarray, "3"]
    """In the model's own frame and unit."""
    num_points: int
    mean_error_px: float | None
    median_error_px: float | None
    precision: PoseDeviation | None
    neighbours: tuple[Neighbour, ...]
    """Most shared points first."""


def image_facts(viewed: StoredModel, view: int) -> ImageFacts:
    """Everything the panel says about an image."""
    camera = viewed.model.cameras[int(viewed.model.camera_index[view])]
    errors = viewed.residual_px[viewed.observations(view)]
    errors = errors[np.isfinite(errors)]
    return ImageFacts(
        name=viewed.names[view],
        camera=camera,
        focal_px=focal_length_px(camera),
        centre=camera_centres(viewed.model.cam_from_world[view]),
        num_points=int(viewed.points_seen[view]),
        mean_error_px=float(errors.mean()) if len(errors) else None,
        median_error_px=float(np.median(errors)) if len(errors) else None,
        precision=viewed.precision.get(viewed.names[view]),
        neighbours=best_neighbours(viewed, view),
    )


def best_neighbours(viewed: StoredModel, view: int) -> tuple[Neighbour, ...]:
    """Images that share most points with one, best first."""
    tracks = viewed.model.tracks
    seen = np.zeros(len(viewed.model.points), bool)
    seen[tracks.obs_point[viewed.observations(view)]] = True
    shared = np.bincount(tracks.obs_image[seen[tracks.obs_point]], minlength=len(viewed.names))
    shared[view] = 0
    order = np.argsort(-shared, kind="stable")[:MAX_NEIGHBOURS]
    return tuple(Neighbour(view=int(k), shared=int(shared[k])) for k in order if shared[k])


@dataclass(frozen=True, kw_only=True)
class SharedPoints:
    """Points that two images both see."""

    point: Int[np.ndarray, "shared"]
    xy_a: Float[np.ndarray, "shared 2"]
    """Model's pixels of the first image."""
    xy_b: Float[np.ndarray, "shared 2"]
    angle_deg: float | None
    """Median angle between the rays of the two images."""


def shared_points(viewed: StoredModel, a: int, b: int) -> SharedPoints:
    """Points that two images of a model share, by point."""
    tracks = viewed.model.tracks
    obs_a, obs_b = viewed.observations(a), viewed.observations(b)
    point, in_a, in_b = np.intersect1d(tracks.obs_point[obs_a], tracks.obs_point[obs_b], return_indices=True)
    rays = [viewed.model.points[point] - camera_centres(viewed.model.cam_from_world[view]) for view in (a, b)]
    cosine = (rays[0] * rays[1]).sum(1) / np.maximum(np.prod([np.linalg.norm(r, axis=1) for r in rays], axis=0), 1e-300)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return SharedPoints(
        point=point,
        xy_a=tracks.obs_xy[obs_a[in_a]],
        xy_b=tracks.obs_xy[obs_b[in_b]],
        angle_deg=float(np.median(angle)) if len(point) else None,
    )


def facts_markdown(facts: ImageFacts) -> str:
    """The facts as a table."""
    x, y, z = (format_number(float(value)) for value in facts.centre)
    rows = [
        ("camera", f"{facts.camera.model}, {facts.camera.width}x{facts.camera.height}"),
        ("focal length", f"{facts.focal_px:.1f} px"),
        ("position", f"{x}, {y}, {z}"),
        ("points", f"{facts.num_points:,}"),
    ]
    if facts.mean_error_px is not None and facts.median_error_px is not None:
        rows.append(("reprojection error", f"mean {facts.mean_error_px:.2f} px, median {facts.median_error_px:.2f} px"))
    if facts.precision is not None:
        rows.extend(_precision_rows(facts.precision))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _precision_rows(precision: PoseDeviation) -> list[tuple[str, str]]:
    rows = []
    if precision.position_share is not None:
        metres = f" ({format_number(1000 * precision.position_m)} mm)" if precision.position_m is not None else ""
        rows.append(("position ±", f"{format_number(100 * precision.position_share)} % of the scene size{metres}"))
    if precision.position_axes is not None:
        rows.append(("along x, y, z ±", ", ".join(map(format_number, precision.position_axes))))
    if precision.rotation_deg is not None:
        rows.append(("rotation ±", f"{format_number(precision.rotation_deg)}°"))
    if precision.weak:
        rows.append(("", "**weakly held: compare before relying on it**"))
    return rows


def pair_markdown(viewed: StoredModel, a: int, b: int, shared: SharedPoints) -> str:
    """How two images stand to each other."""
    poses = viewed.model.cam_from_world
    turn = float(rotation_angle_deg((poses[a, :, :3] @ poses[b, :, :3].T)[None])[0])
    rays = f", median angle between their rays {shared.angle_deg:.1f}°" if shared.angle_deg is not None else ""
    return f"{len(shared.point):,} shared points{rays}; turned by {turn:.1f}° against each other"

"""Whether the focal lengths that straight edges show are as far from the truth as is stated.

    python benchmarks/straight_lines.py pairs FOLDER[:0,3,6,9] ... --work WORK [--weights W]
    python benchmarks/straight_lines.py known FOLDER[:0,3,6,9] ...
    python benchmarks/straight_lines.py stereo FOLDER ... --focal-px 451
    python benchmarks/straight_lines.py made [--scenes 8]

`pairs`: FOLDER holds `images/`, and `gt.json` where poses are known; some images of it, or all. They are reconstructed
(with `--weights` with both detectors), and every two views of one camera are adjusted alone and asked what their edges
show, whether or not their matches leave the focal length open; true is what `gt.json` says, or the whole model.
`known`: nothing is matched, rotations are made of the true ones as for `made`. `stereo`: FOLDER/images holds the two
pictures of parallel cameras. `made`: segments of two views that are turned against each other by 16 to 60 degrees
(`turned`), or by one degree (`still`), and with them rotations that hold f tan(turn / 2), as matches of a walk around
something do, in worlds with and without right angles. Errors and deviations are of the logarithm, in percent.
"""

import argparse
import itertools
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from accuracy import pick
from anchorsfm.colmap.cameras import focal_length_px, focal_rows
from anchorsfm.features.segments import straight_edges
from anchorsfm.geometry.right_angles import UNCHECKED, LineFocal, Segments, focal_of_lines
from anchorsfm.io.images import load_image_set
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.edit import select_points, select_views
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.settings import TYPICAL_FOCAL
from anchorsfm.tracks.adjust import AdjustResult, readjust
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.focal_lines import focal_in_lines
from anchorsfm.tracks.uncertainty import estimate_uncertainty

TRIED = TYPICAL_FOCAL * np.exp(np.linspace(-0.8, 0.8, 65))
"""Over the long side, as in the program."""
_UP = (0.0, 1.0, 0.0)
WORLDS: dict[str, tuple[list[float], list[float]]] = {
    "right angles": ([0, 90], []),
    "one wall": ([0], []),
    "two walls at 60": ([0, 60], []),
    "two walls at 75": ([0, 75], []),
    "three walls at 75 and 60": ([0, 75, 135], []),
    "hexagon": ([0, 60, 120], []),
    "octagon": ([0, 45, 90, 135], []),
    "right angles, roof at 35": ([0, 90], [35, -35]),
    "one wall, roof at 45": ([0], [45, -45]),
    "any direction": ([], []),
}
"""Azimuths of walls, and slopes of roofs over the first, in degrees; and the vertical."""


@dataclass
class Tally:
    """Of what is used."""

    errors: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"used": [], "unchecked": []})
    asked: int = 0

    def row(self, name: str, seen: LineFocal | None, true_px: float) -> None:
        self.asked += 1
        if seen is None:
            print(f"| {name} | | | few edges |", flush=True)
            return
        error = math.log(seen.focal_px / true_px)
        kind = {"": "used", UNCHECKED: "unchecked"}.get(seen.doubt)
        if kind is not None:
            self.errors[kind].append((error, seen.deviation))
        print(f"| {name} | {100 * error:+.1f} | {100 * seen.deviation:.1f} | {seen.doubt or kind} |", flush=True)

    def sum(self, name: str) -> None:
        for kind, errors in self.errors.items():
            error, deviation = np.array(errors).reshape(-1, 2).T
            ratio = np.abs(error / deviation)
            if len(ratio):
                print(
                    f"| **{name}** | {100 * np.sqrt(np.mean(error**2)):.1f} (RMS) | {np.sqrt(np.mean(ratio**2)):.2f} "
                    f"deviations (RMS), at most {ratio.max():.2f} | {len(ratio)} of {self.asked} {kind}, "
                    f"{int((ratio > 3).sum())} off by more than three |",
                    flush=True,
                )
        if not any(self.errors.values()):
            print(f"| **{name}** | | | none of {self.asked} used |", flush=True)


def alone(result: AdjustResult, views: list[int], config: AdjustConfig) -> AdjustResult:
    """Two views of a model and one camera, with the points that both see, adjusted freely."""
    part = select_views(result.at_optimum, np.array(views))
    part = select_points(part, np.isin(part.tracks.obs_image, part.image_index))
    held = replace(result.held, pose=result.held.pose[views], camera=np.zeros(len(part.cameras), bool))
    options = replace(result.options, refine_focal=True, refine_principal_point=False)
    return readjust(replace(result, added_points=0, focal=()), part, config, options=options, held=held)


def pairs(args: argparse.Namespace) -> None:
    for entry in args.folders:
        name, _, picked = entry.partition(":")
        photos = pick(Path(name), args.work / entry.replace("/", "_").replace(",", "-").strip("_"), picked)
        truth = json.loads((photos / "gt.json").read_text()) if (photos / "gt.json").exists() else {}
        config = PipelineConfig(dense=False)
        if args.weights is not None:
            features = replace(config.classical.features, detector="auto")
            networks = replace(config.classical.networks, weights=args.weights)
            config = replace(config, classical=replace(config.classical, features=features, networks=networks))
        run = reconstruct(photos / "images", photos / "out", config)
        tally = Tally()
        for whole in run.adjusted:
            model = whole.model
            both = [
                pair
                for pair in itertools.combinations(range(len(model.image_index)), 2)
                if model.camera_index[pair[0]] == model.camera_index[pair[1]]
            ]
            if args.singles:
                for view in range(len(model.image_index)):
                    camera = model.cameras[model.camera_index[view]]
                    name_of = run.images.names[model.image_index[view]]
                    tally.row(name_of, by_itself(run.images, int(model.image_index[view])), focal_length_px(camera))
                continue
            for pair in both[:: max(-(-len(both) // args.pairs), 1)]:
                part = alone(whole, list(pair), config.adjust)
                if len(part.model.points) < config.adjust.min_observations:
                    continue
                names = [run.images.names[k] for k in part.model.image_index]
                camera = model.cameras[model.camera_index[pair[0]]]
                true_px = truth[names[0]]["K"][0][0] if truth else focal_length_px(camera)
                seen = focal_in_lines(part, run.images, config.adjust)
                tally.row(f"{Path(name).name} {', '.join(names)}: {matches_say(part, true_px)}", seen, true_px)
        tally.sum(entry)


def by_itself(images: ImageSet, image: int) -> LineFocal:
    """What the edges of one photograph show."""
    edges, size_wh = straight_edges(images, image), images.size_wh[image]
    segments = Segments(
        ends_px=edges.ends_px - size_wh / 2, view=np.zeros(len(edges.sigma), np.int64), sigma=edges.sigma
    )
    rotations = np.broadcast_to(np.eye(3), (len(TRIED), 1, 3, 3))
    return focal_of_lines(segments, TRIED * float(size_wh.max()), rotations)


def matches_say(part: AdjustResult, true_px: float) -> str:
    """Error of the free focal length, and the stated deviation."""
    (camera,), (deviations,) = part.model.cameras, estimate_uncertainty(part).camera_params
    focal_px = focal_length_px(camera)
    stated = np.mean(np.array(deviations)[focal_rows(camera)]) / focal_px if deviations else math.nan
    return f"{len(part.model.points)} points, free {100 * math.log(focal_px / true_px):+.1f} +- {100 * stated:.1f}"


def known(args: argparse.Namespace) -> None:
    for entry in args.folders:
        name, _, picked = entry.partition(":")
        images = load_image_set(Path(name) / "images")
        rendered = Path(name) / "truth.json"
        truth = json.loads((rendered if rendered.exists() else Path(name) / "gt.json").read_text())
        rows = [int(k) for k in picked.split(",")] if picked else range(images.num_images)
        both, tally = list(itertools.combinations(rows, 2)), Tally()
        for pair in both[:: max(-(-len(both) // args.pairs), 1)]:
            first, second = (truth[images.names[k]] for k in pair)
            focal_px = float(first["K"][0][0])
            turns = [np.array(view["R_cam_from_world"]) for view in (first, second)]
            tried_px = TRIED * float(images.size_wh[0].max())
            seen = focal_of_lines(_of_pair(images, pair), tried_px, _rotations(turns, focal_px, tried_px))
            turn_deg = np.degrees(Rotation.from_matrix(turns[1] @ turns[0].T).magnitude())
            tally.row(f"{Path(name).name} {pair[0]}, {pair[1]}: turned by {turn_deg:.0f}", seen, focal_px)
        tally.sum(entry)


def _of_pair(images: ImageSet, pair: tuple[int, int]) -> Segments:
    edges = [straight_edges(images, k) for k in pair]
    return Segments(
        ends_px=np.concatenate([one.ends_px for one in edges]) - images.size_wh[pair[0]] / 2,
        view=np.repeat([0, 1], [len(one.sigma) for one in edges]),
        sigma=np.concatenate([one.sigma for one in edges]),
    )


def stereo(args: argparse.Namespace) -> None:
    tally = Tally()
    for folder in args.folders:
        images = load_image_set(Path(folder) / "images")
        rotations = np.broadcast_to(np.eye(3), (len(TRIED), 2, 3, 3))
        seen = focal_of_lines(_of_pair(images, (0, 1)), TRIED * float(images.size_wh[0].max()), rotations)
        tally.row(Path(folder).name, seen, args.focal_px)
    tally.sum("parallel cameras")


def made(args: argparse.Namespace) -> None:
    for world, kind in itertools.product(WORLDS, ("turned", "still")):
        tally = Tally()
        for scene in range(args.scenes):
            rng = np.random.default_rng(1000 + scene)
            focal_px = 1024 * float(rng.choice([0.75, 1.0, 1.4]))
            azimuth, tilt = rng.uniform(20, 70), float(rng.choice([0, 0, 10, 20]))
            half = rng.uniform(8, 30) if kind == "turned" else 0.5
            turns = [_view(azimuth + side * half, tilt, rng) for side in (-1, 1)]
            count, clutter = int(rng.choice([60, 150])), float(rng.choice([0.3, 0.6]))
            segments = _segments(*WORLDS[world], focal_px, np.stack(turns), count, clutter, rng)
            seen = focal_of_lines(segments, 1024 * TRIED, _rotations(turns, focal_px, 1024 * TRIED))
            tally.row(f"{world}, {kind} {scene}", seen, focal_px)
        tally.sum(f"{world}, {kind}")


def _view(azimuth_deg: float, tilt_deg: float, rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    angles = [tilt_deg + rng.normal(0, 2), rng.normal(0, 1.5), azimuth_deg]
    return np.asarray(Rotation.from_euler("XZY", angles, degrees=True).as_matrix())


def _segments(
    walls: list[float],
    roofs: list[float],
    focal_px: float,
    turns: Float[np.ndarray, "2 3 3"],
    count: int,
    clutter: float,
    rng: np.random.Generator,
) -> Segments:
    """Some for each view, with noise, and an error of .3 degrees that edges of one direction share."""
    directions = [(math.cos(a), 0.0, math.sin(a)) for a in np.radians(walls)]
    directions += [
        (math.cos(a) * math.cos(math.radians(walls[0])), -math.sin(a), math.cos(a) * math.sin(math.radians(walls[0])))
        for a in np.radians(roofs)
    ]
    middle = rng.uniform([-512, -384], [512, 384], (2, count, 2))
    length = rng.uniform(30, 180, (2, count))
    sigma = np.hypot(math.radians(0.4), 1.4 / length)
    angle = rng.uniform(0, math.pi, (2, count))
    if directions:
        directions.append(_UP)
        which = rng.integers(0, len(directions), (2, count))
        there = np.einsum("vij,vsj->vsi", turns, np.array(directions)[which])
        along = focal_px * there[..., :2] - there[..., 2:] * middle
        shared = rng.normal(0, math.radians(0.3), (2, len(directions)))
        straight = np.arctan2(along[..., 1], along[..., 0]) + np.take_along_axis(shared, which, axis=1)
        straight += sigma * rng.standard_normal((2, count))
        angle = np.where(rng.random((2, count)) < clutter, angle, straight)
    half = length[..., None] / 2 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return Segments(
        ends_px=np.stack([middle - half, middle + half], axis=2).reshape(-1, 2, 2),
        view=np.repeat([0, 1], count),
        sigma=sigma.ravel(),
    )


def _rotations(
    turns: list[Float[np.ndarray, "3 3"]], focal_px: float, tried_px: Float[np.ndarray, " try"]
) -> Float[np.ndarray, "try 2 3 3"]:
    """Those that hold f tan(turn / 2)."""
    between = Rotation.from_matrix(turns[1] @ turns[0].T).as_rotvec()
    angle = float(np.linalg.norm(between))
    allowed = 2 * np.arctan(focal_px * math.tan(angle / 2) / tried_px)
    second = Rotation.from_rotvec(between / angle * allowed[:, None]).as_matrix()
    return np.stack([np.broadcast_to(np.eye(3), second.shape), second], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    of_pairs = kinds.add_parser("pairs")
    of_pairs.add_argument("folders", nargs="+")
    of_pairs.add_argument("--work", type=Path, required=True)
    of_pairs.add_argument("--weights", type=Path, help="folder with the released weights: use both detectors")
    of_pairs.add_argument("--pairs", type=int, default=15, help="most pairs of a model")
    of_pairs.add_argument(
        "--singles", action="store_true", help="each photograph by itself instead, and its own camera"
    )
    of_pairs.set_defaults(run=pairs)
    of_known = kinds.add_parser("known")
    of_known.add_argument("folders", nargs="+")
    of_known.add_argument("--pairs", type=int, default=15, help="most pairs of a folder")
    of_known.set_defaults(run=known)
    of_stereo = kinds.add_parser("stereo")
    of_stereo.add_argument("folders", nargs="+")
    of_stereo.add_argument("--focal-px", type=float, required=True)
    of_stereo.set_defaults(run=stereo)
    of_made = kinds.add_parser("made")
    of_made.add_argument("--scenes", type=int, default=8)
    of_made.set_defaults(run=made)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

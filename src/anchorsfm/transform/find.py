"""From what a user asks to the similarity that does it, and what it was found from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.geometry.upright import (
    Upward,
    level_rotation,
    normals_of,
    up_of_cameras,
    up_of_gravity,
    up_of_manhattan,
    up_of_plane,
)
from anchorsfm.io.pictures import read_header
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.printable import printable
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.earth import PlaceOnEarth
from anchorsfm.transform.picks import pick, view_named
from anchorsfm.transform.positions import Placed, describe_placed, place_by_positions

_STEEP = 0.2
"""Horizontal part of a viewing direction below which the upper border of the picture says where it looks."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A region of the new frame; what is outside is removed."""

    box: tuple[float, ...] = ()
    """The lower corner, then the upper one."""
    radius: float | None = None
    """About the origin."""

    @property
    def is_everything(self) -> bool:
        return not self.box and self.radius is None

    def keeps(self, xyz: Float[np.ndarray, "point 3"]) -> Bool[np.ndarray, "point"]:
        """Which points stay."""
        kept = np.ones(len(xyz), bool)
        if self.box:
            kept &= ((xyz >= self.box[:3]) & (xyz <= self.box[3:])).all(axis=1)
        if self.radius is not None:
            kept &= np.linalg.norm(xyz, axis=1) <= self.radius
        return kept


@dataclass(frozen=True, kw_only=True)
class Found:
    """A change of frame."""

    similarity: Similarity
    """From the frame the model has to the new one."""
    crop: Crop
    up: Upward | None = None
    """What up was found from; None: it was not looked for, or the positions have said it."""
    up_of_positions: bool = False
    metric: bool = False
    """Whether a measured distance, or recorded positions, say that the unit is the metre."""
    place: PlaceOnEarth | None = None
    """What is to be said of the place on the Earth; None: what was said stays."""
    takes_place: bool = False
    """The model comes into the frame of its recorded positions."""
    notes: tuple[str, ...] = ()
    """What was found, one line each."""
    warnings: tuple[str, ...] = ()
    found: tuple[dict[str, Any], ...] = ()
    """The same for the record."""


def find(stored: StoredModel, config: TransformConfig) -> Found:
    """The change of frame that `config` asks for.

    Raises InputError if a photograph, place or direction that it needs is not there, or a crop would leave no point.
    """
    if not stored.names:
        raise InputError(f"the model in {stored.folder} has no registered images: it has no frame to change")
    search = _Search(stored)
    if config.up is not None:
        search.turn_up(config.up)
    if config.gps:
        search.place()
    if config.north:
        search.turn_north(*config.north)
    if config.distance or config.camera_distance or config.scale is not None:
        search.rescale(config)
    if config.origin:
        search.shift(config.origin)
    crop = Crop(box=config.crop_box, radius=config.crop_radius)
    if not crop.is_everything:
        search.crop(crop)
    return Found(
        similarity=search.similarity,
        crop=crop,
        up=search.up,
        up_of_positions=search.placed is not None and search.placed.finds_up,
        metric=bool(config.distance or config.camera_distance or config.gps),
        place=search.describe_place(),
        takes_place=search.placed is not None,
        notes=tuple(search.notes),
        warnings=() if search.placed is None else search.placed.warnings,
        found=tuple(search.found),
    )


class _Search:
    """Collects one change after another."""

    def __init__(self, stored: StoredModel) -> None:
        self.stored = stored
        self.similarity = Similarity.of()
        self.up: Upward | None = None
        self.placed: Placed | None = None
        self._to_earth = self.similarity
        self.notes: list[str] = []
        self.found: list[dict[str, Any]] = []

    def turn_up(self, name: str) -> None:
        model = self.stored.model
        up = find_up(self.stored, name)
        self.up = up
        self._then(Similarity.of(level_rotation(model.cam_from_world, up.direction)))
        self.notes.append(f"up from {up.source}, within about {up.deviation_deg:.1f} degrees")
        self.found.append({"what": "up", "source": up.source, "deviation_deg": round(up.deviation_deg, 2)})

    def place(self) -> None:
        """Into the frame of the recorded positions."""
        self.placed = placed = place_by_positions(self.stored, self.similarity, is_level=self.up is not None)
        self._then(placed.similarity)
        self._to_earth = self.similarity
        self.notes += placed.notes
        self.found.append(
            {"what": "positions", "source": placed.source, "factor": placed.similarity.scale, "up": placed.finds_up}
        )

    def describe_place(self) -> PlaceOnEarth | None:
        if self.placed is None:
            return None
        return describe_placed(self.stored, self.placed, self._to_earth, self.similarity)

    def turn_north(self, name: str, degrees: str) -> None:
        heading = np.radians(_number("north", degrees))
        if self.up is None and not self.stored.is_level:
            self.notes.append("north turns about z, which is not known to be up in this model: give --up too")
        pose = self._poses()[view_named(self.stored, name)]
        ahead = pose[2, :2] if np.linalg.norm(pose[2, :2]) > _STEEP else -pose[1, :2]
        if np.linalg.norm(ahead) < 1e-6:
            raise InputError(f"--north {printable(name)}: it looks straight up or down and its border does not tell")
        turn = np.pi / 2 - heading - np.arctan2(ahead[1], ahead[0])
        cos, sin = np.cos(turn), np.sin(turn)
        self._then(Similarity.of(np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])))
        self.found.append({"what": "north", "image": name, "degrees": float(np.degrees(heading))})

    def rescale(self, config: TransformConfig) -> None:
        if config.scale is not None:
            self._then(Similarity.of(scale=config.scale))
            self.found.append({"what": "scale", "factor": config.scale})
            return
        factors, texts = [], []
        for first, first_xy, second, second_xy, metres in _groups(config.distance, 5):
            ends = [self._seen(first, first_xy, "distance"), self._seen(second, second_xy, "distance")]
            what = f"{first} {first_xy} to {second} {second_xy}"
            factors.append(self._factor(ends, _length("distance", metres), what))
            texts.append(what)
        for first, second, metres in _groups(config.camera_distance, 3):
            centres = camera_centres(self._poses())
            ends = [centres[view_named(self.stored, name)] for name in (first, second)]
            factors.append(self._factor(ends, _length("camera-distance", metres), f"{first} to {second}"))
            texts.append(f"{first} to {second}")
        factor = float(np.exp(np.mean(np.log(factors))))
        off = [float(one / factor - 1) for one in factors]
        self._then(Similarity.of(scale=factor))
        self.notes.append(f"scale from {len(factors)} measured distance{'' if len(factors) == 1 else 's'}")
        if len(factors) > 1:
            worst = int(np.abs(off).argmax())
            self.notes.append(
                f"the distances differ from the model by up to {100 * abs(off[worst]):.2g} % ({texts[worst]})"
            )
        self.found.append({"what": "scale", "factor": factor, "relative_differences": off})

    def _factor(self, ends: Sequence[np.ndarray], metres: float, what: str) -> float:
        apart = float(np.linalg.norm(ends[1] - ends[0]))
        size = float(np.ptp(camera_centres(self._poses()), axis=0).max())
        if apart <= 1e-9 * size or apart == 0:
            raise InputError(f"{printable(what)}: both are the same place in the model, so they say nothing of scale")
        return metres / apart

    def shift(self, words: tuple[str, ...]) -> None:
        if len(words) == 3:
            place = np.array([_number("origin", word) for word in words])
        elif len(words) == 2:
            place = self._seen(words[0], words[1], "origin")
        else:
            place = camera_centres(self._poses())[view_named(self.stored, words[0])]
        self._then(Similarity.of(shift=-place))
        self.found.append({"what": "origin", "place": list(words)})

    def crop(self, crop: Crop) -> None:
        xyz = self.similarity.points(self.stored.model.points)
        kept = crop.keeps(xyz)
        if not kept.any():
            raise InputError(f"the crop leaves none of the {len(xyz)} points of the model{_whereabouts(crop, xyz)}")
        self.notes.append(f"the crop removed {np.count_nonzero(~kept)} of {len(xyz)} points")

    def _seen(self, name: str, pixel: str, option: str) -> Float[np.ndarray, "3"]:
        """What is seen at a pixel, in the frame reached so far."""
        words = pixel.split(",")
        if len(words) != 2:
            raise InputError(f"--{option}: {printable(pixel)} is no pixel: expected x,y such as 812,455.5")
        place = pick(self.stored, name, np.array([_number(option, word) for word in words]))
        self.notes.append(f"{printable(name)} {pixel}: depth of {place.found_in}, {place.off_px:.1f} px away")
        return self.similarity.points(place.xyz)

    def _poses(self) -> Float[np.ndarray, "view 3 4"]:
        return self.similarity.poses(self.stored.model.cam_from_world)

    def _then(self, change: Similarity) -> None:
        self.similarity = change.after(self.similarity)


def _whereabouts(crop: Crop, xyz: Float[np.ndarray, "point 3"]) -> str:
    """Where a crop would have left something."""
    if not len(xyz):
        return ""
    distance = np.linalg.norm(xyz, axis=1)
    if crop.radius is not None and distance.min() > crop.radius:
        return f", which are {distance.min():.4g} to {distance.max():.4g} from the origin of the new frame"
    lower, upper = (" ".join(f"{value:.4g}" for value in end) for end in (xyz.min(axis=0), xyz.max(axis=0)))
    return f", which lie between {lower} and {upper} in the new frame"


def find_up(stored: StoredModel, name: str) -> Upward:
    """Up of a model by one of the names of `TransformConfig.up`.

    Raises InputError if what it is found from is not there.
    """
    model = stored.model
    by_cameras = up_of_cameras(model.cam_from_world, model.points)
    if name == "cameras":
        return by_cameras
    if name == "gravity":
        return _up_of_records(stored, by_cameras)
    cloud = stored.read_cloud()
    if name == "plane":
        points = model.points if cloud is None else cloud.xyz.astype(np.float64)
        up = up_of_plane(points, by_cameras.direction)
        reason = "the points show no plane that is about level"
    else:
        up = up_of_manhattan(_normals(stored), by_cameras.direction)
        reason = "the surfaces do not face three directions at right angles"
    if up is None:
        raise InputError(f"--up {name}: {reason}; take another way, such as --up cameras")
    return up


def _up_of_records(stored: StoredModel, by_cameras: Upward) -> Upward:
    """From the photographs, of which those that are not there, or are turned otherwise, say nothing."""
    model, root = stored.model, stored.image_root
    down = np.full((len(model.image_index), 3), np.nan)
    read = 0
    files = [] if root is None else [root / name for name in stored.view_names]
    for row, file in enumerate(files):
        camera = model.cameras[model.camera_index[row]]
        try:
            header = read_header(file)
        except InputError:
            continue
        read += 1
        if header.down is not None and header.size_wh == (camera.width, camera.height):
            down[row] = header.down
    up, count = (
        up_of_gravity(model.cam_from_world, down, by_cameras.direction),
        int(np.isfinite(down).all(axis=1).sum()),
    )
    if up is None:
        reason = f"of {read} photographs that could be read {count} record gravity, as iPhones do"
        contradiction = "; their records contradict each other, or the cameras" if count >= 3 else ""
        raise InputError(f"--up gravity: {reason}{contradiction}; take another way, such as --up cameras")
    return up


def _normals(stored: StoredModel) -> Float[np.ndarray, "point 3"]:
    cloud = stored.read_cloud()
    if cloud is not None and {"nx", "ny", "nz"} <= cloud.others.keys():
        return np.stack([cloud.others[f"n{axis}"] for axis in "xyz"], axis=1).astype(np.float64)
    return normals_of(stored.model.points if cloud is None else cloud.xyz.astype(np.float64))


def _groups(words: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (words[first : first + size] for first in range(0, len(words), size))


def _number(option: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or abs(value) > 1e12:
        raise InputError(f"--{option}: {printable(word)} is no number")
    return value


def _length(option: str, word: str) -> float:
    value = _number(option, word)
    if not value > 0:
        raise InputError(f"--{option}: a distance of {printable(word)} metres cannot be measured")
    return value

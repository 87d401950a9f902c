"""What a user can ask of a transform: light to import."""

from dataclasses import dataclass
from typing import Annotated, Literal

from anchorsfm.scene.settings import NotEmpty, Range, Settings

UpName = Literal["gravity", "cameras", "plane", "manhattan"]
_Word = Annotated[str, NotEmpty()]
_DISTANCE, _CAMERA_DISTANCE = 5, 3
"""Words of one measured distance."""


@dataclass(frozen=True, kw_only=True)
class TransformConfig(Settings):
    """The new frame of a model: up, then positions, north, scale, origin, and the crop in the frame that they make."""

    model: Annotated[int, Range(0, 1_000_000)] = 0
    """Number of the model in OUT/sparse; others stay as they are."""
    up: UpName | None = None
    """Turn the model so that z is up. gravity: as iPhones recorded it in the photographs, which must be where they
    were; cameras: as the cameras were held or flew; plane: the normal of the largest
    plane of points that is about level; manhattan: the upward one of the three directions that most surfaces face."""
    north: tuple[_Word, ...] = ()
    """IMAGE DEGREES: the photograph looks this many degrees clockwise from north (that of a compass); y is north then.
    Of one that looks straight down the upper border of the picture counts."""
    distance: tuple[_Word, ...] = ()
    """IMAGE_A x,y IMAGE_B x,y METRES: what is seen at pixel x,y of A (it may be the same photograph) is this far from
    what is seen at x,y of B; the model is in metres then. Several distances can follow each other."""
    camera_distance: tuple[_Word, ...] = ()
    """IMAGE_A IMAGE_B METRES: the two photographs were taken this far from each other. Several can follow each
    other."""
    gps: bool = False
    """Scale, up, north and origin from the positions that the photographs record (GPS), which must be where they were:
    metres, x east, y north, z up. With up only scale, north and origin."""
    scale: Annotated[float | None, Range(1e-9, 1e9)] = None
    """Multiply all lengths by this; the unit is no metre then, unless this is 1."""
    origin: tuple[_Word, ...] = ()
    """IMAGE: the place of the photograph becomes the origin; IMAGE x,y: what is seen at that pixel; X Y Z: this place,
    in the frame that the other options make."""
    crop_box: tuple[Annotated[float, Range(-1e12, 1e12)], ...] = ()
    """X0 Y0 Z0 X1 Y1 Z1 in the new frame: points and surfaces outside this box are removed. Cameras stay."""
    crop_radius: Annotated[float | None, Range(0, 1e12, above=True)] = None
    """Points and surfaces further than this from the origin of the new frame are removed. Cameras stay."""
    reset: bool = False
    """Take back all that was changed since the model was made, instead. A crop cannot be taken back."""

    def check_together(self) -> None:
        self._require_words("distance", _DISTANCE, "IMAGE_A x,y IMAGE_B x,y METRES")
        self._require_words("camera_distance", _CAMERA_DISTANCE, "IMAGE_A IMAGE_B METRES")
        if self.north and len(self.north) != 2:
            raise self.refused("north", "expected IMAGE DEGREES")
        if len(self.origin) > 3:
            raise self.refused("origin", "expected IMAGE, IMAGE x,y or X Y Z")
        if self.crop_box and len(self.crop_box) != 6:
            raise self.refused("crop_box", "expected X0 Y0 Z0 X1 Y1 Z1")
        if self.crop_box and not all(low < high for low, high in zip(self.crop_box, self.crop_box[3:], strict=False)):
            raise self.refused("crop_box", "must ascend: the lower corner first")
        if self.scale is not None and (self.distance or self.camera_distance):
            raise self.refused("scale", "a measured distance says the scale already: give one of them")
        if self.gps and self._sets_scale:
            raise self.refused(
                "gps", "recorded positions say the scale already: give a distance or scale in a later command"
            )
        if self.gps and self.north:
            raise self.refused("gps", "recorded positions say where north is: leave out one of them")
        if self.reset and self.asks_for_something:
            raise self.refused("reset", "takes everything back: give no other change with it")

    @property
    def asks_for_something(self) -> bool:
        """Whether anything is to be changed but for a reset."""
        wanted = (self.up, self.north, self.distance, self.camera_distance, self.scale, self.origin)
        return self.gps or any(value not in (None, ()) for value in (*wanted, self.crop_box, self.crop_radius))

    @property
    def _sets_scale(self) -> bool:
        return bool(self.distance or self.camera_distance or self.scale is not None)

    def _require_words(self, name: str, each: int, form: str) -> None:
        if len(getattr(self, name)) % each:
            raise self.refused(name, f"expected {form}")

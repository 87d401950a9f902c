"""What EXIF says about a camera, and the focal length in pixels that follows.

Three sources. All scale with the picture, so a copy downscaled after capture needs no correction unless the source
counts captured pixels.

1. `FocalLengthIn35mmFilm` f35: the focal length that sees the same *diagonal* field of view on 36 x 24 mm film (CIPA
   DCG-001), so f_px = f35 * diagonal_px / 43.2666 mm. COLMAP 4 uses the same rule; for 3:2 pictures it equals
   f35 * width / 36. Makers state the value of the whole sensor. Pictures wider than 3:2 (16:9 stills) come as a
   rule from a 4:3 sensor cropped in height, whose diagonal is 5/4 of the width; then f_px = f35 * width / 34.61.
2. `FocalLength` in mm and `FocalPlaneXResolution` in captured pixels per unit of length. Programs that make smaller
   copies often write the new size as the captured one and leave the resolution, which makes the sensor a small piece of
   itself: so where the sensor is known, this source must agree with it.
3. `FocalLength` in mm and the sensor width of a known camera, of a table of others.

The first is rounded to whole millimetres and by some makers to a whole "crop factor" (a Nikon at 40 mm says 60, its
sensor says 62), so where the third agrees with it roughly, the third is taken; where they disagree the picture was
cropped or zoomed digitally, which only the first knows. Small sensors of foreign tables have no such say: phones have
several, and what is known of them is rougher than the first.

`DigitalZoomRatio` says that the middle of the picture was enlarged. Some makers multiply the first source by it and
others do not, and the second counts pixels that there were not: such a picture has the focal length of the third times
the ratio, or of the first if the third tells which of both it is. Otherwise nothing is recorded.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from anchorsfm.io.gravity import apple_acceleration, down_in_picture

_FILM_DIAGONAL_MM = math.hypot(36, 24)
_MM_PER_RESOLUTION_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_AGREEMENT = 0.15
_LEAST_CROP = 0.55
"""Smallest part of the width of a sensor that cameras record pictures of by their own choice (1.6 times closer)."""
_EOS_LEAST_MM = 20.0
"""Width of the smallest sensors of Canon's EOS cameras, which do not record source 1."""
_PLAUSIBLE_FOCAL_RANGE = (0.25, 20.0)
"""Focal length in units of the longer side; values beyond are typing errors of some software."""
_OF_LENS, _OF_SENSOR, _ROUNDING_MM, _GUESSED = 0.015, 0.015, 0.29, 0.02
"""Standard deviations, as shares: of a lens from what its maker says and of what focusing changes; of the width of a
sensor; of the rule for pictures wider than film. And of a whole number of millimetres, in these."""

_SMALLEST, _LARGEST = 1 / 2**32, 2.0**32
"""Numbers are quotients of 32-bit integers; others come from damage and would over- or underflow in products."""

_ORIENTATION, _MAKE, _MODEL = 274, 271, 272
_SOFTWARE, _DOCUMENT = 305, 269
_FRAMES_SOFTWARE = "AnchorSfM frames"
"""Of frames that we took of videos; their document name says which video."""
_VIEWS_SOFTWARE = "AnchorSfM views"
"""The same of views of panoramas."""
_GPS_IFD = 0x8825
_EXIF_IFD, _FOCAL_LENGTH, _FOCAL_LENGTH_35 = 0x8769, 37386, 41989
_DIGITAL_ZOOM = 41988
_LEAST_ZOOM, _MOST_ZOOM = 1.005, 200.0
"""Other ratios are none, or damage."""
_TAKEN, _TAKEN_FRACTION = 36867, 37521
_MAKER_NOTE, _LENS = 37500, 42036
_PIXEL_X, _PIXEL_Y, _FOCAL_PLANE_X, _FOCAL_PLANE_UNIT = 40962, 40963, 41486, 41488

_ONE_SENSOR_MM = 10.0
"""Cameras with larger sensors have one."""


@dataclass(frozen=True, kw_only=True)
class Exif:
    """The tags that concern geometry; NaN and empty strings where a tag is missing or unusable."""

    orientation: int = 1
    make: str = ""
    model: str = ""
    focal_mm: float = math.nan
    focal_35mm: float = math.nan
    captured_wh: tuple[int, int] | None = None
    """Size when the picture was taken, before any downscaling."""
    pixels_per_mm: float = math.nan
    """Captured pixels per millimetre of the sensor, horizontally."""
    digital_zoom: float = 1.0
    """How many times the middle of the picture was enlarged."""
    taken_s: float = math.nan
    """When the picture was taken, in seconds by the camera's own clock: good for an order only."""

    held: int = 1
    """How the camera was held: the orientation, also of pictures that were turned upright when they were opened."""
    lens: str = ""
    acceleration_g: tuple[float, float, float] | None = None
    """What the accelerometer of a phone recorded (`gravity`)."""
    video: str = ""
    """Of a frame of a video: which one; each has a camera of its own."""

    @property
    def has_focal_length(self) -> bool:
        """Whether a focal length is recorded, of whatever use it is."""
        return math.isfinite(self.focal_mm) or math.isfinite(self.focal_35mm)

    @property
    def names_camera(self) -> bool:
        """Whether anything tells one camera from another."""
        return bool(self.video or self.make or self.model) or self.has_focal_length


def read_exif(image: Image.Image) -> Exif:
    """Tags of a loaded picture. A damaged EXIF block counts as absent: the pixels are still good.

    TIFF pictures are turned upright by Pillow when they are loaded, which clears their orientation: load first.
    """
    try:
        tags = image.getexif()
        details = tags.get_ifd(_EXIF_IFD)
    except Exception:  # parsers of foreign blocks raise anything from struct.error to SyntaxError
        return Exif()
    unit = _MM_PER_RESOLUTION_UNIT.get(_integer(_tag(details, _FOCAL_PLANE_UNIT), 2), math.nan)
    orientation = _integer(_tag(tags, _ORIENTATION), 1)
    return Exif(
        orientation=orientation if 1 <= orientation <= 8 else 1,
        make=_text(_tag(tags, _MAKE)),
        model=_text(_tag(tags, _MODEL)),
        focal_mm=_number(_tag(details, _FOCAL_LENGTH)),
        focal_35mm=_number(_tag(details, _FOCAL_LENGTH_35)),
        captured_wh=_size(_tag(details, _PIXEL_X), _tag(details, _PIXEL_Y)),
        pixels_per_mm=_number(_tag(details, _FOCAL_PLANE_X)) / unit,
        digital_zoom=_zoom(_tag(details, _DIGITAL_ZOOM)),
        taken_s=_seconds(_text(_tag(details, _TAKEN)), _text(_tag(details, _TAKEN_FRACTION))),
        held=_integer(image.info.get("original_orientation"), orientation),
        lens=_text(_tag(details, _LENS)),
        acceleration_g=apple_acceleration(_tag(details, _MAKER_NOTE)),
        video=_text(_tag(tags, _DOCUMENT)) if _text(_tag(tags, _SOFTWARE)) == _FRAMES_SOFTWARE else "",
    )


def frame_exif(video: str, taken: datetime | None, make: str, model: str) -> Image.Exif:
    """The tags of a frame of a video: which video, and when and with what it was taken as far as that is known."""
    exif = Image.Exif()
    exif[_SOFTWARE], exif[_DOCUMENT] = _FRAMES_SOFTWARE, video
    for tag, value in ((_MAKE, make), (_MODEL, model)):
        if value:
            exif[tag] = value
    if taken is not None:
        details = exif.get_ifd(_EXIF_IFD)
        details[_TAKEN] = taken.strftime("%Y:%m:%d %H:%M:%S")
        details[_TAKEN_FRACTION] = f"{taken.microsecond // 1000:03d}"
    return exif


def view_exif(path: Path, panorama: str) -> Image.Exif:
    """The tags of a view of a panorama: which one, and its place, time and camera as far as the file says them."""
    exif = Image.Exif()
    exif[_SOFTWARE], exif[_DOCUMENT] = _VIEWS_SOFTWARE, panorama
    try:
        with Image.open(path) as image:
            tags = image.getexif()
            for tag in (_MAKE, _MODEL):
                if text := _text(_tag(tags, tag)):
                    exif[tag] = text
            for block, wanted in ((_EXIF_IFD, (_TAKEN, _TAKEN_FRACTION)), (_GPS_IFD, None)):
                values = tags.get_ifd(block)
                kept = {tag: values[tag] for tag in (values if wanted is None else wanted) if tag in values}
                if kept:
                    exif.get_ifd(block).update(kept)
        exif.tobytes()
    except Exception:  # a foreign block that cannot be copied; the pixels are still good
        exif = Image.Exif()
        exif[_SOFTWARE], exif[_DOCUMENT] = _VIEWS_SOFTWARE, panorama
    return exif


def exif_down(exif: Exif, size_wh: tuple[int, int]) -> tuple[float, float, float] | None:
    """Down in the camera of a picture of the given (upright) size; None where nothing says it."""
    return down_in_picture(exif.acceleration_g, exif.held, size_wh, exif.lens)


@dataclass(frozen=True, kw_only=True)
class RecordedFocal:
    """A focal length as a file records it."""

    focal_px: float = math.nan
    deviation: float = math.nan
    """Standard deviation as a share of it."""


def exif_focal_px(exif: Exif, size_wh: tuple[int, int], table_mm: float = math.nan) -> float:
    """Focal length in pixels of a picture of the given (current) size, NaN if unknown or absurd.

    `table_mm`: width of the sensor as a table of cameras has it.
    """
    return exif_focal(exif, size_wh, table_mm).focal_px


def exif_focal(exif: Exif, size_wh: tuple[int, int], table_mm: float = math.nan) -> RecordedFocal:
    """`exif_focal_px` and how far it may be off: makers round, and lenses differ from their names."""
    longer, is_sure = max(size_wh), _has_one_sensor(exif, table_mm)
    equivalent, known = _focal_from_35mm(exif, size_wh), exif.focal_mm * longer / table_mm
    shown = _shown_width_mm(exif, longer)
    if _is_rewritten(exif, shown, table_mm):
        shown = math.nan
    elif is_sure and abs(shown / table_mm - 1) > _AGREEMENT:  # a part of the sensor, or a copy: nobody knows
        shown = known = math.nan
    if exif.digital_zoom != 1:
        shown = math.nan
        equivalent, known = _zoomed(equivalent, known, exif.digital_zoom, is_sure=is_sure)
    rounding = _ROUNDING_MM / exif.focal_35mm
    guessed = _GUESSED if _is_wider_than_film(size_wh) else 0.0
    best_first = [
        RecordedFocal(focal_px=equivalent, deviation=math.hypot(_OF_LENS, rounding, guessed)),
        RecordedFocal(focal_px=exif.focal_mm * longer / shown, deviation=_OF_LENS),
        RecordedFocal(focal_px=known, deviation=math.hypot(_OF_LENS, _OF_SENSOR)),
    ]
    if is_sure and abs(known / equivalent - 1) < _AGREEMENT:
        best_first.insert(0, best_first[2])
    shortest, longest = _PLAUSIBLE_FOCAL_RANGE
    return next((found for found in best_first if shortest <= found.focal_px / longer <= longest), RecordedFocal())


def _zoomed(equivalent: float, known: float, zoom: float, *, is_sure: bool) -> tuple[float, float]:
    """Focal lengths of the first and third source of a picture that was enlarged; NaN where nobody knows."""
    own = known * zoom
    of_both = [abs(math.log(value / own)) for value in (equivalent, equivalent * zoom)]  # multiplied already, or not
    if not min(of_both) < _AGREEMENT or abs(of_both[0] - of_both[1]) < _AGREEMENT:
        return math.nan, own if is_sure else math.nan
    return equivalent if of_both[0] < of_both[1] else equivalent * zoom, own


def _is_wider_than_film(size_wh: tuple[int, int]) -> bool:
    return max(size_wh) > 1.55 * min(size_wh)


def _focal_from_35mm(exif: Exif, size_wh: tuple[int, int]) -> float:
    longer, shorter = max(size_wh), min(size_wh)
    diagonal = 1.25 * longer if _is_wider_than_film(size_wh) else math.hypot(longer, shorter)
    return exif.focal_35mm * diagonal / _FILM_DIAGONAL_MM


def _shown_width_mm(exif: Exif, longer: int) -> float:
    """Width of what the picture shows on the sensor, by the resolution of the sensor."""
    return (max(exif.captured_wh) if exif.captured_wh else longer) / exif.pixels_per_mm


def _is_rewritten(exif: Exif, shown_mm: float, width_mm: float) -> bool:
    """Whether no camera takes so narrow a picture: a program has replaced the captured size by that of a copy."""
    least_mm = _EOS_LEAST_MM if exif.model.upper().startswith("CANON EOS") else 0.0
    return shown_mm < (_LEAST_CROP * width_mm if math.isfinite(width_mm) else least_mm)


def _has_one_sensor(exif: Exif, table_mm: float) -> bool:
    """Whether a table can mean no other sensor of the same name; phones have several. DJI names the camera module."""
    is_module = exif.make.upper() == "DJI" and exif.model.upper().startswith("FC")
    return table_mm > (0.0 if is_module else _ONE_SENSOR_MM)


def _tag(block: Mapping[int, object], tag: int) -> object:
    """The value of a tag, which Pillow decodes only now; None if it is missing or damaged."""
    try:
        return block.get(tag)
    except Exception:
        return None


def _number(value: object) -> float:
    """A positive number of a size that EXIF can say, else NaN; EXIF writes 0 (or 0/0) for unknown."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):
        return math.nan
    return number if _SMALLEST < number < _LARGEST else math.nan


def _zoom(value: object) -> float:
    """A ratio of digital zoom; 1 where there was none, which cameras record as 0 too."""
    ratio = _number(value)
    return ratio if _LEAST_ZOOM <= ratio <= _MOST_ZOOM else 1.0


def _size(width: object, height: object) -> tuple[int, int] | None:
    width_px, height_px = _integer(width, 0), _integer(height, 0)
    return (width_px, height_px) if width_px > 0 and height_px > 0 else None


def _integer(value: object, default: int) -> int:
    number = _number(value)
    return int(number) if math.isfinite(number) else default


def _seconds(taken: str, fraction: str) -> float:
    """A date and time, and the digits after the point of its seconds; NaN if it is none."""
    try:
        whole = datetime.strptime(taken, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return math.nan
    return whole + (float(f"0.{fraction}") if fraction.isascii() and fraction.isdecimal() else 0.0)


def _text(value: object) -> str:
    """A tag as text; cameras pad with zeros and blanks."""
    return value.split("\0")[0].strip() if isinstance(value, str) else ""

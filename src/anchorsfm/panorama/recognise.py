"""Which photographs are panoramas of the whole sphere, in the equirectangular projection.

Programs say so in XMP (Google's Photo Sphere schema, GPano). Without it the picture itself does: it is twice as wide as
high, its left border continues its right one, and its top and bottom rows each show a single point of the sphere.
Photographs can be twice as wide as high too, but show none of this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from anchorsfm.io.exif import read_exif
from anchorsfm.io.pictures import load_file_rgb
from anchorsfm.io.xmp import read_xmp
from anchorsfm.scene.errors import InputError

_GPANO = "http://ns.google.com/photos/1.0/panorama/"
_ASPECT_TOLERANCE = 0.005
_LEAST_WIDTH = 64
_LOOKED_AT_WH = (512, 256)
_SEAM = 2.0
"""Difference of the borders, relative to that of neighbouring columns, that is allowed ..."""
_SEAM_LEVELS = 2.0
"""... and grey levels beside it: pictures are compressed."""
_POLE = 0.5
"""Spread of the top and bottom rows, relative to that of the picture."""


@dataclass(frozen=True, kw_only=True)
class Panorama:
    """A photograph of the whole sphere."""

    path: Path
    size_wh: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What there is among some photographs."""

    panoramas: tuple[Panorama, ...]
    others: tuple[Path, ...]
    """Photographs that are none, and what cannot be read."""
    parts: tuple[Path, ...]
    """Those of the others that say that they are parts of a sphere."""


def recognise(paths: Sequence[Path], *, all_of_aspect: bool) -> Recognised:
    """Which photographs are panoramas, each in order.

    Those of one size that do not say what they are, are what most of them look like. `all_of_aspect`: everything that
    is twice as wide as high is a panorama.
    """
    headers = [_header(path) for path in paths]
    of_size: dict[tuple[int, int], list[bool]] = {}
    for header in headers:
        if header is not None and header.is_of_aspect and not header.is_said and not all_of_aspect:
            looks = _looks_whole(header)
            if looks is not None:
                of_size.setdefault(header.size_wh, []).append(looks)

    def is_panorama(header: "_Header") -> bool:
        if not header.is_of_aspect or header.is_part:
            return False
        looks = of_size.get(header.size_wh, [])
        return header.is_said or all_of_aspect or 2 * sum(looks) > len(looks)

    found = {h.path: Panorama(path=h.path, size_wh=h.size_wh) for h in headers if h is not None and is_panorama(h)}
    return Recognised(
        panoramas=tuple(found.values()),
        others=tuple(path for path in paths if path not in found),
        parts=tuple(header.path for header in headers if header is not None and header.is_part),
    )


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What a photograph says without being decoded."""

    path: Path
    size_wh: tuple[int, int]
    is_said: bool
    """It says that it is equirectangular ..."""
    is_part: bool
    """... and a part of a sphere."""

    @property
    def is_of_aspect(self) -> bool:
        width, height = self.size_wh
        return width >= _LEAST_WIDTH and abs(width / (2 * height) - 1) <= _ASPECT_TOLERANCE


def _header(path: Path) -> _Header | None:
    """None for what cannot be read: whoever reads the photographs says why."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            size_wh = image.size[::-1] if read_exif(image).orientation >= 5 else image.size
            packet = image.info.get("xmp")
    except Exception:  # decoders of damaged files raise almost anything
        return None
    tags, _ = read_xmp(packet, _GPANO, "GPano")
    is_said = tags.get("ProjectionType", "").lower() == "equirectangular"
    return _Header(path=path, size_wh=size_wh, is_said=is_said, is_part=is_said and not _is_whole(tags, size_wh))


def _is_whole(tags: Mapping[str, str], size_wh: tuple[int, int]) -> bool:
    """Whether the picture is not a part of the panorama that its tags describe."""
    for kind in ("Width", "Height"):
        try:
            full, part = (float(tags.get(f"{what}{kind}Pixels", "nan")) for what in ("FullPano", "CroppedAreaImage"))
        except ValueError:
            continue
        if part < full * (1 - _ASPECT_TOLERANCE):
            return False
    return abs(size_wh[0] / (2 * size_wh[1]) - 1) <= _ASPECT_TOLERANCE


def _looks_whole(header: _Header) -> bool | None:
    """`closes`, None for what cannot be read."""
    try:
        return closes(load_file_rgb(header.path, header.size_wh, _LOOKED_AT_WH))
    except InputError:
        return None


def closes(rgb: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a picture, small, is one of the whole sphere as far as its borders tell."""
    picture = rgb.astype(np.float64)
    steps = np.abs(np.diff(picture, axis=1)).mean(axis=(0, 2))
    seam = float(np.abs(picture[:, 0] - picture[:, -1]).mean())
    spread = float(picture.std(axis=(0, 1)).mean())
    poles = [float(picture[row].std(axis=0).mean()) for row in (0, -1)]
    across = float(np.abs(picture[:, 0] - picture[:, picture.shape[1] // 3]).mean())
    return (
        seam <= _SEAM * float(np.median(steps)) + _SEAM_LEVELS
        and seam < across / 2
        and max(poles) <= _POLE * spread + _SEAM_LEVELS
    )

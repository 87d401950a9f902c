"""Parts of photographs that are not looked at."""

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class ImageMask:
    """Which pixels of one upright photograph count. It is kept compressed: there may be thousands."""

    size_wh: tuple[int, int]
    """Of the mask; the photograph may be larger or smaller, with the same aspect."""
    packed: bytes
    """Its pixels in bits, compressed."""

    @staticmethod
    def of(use: Bool[np.ndarray, "h w"]) -> "ImageMask":
        """A mask from pixels that are True where the photograph is looked at."""
        return ImageMask(size_wh=(use.shape[1], use.shape[0]), packed=zlib.compress(np.packbits(use).tobytes(), 1))

    def pixels(self, turns: int = 0) -> Bool[np.ndarray, "h w"]:
        """True where the photograph is looked at; turned counter-clockwise by quarter turns."""
        width, height = self.size_wh
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        return np.rot90(np.unpackbits(bits, count=width * height).reshape(height, width).astype(bool), turns)


def uses(
    pixels: Bool[np.ndarray, "h w"], xy: Float[np.ndarray, "point 2"], size_wh: Int[np.ndarray, "2"]
) -> Bool[np.ndarray, "point"]:
    """Whether a mask leaves places of a photograph of some size, in its pixels; places outside count as the border."""
    height, width = pixels.shape
    at = np.nan_to_num(xy / size_wh * [width, height], nan=-1.0)
    column, row = np.clip(np.floor(at), 0, [width - 1, height - 1]).astype(np.int64).T
    return np.asarray(pixels[row, column])

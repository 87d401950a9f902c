"""Pictures of the viewer for the documentation, taken in headless Chromium:

    python docs/viewer_pictures.py OUT [--images PHOTOS]

OUT is an output folder of `anchorsfm reconstruct`, for instance of the fountain-P11 photographs. Writes
docs/images/viewer-dense.png and docs/images/viewer-image.png.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from anchorsfm.viewer.server import find_free_port, open_viewer
from browser import Page

FOLDER = Path(__file__).resolve().parent / "images"
SIZE_WH = (1440, 900)
NUM_COLOURS = 256
"""A palette keeps the files small."""


def settled(page: Page, seconds: float = 60.0) -> np.ndarray:
    """What the page shows once it no longer changes."""
    end = time.monotonic() + seconds
    previous = page.screenshot()
    while time.monotonic() < end:
        time.sleep(1.5)
        current = page.screenshot()
        if (current == previous).all():
            break
        previous = current
    return current


def save(page: Page, name: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    picture = Image.fromarray(settled(page)).quantize(NUM_COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3)
    picture.save(FOLDER / name, optimize=True)
    print(f"{FOLDER / name}: {(FOLDER / name).stat().st_size / 1000:.0f} kB")


def take(panel: Any, page: Page) -> None:
    """The dense cloud with the cameras; one image with its residuals and the matches with a neighbour."""
    page.wait_for("document.body.innerText.includes('points drawn')")
    settled(page)
    page.evaluate("document.querySelector('.mantine-Notification-closeButton')?.click()")
    panel.points.value, panel.dense.value = False, True
    save(page, "viewer-dense.png")
    panel.points.value, panel.dense.value = True, False
    panel.point_colour.value = "track length"
    images = panel.images
    images.pick(0, len(panel.stage.models[0].viewed.names) // 2)
    images.neighbour.value = images.neighbour.options[min(3, len(images.neighbour.options) - 1)]
    save(page, "viewer-image.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    viewer = open_viewer(arguments.output, images=arguments.images, port=find_free_port("127.0.0.1", 8080))
    try:
        with Page(viewer.url, size_wh=SIZE_WH) as page:
            take(viewer.panel, page)
    finally:
        viewer.stop()


if __name__ == "__main__":
    main()

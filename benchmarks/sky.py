"""Sky masks on real photographs.

    python benchmarks/sky.py DATA WORK [--seeds 0 1 2]

DATA has a folder with images/ for each set. Prints how much of each set is masked. Then sacre-coeur is reconstructed
with and without masks. Its sky was outlined by hand (sky_of_sacre_coeur.json: polygons in percent of width and height,
a little off what stands before it, not made from the masks): printed are the share of it that is masked; and of each
run the pixels of clean depth maps, those in the outlines and in masked pixels (4 pixels off their border), and points
of the cloud.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from PIL import Image, ImageDraw

from anchorsfm.io.images import load_image_set
from anchorsfm.io.ply import read_ply
from anchorsfm.masking.sky import sky_of_photographs
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.progress import SILENT

SCENE = "sacre-coeur"
OUTLINES = Path(__file__).with_name("sky_of_sacre_coeur.json")
OFF_BORDER = np.ones((9, 9), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="runs; none: only what is masked")
    args = parser.parse_args()
    print("| set | photographs | with sky | share of all pixels |\n|---|---:|---:|---:|")
    for folder in sorted(path for path in args.data.iterdir() if (path / "images").is_dir()):
        images = load_image_set(folder / "images")
        masks = sky_of_photographs(images, 1, SILENT)
        share = sum((~mask).mean() for mask in masks.values()) / images.num_images
        print(f"| {folder.name} | {images.num_images} | {len(masks)} | {share:.3f} |", flush=True)
        if folder.name == SCENE:
            sky = {images.names[k]: ~mask for k, mask in masks.items()}
    inside = [sky[name][outlined(name, sky[name].shape[::-1])].mean() for name in sky]
    print(f"\nof the outlined sky of {SCENE} {np.mean(inside):.2%} is masked, in each at least {min(inside):.2%}\n")
    print("| seed | masks | registered | points | pixels with depth | in outlines | in masked pixels | cloud points |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for seed in args.seeds:
        for masked in (False, True):
            output = args.work / f"{'masked' if masked else 'whole'}-{seed}"
            config = PipelineConfig(sky_masks=masked, seed=seed)
            run = reconstruct(args.data / SCENE / "images", output, config)
            counts = np.zeros(3, np.int64)
            for clean in run.depth_maps[0]:
                name, known = run.images.names[clean.image], clean.view.confidence > 0
                wh = known.shape[::-1]
                away = cv2.erode(resized(sky[name], wh).astype(np.uint8), OFF_BORDER, borderValue=1).astype(bool)
                counts += [known.sum(), (known & outlined(name, wh)).sum(), (known & away).sum()]
            model = run.models[0]
            cloud = len(read_ply(output / "dense" / "0.ply").xyz)
            row = [seed, "on" if masked else "off", len(model.image_index), len(model.points), *counts, cloud]
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


def outlined(name: str, size_wh: tuple[int, int]) -> np.ndarray:
    """Where a photograph shows sky, by hand."""
    picture = Image.new("1", size_wh)
    for polygon in json.loads(OUTLINES.read_text())[name]:
        corners = [(x / 100 * size_wh[0], y / 100 * size_wh[1]) for x, y in polygon]
        ImageDraw.Draw(picture).polygon(corners, fill=1)
    return np.asarray(picture)


def resized(part: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(part).resize(size_wh, Image.Resampling.NEAREST))


if __name__ == "__main__":
    main()

"""Sky masks on real photographs.

    python benchmarks/sky.py DATA WORK [--seeds 0 1 2]

DATA has a folder with images/ for each set. Prints how much of each set is masked. Then sacre-coeur is reconstructed
with and without masks. Its sky was outlined by hand (sky_of_sacre_coeur.json: polygons in percent of width and height,
a little off what stands before it, not made from the masks): printed are the share of it that is masked; and of each
run the pixels of clean depth maps that the masks leave, those in the outlines and in masked pixels (4 pixels off their
border), and points of the cloud. Cells of clouds are powers of two in the unit of the model, which is another in each
run: so that clouds can be compared, models are first scaled to where a usual pixel is as wide as a cell.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from PIL import Image, ImageDraw

from anchorsfm.dense.cloud import fuse
from anchorsfm.dense.maps import CleanView, DepthMaps
from anchorsfm.dense.views import DenseView
from anchorsfm.io.images import load_image_set
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
            counts, views = np.zeros(3, np.int64), list(run.depth_maps[0])
            for clean in views:
                name, known = run.images.names[clean.image], clean.view.confidence > 0
                wh = known.shape[::-1]
                masked_out = resized(sky[name], wh)
                away = cv2.erode(masked_out.astype(np.uint8), OFF_BORDER, borderValue=1).astype(bool)
                counts += [(known & ~masked_out).sum(), (known & outlined(name, wh)).sum(), (known & away).sum()]
            model, cloud = run.models[0], cloud_points(run.depth_maps[0], views)
            row = [seed, "on" if masked else "off", len(model.image_index), len(model.points), *counts, cloud]
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


def cloud_points(maps: DepthMaps, views: list[CleanView]) -> int:
    """Of the cloud of a model whose unit makes a usual pixel as wide as a cell."""
    views = [one for one in views if (one.view.confidence > 0).any()]
    pixel = [np.median(one.view.depth[one.view.confidence > 0]) / one.view.focal_px for one in views]
    scale = 2.0 ** np.rint(np.log2(np.median(pixel))) / np.median(pixel)
    moved = [replace(one, view=scaled(one.view, scale)) for one in views]
    return len(fuse(moved, maps.config, scale * maps.origin).xyz)


def scaled(view: DenseView, scale: float) -> DenseView:
    pose = np.c_[view.cam_from_world[:, :3], scale * view.cam_from_world[:, 3]]
    return replace(view, depth=view.depth * np.float32(scale), cam_from_world=pose)


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

"""Masks on rendered photographs with a textured thing in front that moves, on a quarter of each.

    python benchmarks/masks.py [--work WORK]

Poses of the scene alone, with the thing and masks that hide it, and with the thing and no masks; and how many
observations of the model lie in pixels that show the thing.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from anchorsfm.evaluation import evaluate_poses, poses_of, read_poses
from anchorsfm.pipeline import reconstruct
from anchorsfm.run.config import PipelineConfig
from anchorsfm.scene.masks import uses
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs

WIDTH, HEIGHT, BLOCK, BLOCKS = 800, 600, 8, 43


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keep photographs and results here (default: a temporary folder)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-masks-"))
    shutil.rmtree(work / "thing", ignore_errors=True)
    shutil.rmtree(work / "masks", ignore_errors=True)
    write_photographs(make_scene(SceneConfig(num_images=8, size_wh=(WIDTH, HEIGHT), seed=5)), work)
    hidden = add_thing(work)
    truth = read_poses(work / "truth.json")
    print("| photographs | registered | AUC@1 | points | observations on the thing |")
    print("|---|---:|---:|---:|---:|")
    for name, source, masks in (("scene alone", "images", None), ("masked", "thing", "masks"), ("not", "thing", None)):
        config = PipelineConfig(mapper="tracks", dense=False, masks=None if masks is None else work / masks)
        run = reconstruct(work / source, work / f"out-{name.replace(' ', '-')}", config)
        model, found = run.models[0], evaluate_poses(poses_of(run.models[0], run.images), truth)
        on_thing = 0
        for image in model.image_index.tolist() if source == "thing" else ():
            xy = model.tracks.obs_xy[model.tracks.obs_image == image]
            on_thing += int((~uses(hidden[image], xy, run.images.size_wh[image])).sum())
        print(
            f"| {name} | {found.num_registered} | {found.auc[0]:.3f} | {len(model.points)} | {on_thing} |", flush=True
        )


def add_thing(work: Path) -> list[np.ndarray]:
    """Write thing/ and masks/; the masks by photograph."""
    rng = np.random.default_rng(0)
    thing = np.kron(rng.integers(0, 255, (BLOCKS, BLOCKS, 3), np.uint8), np.ones((BLOCK, BLOCK, 1), np.uint8))
    side, masks = len(thing), []
    for folder in ("thing", "masks"):
        (work / folder).mkdir()
    for path in sorted((work / "images").iterdir()):
        pixels, use = np.array(Image.open(path)), np.ones((HEIGHT, WIDTH), bool)
        x, y = int(rng.integers(0, WIDTH - side)), int(rng.integers(0, HEIGHT - side))
        pixels[y : y + side, x : x + side], use[y : y + side, x : x + side] = thing, False
        Image.fromarray(pixels).save(work / "thing" / path.name, quality=95)
        Image.fromarray(255 * use.astype(np.uint8)).save(work / "masks" / f"{path.name}.png")
        masks.append(use)
    return masks


if __name__ == "__main__":
    main()

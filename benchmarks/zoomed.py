"""Photographs of one size of which some are zoomed, with nothing that says so: in models, added to them, localised,
and videos that are zoomed while they run.

    OMP_NUM_THREADS=1 python benchmarks/zoomed.py model WORK SET --zoom 1.03 1.2
    OMP_NUM_THREADS=1 python benchmarks/zoomed.py extend WORK SET --zoom 1.03 1.2
    OMP_NUM_THREADS=1 python benchmarks/zoomed.py localise WORK SET --zoom 1.03 1.2
    OMP_NUM_THREADS=1 python benchmarks/zoomed.py film WORK SET --zoom 1.3 1.6
    OMP_NUM_THREADS=1 python benchmarks/zoomed.py slow WORK SET --zoom 1.6

SET holds `images/` and `gt.json` with the poses; its photographs have no EXIF data. `model`: of every second
photograph, every fifth of which is cut about its middle and enlarged to the size that it had; with the cameras that the
run finds, and with one for each (`--camera-mode per-image`). Positions (share of the scene size) and rotations are
compared with the truth after a similarity (rotation from those of the cameras) of the photographs that were not zoomed,
in the middle and at most. `extend`: the same model without the zoomed ones, to which these are added. `localise`: every
sixth photograph, zoomed, against a model of all; compared with the pose that it has in the model. `film`: a video of
all photographs, a fifth of a second each at half their size, zoomed from two fifths to three fifths of it; of its
frames those of the largest model are compared as those of `model` are. `slow`: the same, but the zoom grows from two
fifths to three fifths of the video, and stays.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import anchorsfm
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.results.model import read_models
from localisation import alignment, error, localised, photographs, read_poses, reconstructed
from video import RATE, encode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("model", "extend", "localise", "film", "slow"))
    parser.add_argument("work", type=Path)
    parser.add_argument("set", type=Path)
    parser.add_argument("--zoom", type=float, nargs="+", default=[1.0, 1.03, 1.1, 1.2, 1.5])
    parser.add_argument("--modes", nargs="+", default=["auto", "per-image"], help="camera modes of `model`")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for zoom in given.zoom:
        if given.what == "model":
            models(given.work, given.set, zoom, given.modes)
        else:
            run = {"extend": extended, "localise": single, "film": filmed, "slow": slowly_filmed}[given.what]
            run(given.work, given.set, zoom)


def models(work: Path, folder: Path, zoom: float, modes: list[str]) -> None:
    files = photographs(folder / "images")[::2]
    zoomed = {file.stem for file in files[2::5]}
    pictures = [copied(file, work / f"mixed-{zoom}", zoom if file.stem in zoomed else 1.0) for file in files]
    for mode in modes:
        output, before = work / f"{folder.name}-{zoom}-{mode}", time.process_time()
        anchorsfm.reconstruct(pictures, output, mapper="tracks", dense=False, camera_mode=mode)
        compare(f"| {folder.name} | {zoom} | {mode}", output, folder, zoomed, time.process_time() - before)


def extended(work: Path, folder: Path, zoom: float) -> None:
    files = photographs(folder / "images")[::2]
    zoomed = {file.stem for file in files[2::5]}
    plain = work / f"{folder.name}-plain"
    if not plain.exists():
        pictures = [copied(file, work / "plain", 1.0) for file in files if file.stem not in zoomed]
        anchorsfm.reconstruct(pictures, plain, mapper="tracks", dense=False)
    output = work / f"{folder.name}-{zoom}-extended"
    shutil.copytree(plain, output)
    added, before = [copied(file, work / f"added-{zoom}", zoom) for file in files[2::5]], time.process_time()
    anchorsfm.extend(output, added)
    compare(f"| {folder.name} | {zoom} | extended", output, folder, zoomed, time.process_time() - before)


def filmed(work: Path, folder: Path, zoom: float) -> None:
    files = photographs(folder / "images")
    after = np.arange(len(files)) - 2 * len(files) // 5
    film(work, folder, f"{zoom}-film", np.where((after >= 0) & (after < len(files) // 5), zoom, 1.0))


def slowly_filmed(work: Path, folder: Path, zoom: float) -> None:
    count = len(photographs(folder / "images"))
    film(work, folder, f"{zoom}-slow", zoom ** np.clip(5 * np.arange(count) / count - 2, 0, 1))


def film(work: Path, folder: Path, name: str, zooms: np.ndarray) -> None:
    """A video of the photographs, each zoomed by its own factor, and its model."""
    files = photographs(folder / "images")
    zoomed = {file.stem for file, zoom in zip(files, zooms, strict=True) if zoom != 1}
    copies = [copied(file, work / f"copies-{name}", zoom) for file, zoom in zip(files, zooms.tolist(), strict=True)]
    each = RATE // 5
    video = encode(work / f"{folder.name}-{name}.mp4", (halved(copy) for copy in copies for _ in range(each)))
    output, before = work / f"{folder.name}-{name}", time.process_time()
    anchorsfm.reconstruct(video, output, mapper="tracks", dense=False)

    def stem_of(name: str) -> str:
        time_s = float(Path(name).stem.rsplit("_", 1)[1])
        return files[round(RATE * time_s) // each].stem

    compare(f"| {folder.name} | {name}", output, folder, zoomed, time.process_time() - before, stem_of)


def halved(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        half = np.asarray(picture.convert("RGB").reduce(2))
    return half[: len(half) // 2 * 2, : half.shape[1] // 2 * 2]


def compare(
    label: str,
    output: Path,
    folder: Path,
    zoomed: set[str],
    cpu_s: float,
    stem_of: Callable[[str], str] = lambda name: Path(name).stem,
) -> None:
    """Prints errors of plain and of zoomed photographs; `stem_of` names them as the truth does."""
    truth = {Path(name).stem: pose for name, pose in read_poses(folder / "gt.json").items()}
    stored = read_models(output)[0]
    stems = [stem_of(name) for name in stored.view_names]
    theirs = np.array([truth[stem] for stem in stems])
    plain = np.array([stem not in zoomed for stem in stems])
    scale, pose = alignment(stored.model.cam_from_world[plain], theirs[plain])
    size = np.linalg.norm(np.ptp(camera_centres(theirs), axis=0))
    off = [error(a, b, scale, pose) for a, b in zip(stored.model.cam_from_world, theirs, strict=True)]
    share, turned = np.array(off).T / [[10 * size], [1.0]]  # errors are thousandths of the truth's unit
    focals = ", ".join(f"{camera.params[0]:.0f}" for camera in stored.model.cameras[:4])
    for name, rows in (("plain", plain), ("zoomed", ~plain)):
        if not rows.any():
            continue
        print(
            f"{label} | {rows.sum()} {name} | {np.median(share[rows]):.2f} | {share[rows].max():.2f} "
            f"| {np.median(turned[rows]):.2f} | {turned[rows].max():.2f} "
            f"| {len(stored.model.cameras)}: {focals} | {cpu_s:.0f} |",
            flush=True,
        )


def single(work: Path, folder: Path, zoom: float) -> None:
    output = reconstructed(photographs(folder / "images"), work / f"{folder.name}-all")
    files = [copied(file, work / f"zoomed-{zoom}", zoom) for file in photographs(folder / "images")[::6]]
    found, stored = localised(output, files), read_models(output)[0]
    pose_of = dict(zip([Path(n).stem for n in stored.view_names], stored.model.cam_from_world, strict=True))
    size = json.loads((output / "uncertainty.json").read_text())[0]["scene_size"]
    off, stated = [], []
    for image in found.images:
        if image.cam_from_world is not None and image.position_deviation is not None:
            off.append(error(image.cam_from_world, pose_of[Path(image.name).stem], 1.0, np.eye(3, 4)))
            stated.append(100 * image.position_deviation / size)
    share, turned = np.array(off).T / [[10 * size], [1.0]]
    print(
        f"| {folder.name} | {zoom} | {len(off)} of {len(files)} | {np.median(share):.2f} | {share.max():.2f} "
        f"| {np.median(turned):.2f} | {turned.max():.2f} | {np.median(share / stated):.1f} | {found.cpu_s:.2f} |",
        flush=True,
    )


def copied(file: Path, folder: Path, zoom: float) -> Path:
    """The middle of a photograph, as large as the whole was."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{file.stem}.jpg"
    with Image.open(file) as picture:
        width, height = picture.size
        left, top = width * (1 - 1 / zoom) / 2, height * (1 - 1 / zoom) / 2
        box = (left, top, width - left, height - top)
        picture.resize((width, height), Image.Resampling.LANCZOS, box=box).save(copy, quality=92)
    return copy


if __name__ == "__main__":
    main()

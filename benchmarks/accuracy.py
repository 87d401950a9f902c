"""Pose accuracy on photographs with known poses, beside PyCOLMAP on the same images in the same run.

    python benchmarks/accuracy.py full FOLDER [FOLDER ...]        whole sets: four kinds of PyCOLMAP model, three seeds
    python benchmarks/accuracy.py few FOLDER:0,5,10 [...]         a few images of a set
    python benchmarks/accuracy.py mappers FOLDER [...]            our four mappers on whole sets
    python benchmarks/accuracy.py features FOLDER [...] --weights W [--features auto] [--device cuda]

FOLDER holds `images/` and `gt.json` (needed by `full` and `few`). `features` runs whole sets with SIFT, ALIKED and
both, or with what --features names. Photographs are looked at with a long side of 1024 pixels. Every program runs in a
process of its own; CPU seconds are user + system time. Those of ours leave out dense depth and alignment in `full` and
`few` (what PyCOLMAP does too), and are complete in `mappers` and `features`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ACCURACY = ("auc_1", "auc_3", "auc_5", "ate_rmse", "focal_error")
COLUMNS = ("registered", "points", "track_length", "reprojection_px", *ACCURACY, "cpu_s", "peak_mib")
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("full", "few", "mappers", "features"))
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--work", type=Path, help="keep results here (default: a temporary folder)")
    parser.add_argument("--weights", type=Path, help="folder with the released weights: also run --features auto")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--features", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument("--device", default="cpu", help="where the networks of `features` compute")
    args = parser.parse_args()
    if args.what == "features" and args.weights is None:
        parser.error("features needs --weights")
    os.environ["OMP_NUM_THREADS"] = "1"
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-accuracy-"))
    for entry in args.folders:
        name, _, picked = entry.partition(":")
        folder = Path(name)
        photos = pick(folder, work / entry.replace("/", "_").strip("_"), picked)
        if args.what == "mappers":
            rows = {f"ours, --mapper {m}": [ours(photos, m, ["--mapper", m, "--no-dense"])] for m in MAPPERS}
        elif args.what == "features":
            rows = {
                f"--features {f}": [ours(photos, f, detecting(f, args.weights, args.device))] for f in args.features
            }
        elif args.what == "few":
            rows = few(photos, args.seeds)
        else:
            rows = full(photos, args.seeds)
        if args.weights is not None and args.what in ("full", "few"):
            auto = ["--no-dense", "--features", "auto", "--weights", str(args.weights.resolve())]
            rows["ours, --features auto"] = [
                ours(photos, f"auto-{seed}", [*auto, "--seed", str(seed)]) for seed in args.seeds
            ]
        print_table(entry, rows)
    if args.work is None:
        shutil.rmtree(work)


MAPPERS = ("align", "tracks", "incremental", "global")
DETECTORS = ("sift", "aliked", "auto")


def detecting(detector: str, weights: Path, device: str) -> list[str]:
    options = ["--no-dense", "--device", device, "--features", detector]
    return options if detector == "sift" else [*options, "--weights", str(weights.resolve())]


def pick(folder: Path, work: Path, picked: str) -> Path:
    """A folder with links to all or some of the images, and the truth about those."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "images").mkdir(parents=True)
    files = sorted(p for p in (folder / "images").iterdir() if p.is_file())
    chosen = [files[int(k)] for k in picked.split(",")] if picked else files
    for file in chosen:
        (work / "images" / file.name).symlink_to(file.resolve())
    if (folder / "gt.json").exists():
        truth = json.loads((folder / "gt.json").read_text())
        (work / "gt.json").write_text(json.dumps({file.name: truth[file.name] for file in chosen}))
        write_known(work, {file.name: truth[file.name] for file in chosen})
    return work


def write_known(work: Path, truth: dict) -> None:
    """The true intrinsics as a COLMAP model without poses' use."""
    import pycolmap
    from PIL import Image

    model = pycolmap.Reconstruction()
    for number, (name, entry) in enumerate(truth.items(), 1):
        with Image.open(work / "images" / name) as photo:
            width, height = photo.size
        k = np.array(entry["K"])
        camera = pycolmap.Camera(
            model="PINHOLE", width=width, height=height, params=[k[0, 0], k[1, 1], k[0, 2], k[1, 2]], camera_id=number
        )
        model.add_camera_with_trivial_rig(camera)
        pose = pycolmap.Rigid3d(
            pycolmap.Rotation3d(np.array(entry["R_cam_from_world"])), np.array(entry["t_cam_from_world"])
        )
        image = pycolmap.Image(name=name, camera_id=number, image_id=number)
        model.add_image_with_trivial_frame(image, pose)
    (work / "known").mkdir()
    model.write(work / "known")


def full(photos: Path, seeds: list[int]) -> dict[str, list[dict]]:
    """Whole sets: PyCOLMAP in four ways, and ours; several seeds."""
    single = ["--single-camera"]
    rows: dict[str, list[dict]] = {}
    for seed in seeds:
        base = photos / f"colmap-{seed}"
        for name, options in (
            ("pycolmap incremental", []),
            ("pycolmap global", ["--mapper", "global"]),
            ("pycolmap incremental, free principal point", ["--free-principal-point"]),
        ):
            output = base / name.replace(" ", "-").replace(",", "")
            output.mkdir(parents=True)
            if (base / "database.db").exists():
                shutil.copy(base / "database.db", output / "database.db")
            figures = colmap(photos, output, [*single, *options, "--seed", str(seed)])
            if not (base / "database.db").exists():
                shutil.copy(output / "database.db", base / "database.db")
            rows.setdefault(name, []).append(figures)
            if not options:
                rows.setdefault("the same + our adjustment", []).append(readjusted(photos, output))
        rows.setdefault("ours", []).append(ours(photos, f"ours-{seed}", ["--no-dense", "--seed", str(seed)]))
    known = ["--known.model", str(photos / "known"), "--known.no-use-poses", "--no-dense"]
    rows["ours, true intrinsics given"] = [ours(photos, "known-intrinsics", known)]
    return rows


def few(photos: Path, seeds: list[int]) -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = {}
    for seed in seeds:
        for name, options in (("pycolmap incremental", []), ("pycolmap incremental, one camera", ["--single-camera"])):
            output = photos / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            rows.setdefault(name, []).append(colmap(photos, output, [*options, "--seed", str(seed)]))
        rows.setdefault("ours", []).append(ours(photos, f"ours-{seed}", ["--no-dense", "--seed", str(seed)]))
    return rows


def ours(photos: Path, name: str, options: list[str]) -> dict:
    output = photos / f"anchorsfm-{name}"
    command = [sys.executable, "-m", "anchorsfm", "reconstruct", str(photos / "images"), "--output", str(output)]
    result = subprocess.run([*command, "--quiet", *options], capture_output=True, text=True)
    if result.returncode:
        return {"registered": 0, "note": result.stderr.strip().splitlines()[-1]}
    report = json.loads((output / "report.json").read_text())
    largest, stages = report["models"][0], report["stages"]
    figures = {
        "registered": largest["registered"],
        "points": largest["points"],
        "track_length": largest["mean_track_length"],
        "reprojection_px": largest["mean_reprojection_error_px"],
        "cpu_s": sum(
            s["cpu_s"]
            for s in stages
            if name in (*MAPPERS, *DETECTORS) or s["stage"] not in ("dense depth", "alignment")
        ),
        "peak_mib": max(stage["peak_memory_mib"] for stage in stages),
        "note": ", ".join(sorted({camera.split()[0] for camera in largest["cameras"]})),
    }
    shutil.rmtree(output / "cache")
    return figures | evaluate(output, photos)


def colmap(photos: Path, output: Path, options: list[str]) -> dict:
    command = [sys.executable, str(HERE / "colmap_baseline.py"), str(photos / "images"), str(output), *options]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(result.stdout.strip().splitlines()[-1])
    if not figures["models"]:
        return {"registered": 0, "cpu_s": figures["cpu_s"], "note": "no model"}
    return figures | evaluate(output, photos)


def readjusted(photos: Path, output: Path) -> dict:
    """PyCOLMAP's model with our rounds of triangulation and adjustment on its own tracks."""
    import pycolmap

    from anchorsfm.colmap.convert import from_mapper
    from anchorsfm.colmap.write import write_models
    from anchorsfm.tracks.adjust import adjust_model
    from anchorsfm.tracks.config import AdjustConfig

    entry = pycolmap.Reconstruction(str(output / "sparse" / "0"))
    images = sorted(entry.images.values(), key=lambda image: image.image_id)
    keypoints = [np.array([p.xy for p in image.points2D]).reshape(-1, 2) for image in images]
    start = from_mapper(entry, keypoints)
    assert start is not None, "PyCOLMAP's model has no points"
    scale = max(start.cameras[0].width, start.cameras[0].height) / 1024
    result = adjust_model(
        start,
        start.tracks,
        AdjustConfig(),
        working_scale=np.full(len(start.image_index), max(scale, 1.0)),
        choose_camera_model=True,
    )
    folder = output.with_name(output.name + "-readjusted")
    write_models(folder / "sparse", [result.model], [image.name for image in images])
    model = result.model
    figures = {"registered": len(model.image_index), "points": len(model.points), "note": model.cameras[0].model}
    figures["track_length"] = len(model.tracks.obs_point) / max(len(model.points), 1)
    return figures | evaluate(folder, photos)


def evaluate(model: Path, photos: Path) -> dict:
    if not (photos / "gt.json").exists():
        return {}
    command = [
        sys.executable,
        "-m",
        "anchorsfm",
        "evaluate",
        str(model),
        "--truth",
        str(photos / "gt.json"),
        "--json",
    ]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {key: figures[key] for key in ACCURACY}


def print_table(title: str, rows: dict[str, list[dict]]) -> None:
    """Median over seeds, with the range where it is not a point."""
    print(f"\n{title}\n| model | " + " | ".join(COLUMNS) + " | note |")
    print("|" + "---|" * (len(COLUMNS) + 2))
    for name, runs in rows.items():
        cells = [cell([run.get(column) for run in runs]) for column in COLUMNS]
        notes = " / ".join(sorted({str(run.get("note", "")) for run in runs} - {""}))
        print(f"| {name} | " + " | ".join(cells) + f" | {notes} |")
    sys.stdout.flush()


def cell(values: list) -> str:
    numbers = [float(value) for value in values if value is not None]
    if not numbers:
        return ""

    def show(value: float) -> str:
        return (
            f"{value:.0f}"
            if value >= 1000 or value == int(value)
            else f"{value:.4f}"
            if value < 0.1
            else f"{value:.3f}"
        )

    middle, low, high = statistics.median(numbers), min(numbers), max(numbers)
    return show(middle) if show(low) == show(high) else f"{show(middle)} ({show(low)}-{show(high)})"


if __name__ == "__main__":
    main()

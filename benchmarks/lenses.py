"""Distorted photographs: which camera model is chosen, and how exact model and poses are beside the true model's.

    python benchmarks/lenses.py [--images 10] [--width 1024] [--work WORK]

Photographs of a synthetic room are rendered through known lenses and reconstructed from the JPEGs alone, once with
`--camera-model auto` and once with the name of the true model. `error` is the mean reprojection error.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from anchorsfm.synthetic import LensConfig, SceneConfig, make_scene, write_photographs

LENSES = {
    "pinhole": ("SIMPLE_PINHOLE", 0.9, ()),
    "action camera": ("OPENCV", 0.75, (-0.28, 0.08, 0.001, -0.0008)),
    "rational": ("FULL_OPENCV", 0.7, (-0.3, 0.1, 0.0005, 0.0003, -0.01, 0.05, 0.02, 0.0)),
    "fisheye, 127 degrees": ("OPENCV_FISHEYE", 0.45, (0.02, -0.005, 0.001, 0.0)),
}
COLUMNS = ("registered", "camera", "points", "error", "alignment_auc_1", "alignment_auc_5", "auc_1", "auc_5", "cpu_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lenses", nargs="+", choices=LENSES, default=list(LENSES))
    parser.add_argument("--work", type=Path, help="keep photographs and results here (default: a temporary folder)")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-lenses-"))
    print("| lens | --camera-model | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    for name in args.lenses:
        true_model, focal, params = LENSES[name]
        folder = work / name.replace(" ", "-").replace(",", "")
        if not (folder / "truth.json").exists():
            lens = LensConfig(camera_model=true_model, params=params) if params else None
            size_wh = (args.width, args.width * 3 // 4)
            config = SceneConfig(num_images=args.images, size_wh=size_wh, focal=focal, lens=lens, seed=args.seed)
            write_photographs(make_scene(config), folder)
        for model in ("auto", true_model):
            figures = reconstruct(folder, model)
            cells = [figures.get(column, "") for column in COLUMNS]
            print(
                f"| {name} | {model} | "
                + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells)
                + " |"
            )
            sys.stdout.flush()
    if args.work is None:
        shutil.rmtree(work)


def reconstruct(folder: Path, model: str) -> dict:
    output = folder / f"out-{model}"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "anchorsfm", "reconstruct", str(folder / "images"), "--output", str(output)]
    result = subprocess.run(
        [*command, "--quiet", "--no-dense", "--camera-model", model], capture_output=True, text=True
    )
    if result.returncode:
        return {"registered": 0, "camera": result.stderr.strip().splitlines()[-1]}
    report = json.loads((output / "report.json").read_text())
    largest = report["models"][0]
    aligned = evaluate(output / "alignment", folder)
    return {
        "registered": largest["registered"],
        "camera": largest["cameras"][0].split()[0],
        "points": largest["points"],
        "error": largest["mean_reprojection_error_px"],
        "cpu_s": sum(stage["cpu_s"] for stage in report["stages"]),
        **{f"alignment_{key}": value for key, value in aligned.items()},
        **evaluate(output, folder),
    }


def evaluate(model: Path, folder: Path) -> dict:
    command = [sys.executable, "-m", "anchorsfm", "evaluate", str(model), "--truth", str(folder / "truth.json")]
    figures = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    return {key: figures[key] for key in ("auc_1", "auc_5")}


if __name__ == "__main__":
    main()

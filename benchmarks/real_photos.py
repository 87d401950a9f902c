"""AnchorSfM and PyCOLMAP's default incremental mapping on the same photographs in one run.

    python benchmarks/real_photos.py FOLDER [FOLDER ...] [--max-image-size 1024] [--work WORK]

FOLDER holds `images/` and, if poses are known, `gt.json`. Each program runs in a process of its own; CPU seconds are
user + system time. "sparse" is everything but dense depth and alignment, the part that both programs do.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPARSE_STAGES = ("images", "features, matches", "tracks", "adjustment")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--max-image-size", type=int, default=1024)
    parser.add_argument("--work", type=Path, help="keep results here (default: a temporary folder)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-benchmark-"))
    rows = []
    for folder in args.folders:
        ours = run_ours(folder, work / folder.name / "anchorsfm", args.max_image_size)
        colmap = run_colmap(folder, work / folder.name / "colmap", args.max_image_size)
        rows += [(folder.name, "anchorsfm", ours), (folder.name, "pycolmap incremental", colmap)]
        print_rows(rows[-2:])
    print("\nsummary")
    print_rows(rows)
    if args.work is None:
        shutil.rmtree(work)


def run_ours(folder: Path, output: Path, max_image_size: int) -> dict:
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "anchorsfm", "reconstruct", str(folder / "images"), "--output", str(output)]
    subprocess.run([*command, "--max-image-size", str(max_image_size), "--quiet"], check=True, stdout=subprocess.PIPE)
    report = json.loads((output / "report.json").read_text())
    stages = {stage["stage"]: stage for stage in report["stages"]}
    largest = report["models"][0]
    with_depth = list((output / "cache" / "classical-dense").glob("*.safetensors"))
    figures = {
        "registered": largest["registered"],
        "points": largest["points"],
        "track_length": largest["mean_track_length"],
        "reprojection_px": largest["mean_reprojection_error_px"],
        "sparse_cpu_s": round(sum(stages[name]["cpu_s"] for name in SPARSE_STAGES), 1),
        "dense_cpu_s_per_pair": round(stages["dense depth"]["cpu_s"] / max(len(with_depth), 1), 2),
        "alignment_cpu_s": stages["alignment"]["cpu_s"],
        "total_wall_s": round(sum(stage["wall_s"] for stage in stages.values()), 1),
        "peak_mib": round(max(stage["peak_memory_mib"] for stage in stages.values())),
    }
    if (folder / "gt.json").exists():
        figures |= evaluate(output, folder / "gt.json")
        alignment = evaluate(output / "alignment", folder / "gt.json")
        figures |= {"alignment_auc1": alignment["auc_1"], "alignment_auc5": alignment["auc_5"]}
    return figures


def run_colmap(folder: Path, output: Path, max_image_size: int) -> dict:
    command = [sys.executable, str(HERE / "colmap_baseline.py"), str(folder / "images"), str(output)]
    command += ["--max-image-size", str(max_image_size)]
    if (folder / "gt.json").exists():
        command.append("--single-camera")  # these photographs carry no EXIF that would say so
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(result.stdout.strip().splitlines()[-1])
    figures["sparse_cpu_s"] = figures["cpu_s"]
    if (folder / "gt.json").exists() and figures["models"]:
        figures |= evaluate(output, folder / "gt.json")
    return figures


def evaluate(model: Path, truth: Path) -> dict:
    command = [sys.executable, "-m", "anchorsfm", "evaluate", str(model), "--truth", str(truth), "--json"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {key: figures[key] for key in ("auc_1", "auc_3", "auc_5", "ate_rmse")}


def print_rows(rows: list) -> None:
    columns = ["registered", "points", "track_length", "reprojection_px", "auc_1", "auc_3", "auc_5", "ate_rmse"]
    columns += ["alignment_auc1", "alignment_auc5", "sparse_cpu_s", "dense_cpu_s_per_pair", "alignment_cpu_s"]
    columns += ["total_wall_s", "peak_mib"]
    print("| set | program | " + " | ".join(columns) + " |")
    print("|" + "---|" * (len(columns) + 2))
    for name, program, figures in rows:
        cells = [figures.get(column, "") for column in columns]
        print(
            f"| {name} | {program} | "
            + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
            + " |"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main()

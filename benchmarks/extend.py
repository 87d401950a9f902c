"""More photographs for a finished model, and two models as one: accuracy and cost beside a run with all photographs.

    OMP_NUM_THREADS=1 python benchmarks/extend.py extend WORK SET --first 8
    OMP_NUM_THREADS=1 python benchmarks/extend.py merge WORK SET --common 3

SET holds `images/` and `gt.json` with measured poses. `extend`: a model of the first photographs, extended by the
others, with default settings, beside a run with all of them. `merge`: models of the first and of the last half, which
have some photographs in common, without dense depth; the scale is that of each half's cameras in the merged model
against their truth. CPU seconds are those of whole processes, imports included.
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from anchorsfm.colmap.models import read_stored_poses
from anchorsfm.evaluation.sources import read_truth
from anchorsfm.geometry.transforms import camera_centres, fit_similarity
from anchorsfm.results.model import read_models


def command(*words: object) -> float:
    """CPU seconds of a command; what it prints last."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "anchorsfm", *map(str, words)], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"\n{' '.join(map(str, words[:1]))}: {cpu_s:.1f} CPU s, exit code {done.returncode}")
    if done.returncode or words[0] == "evaluate":
        print(done.stdout.strip(), done.stderr.strip(), sep="\n")
    return cpu_s


def listed(path: Path, files: list[Path]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{file.resolve()}\n" for file in files))
    return path


def extend(work: Path, folder: Path, first: int) -> None:
    files, truth = sorted((folder / "images").iterdir()), folder / "gt.json"
    whole = command("reconstruct", folder / "images", "-o", work / "all", "--quiet")
    command("evaluate", work / "all", "--truth", truth)
    command("reconstruct", listed(work / "first.txt", files[:first]), "-o", work / "out", "--quiet")
    before = read_stored_poses(read_models(work / "out")[0].folder)
    more = command("extend", work / "out", folder / "images", "--quiet")
    command("evaluate", work / "out", "--truth", truth)
    after = read_stored_poses(read_models(work / "out")[0].folder)
    same = sum(after[name].cam_from_world.tobytes() == pose.cam_from_world.tobytes() for name, pose in before.items())
    print(
        f"\nCPU of the extension: {more / whole:.1%} of the run with all; "
        f"{same} of {len(before)} poses have the same bits"
    )


def merge(work: Path, folder: Path, common: int) -> None:
    files, truth = sorted((folder / "images").iterdir()), folder / "gt.json"
    middle = len(files) // 2
    halves = [files[: middle + (common + 1) // 2], files[middle - common // 2 :]]
    names = [f"half{number}-{common}" for number in (0, 1)]
    for name, half in zip(names, halves, strict=True):
        if not (work / name / "report.json").is_file():
            words = ("--mapper", "tracks", "--no-dense", "--quiet")
            command("reconstruct", listed(work / f"{name}.txt", half), "-o", work / name, *words)
    both = work / f"both-{common}"
    command("merge", work / names[0], work / names[1], "-o", both, "--no-dense", "--quiet")
    command("evaluate", both, "--truth", truth)
    stored, known = read_models(both)[0], read_truth(truth)
    pose_of = dict(zip(known.names, known.cam_from_world, strict=True))
    centres = dict(zip(stored.view_names, camera_centres(stored.model.cam_from_world), strict=True))

    def scale(half: list[Path]) -> float:
        mine = [file.name for file in half if file.name in centres]
        return fit_similarity(
            np.array([centres[name] for name in mine]), camera_centres(np.array([pose_of[name] for name in mine]))
        )[0]

    first, second, whole = scale(halves[0]), scale(halves[1]), scale(files)
    print(
        f"\n{len(centres)} of {len(files)} images in one model; scale of the halves against the truth: "
        f"{first / whole:.5f}, {second / whole:.5f}, their ratio is off by {abs(second / first - 1):.3%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["extend", "merge"])
    parser.add_argument("work", type=Path)
    parser.add_argument("set", type=Path)
    parser.add_argument("--first", type=int, default=8)
    parser.add_argument("--common", type=int, default=3)
    given = parser.parse_args()
    if given.what == "extend":
        extend(given.work, given.set, given.first)
    else:
        merge(given.work, given.set, given.common)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

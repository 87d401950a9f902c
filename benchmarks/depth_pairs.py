"""How many pairs of an image need dense depth: whole runs on one cache, with several numbers.

    OMP_NUM_THREADS=1 python benchmarks/depth_pairs.py FOLDER [--per-image 4 6 1000] [--work WORK]

FOLDER holds `images/` and `gt.json`. The runs share what they can, so "new" is the number of pairs that got dense depth
beyond those of the rows above, which all are among these. AUC of the alignment by itself and of the adjusted model.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from real_photos import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-image", type=int, nargs="+", default=[4, 6, 1000])
    parser.add_argument("--work", type=Path, help="keep results here (default: a temporary folder)")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="anchorsfm-benchmark-"))
    print("| pairs an image | new | of | alignment auc_1 | auc_5 | adjusted auc_1 | auc_5 | alignment cpu_s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for number in args.per_image:
        command = [sys.executable, "-m", "anchorsfm", "reconstruct", str(args.folder / "images"), "--output", str(work)]
        command += ["--classical.dense.pairs-per-image", str(number), "--no-dense", "--quiet"]
        before = count(work)
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
        report = json.loads((work / "report.json").read_text())
        cost = {stage["stage"]: stage["cpu_s"] for stage in report["stages"]}["alignment"]
        truth = args.folder / "gt.json"
        figures = [evaluate(part, truth)[key] for part in (work / "alignment", work) for key in ("auc_1", "auc_5")]
        cells = [count(work) - before, report["pairs"].get("ok", 0), *(f"{f:.3f}" for f in figures), f"{cost:.1f}"]
        print(f"| {number} | +" + " | ".join(map(str, cells)) + " |", flush=True)
    if args.work is None:
        shutil.rmtree(work)


def count(work: Path) -> int:
    """Pairs with dense depth in the cache."""
    return len(list((work / "cache" / "classical-dense").glob("*.safetensors")))


if __name__ == "__main__":
    main()

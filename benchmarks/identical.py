"""Do two versions of the program make the same models, bit for bit, and what does each cost? Both run the same files.

    python benchmarks/identical.py OLD NEW FOLDER [FOLDER ...] [-- OPTION ...]

OLD and NEW are checkouts, each FOLDER has photographs in `images/`. Options after `--` go to `reconstruct`. Exit code 1
if a model, alignment or cloud differs. CPU time and peak memory are those of the whole command.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

RESULTS = ("sparse/**/*.bin", "alignment/**/*.bin", "dense/*.ply")


class Run(NamedTuple):
    """What a run of one version made, and what it cost."""

    digests: dict[str, str]  # SHA-256 of every result file, by its path in the output folder
    cpu_s: float
    peak_gib: float


def run(checkout: Path, photographs: Path, output: Path, options: list[str]) -> Run:
    """Reconstruct `photographs` with the program in `checkout`."""
    command = [sys.executable, "-m", "anchorsfm.cli", "reconstruct", str(photographs), "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve() / "src")}
    process = subprocess.Popen([*command, *options, "--quiet"], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{checkout} failed on {photographs}")
    files = sorted(path for pattern in RESULTS for path in output.glob(pattern))
    digests = {path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return Run(digests, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def main() -> None:
    arguments, options = sys.argv[1:], []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, options = arguments[:split], arguments[split + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args(arguments)
    differing = 0
    for folder in given.folders:
        with tempfile.TemporaryDirectory() as scratch:
            old, new = (
                run(checkout, folder / "images", Path(scratch) / name, options)
                for name, checkout in (("old", given.old), ("new", given.new))
            )
        names = sorted(old.digests.keys() | new.digests.keys())
        differ = [name for name in names if old.digests.get(name) != new.digests.get(name)]
        differing += len(differ)
        verdict = "identical" if not differ else f"differ: {', '.join(differ)}"
        cost = f"{old.cpu_s:.0f} -> {new.cpu_s:.0f} CPU s, {old.peak_gib:.2f} -> {new.peak_gib:.2f} GiB"
        print(f"{folder.name:<16} {len(names)} files: {verdict}; {cost}", flush=True)
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()

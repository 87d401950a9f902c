"""Do two versions of the program make the same models, bit for bit? Each runs from its checkout on the same files.

    python benchmarks/identical.py OLD NEW FOLDER [FOLDER ...] [-- OPTION ...]

OLD and NEW are checkouts, each FOLDER has photographs in `images/`. Options after `--` go to `reconstruct`. Exit code 1
if a model, alignment or cloud differs.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = ("sparse/**/*.bin", "alignment/**/*.bin", "dense/*.ply")


def digests(checkout: Path, photographs: Path, output: Path, options: list[str]) -> dict[str, str]:
    """SHA-256 of every result file of a run of `checkout`, by its path in the output folder."""
    command = [sys.executable, "-m", "anchorsfm.cli", "reconstruct", str(photographs), "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve() / "src")}
    subprocess.run([*command, *options, "--quiet"], env=environment, check=True, stdout=subprocess.DEVNULL)
    files = sorted(path for pattern in RESULTS for path in output.glob(pattern))
    return {path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
                digests(checkout, folder / "images", Path(scratch) / name, options)
                for name, checkout in (("old", given.old), ("new", given.new))
            )
        differ = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        differing += len(differ)
        print(f"{folder.name:<16} {len(old)} files: {'identical' if not differ else 'differ: ' + ', '.join(differ)}")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()

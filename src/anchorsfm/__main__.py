"""Entry point of the `anchorsfm` command and of `python -m anchorsfm`; ready for signals before anything loads."""

import sys

from anchorsfm import process


def main() -> None:
    """Run the command line in this process."""
    process.prepare()
    from anchorsfm.cli import main as run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()

"""Entry point of the `anchorsfm` command and of `python -m anchorsfm`; ready for signals before anything loads."""

import sys

from anchorsfm import process


def main() -> None:
    """Run the command line in this process."""
    try:
        process.prepare()
        from anchorsfm.cli.main import main as run
    except Exception as error:
        from anchorsfm.io.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        print("error: too little memory to load the program's libraries: close other programs", file=sys.stderr)
        process.leave(2)
    run(sys.argv[1:])


if __name__ == "__main__":
    main()

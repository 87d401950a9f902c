"""`python -m anchorsfm.cli`: the same as `python -m anchorsfm`."""

import sys

from anchorsfm import process

if __name__ == "__main__":
    process.prepare()

    from anchorsfm.cli.main import main  # signals are handled before libraries load

    main(sys.argv[1:])

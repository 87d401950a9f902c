"""`python -m anchorsfm.cli`: the same as `python -m anchorsfm`."""

import sys

from anchorsfm import process

process.prepare()

from anchorsfm.cli.main import main  # noqa: E402 - signals are handled before libraries load

main(sys.argv[1:])

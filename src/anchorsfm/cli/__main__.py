"""`python -m anchorsfm.cli`: the same as `python -m anchorsfm`."""

from anchorsfm.__main__ import main

if __name__ == "__main__":
    main()

"""What a run says about itself: report.json, the page report.html, and the summary the command line prints.

`numbers`, `figures` and `depth` compute the record of a run (`results/record.py`, the content of report.json); `page`
draws it, and `folder` makes the page from what lies in an output folder.
"""

from anchorsfm.report.numbers import (
    report_alignment,
    report_images,
    report_model,
    report_solver,
    report_uncertainty,
)
from anchorsfm.report.pair_log import PairLog
from anchorsfm.report.summary import summary_lines

__all__ = [
    "PairLog",
    "report_alignment",
    "report_images",
    "report_model",
    "report_solver",
    "report_uncertainty",
    "summary_lines",
]

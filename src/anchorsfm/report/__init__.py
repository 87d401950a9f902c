"""What a run says about itself: report.json, the page report.html, and the summary the command line prints.

`record` is the content of report.json; `numbers`, `figures` and `depth` compute it; `page` draws it, and `folder`
makes the page from what lies in an output folder.
"""

from anchorsfm.report.numbers import (
    report_alignment,
    report_images,
    report_model,
    report_solver,
    report_uncertainty,
)
from anchorsfm.report.pair_log import PairLog
from anchorsfm.report.record import RunReport, UncertaintyReport
from anchorsfm.report.summary import summary_lines

__all__ = [
    "PairLog",
    "RunReport",
    "UncertaintyReport",
    "report_alignment",
    "report_images",
    "report_model",
    "report_solver",
    "report_uncertainty",
    "summary_lines",
]

"""What report.html costs: seconds of CPU, memory and bytes, and pictures of the page for the documentation.

    python benchmarks/report_page.py OUT                     # a finished run
    python benchmarks/report_page.py --synthetic 200         # a model of so many images, made up
    python benchmarks/report_page.py OUT --pictures FOLDER   # also two pictures of the page, by headless Chromium

The synthetic model is a ring of cameras around a ball of points with rendered-looking noise for photographs: its pairs,
tracks, residuals and pictures have the number and size of a real run's, and no reconstruction is needed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from PIL import Image

from anchorsfm.io.clock import StageClock
from anchorsfm.report.folder import make_page
from browser import Page
from report_scene import write_synthetic_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?", help="output folder of anchorsfm reconstruct")
    parser.add_argument("--synthetic", type=int, help="number of images of a made-up run")
    parser.add_argument("--photo-size", type=int, nargs=2, default=(4000, 3000), help="of its photographs")
    parser.add_argument("--pictures", type=Path, help="folder for report-overview.png and report-precision.png")
    arguments = parser.parse_args()
    if (arguments.output is None) == (arguments.synthetic is None):
        parser.error("give an output folder or --synthetic")
    with tempfile.TemporaryDirectory() as folder:
        output, clock = arguments.output, StageClock()
        if output is None:
            output = Path(folder) / "out"
            with clock.stage("figures for report.json"):
                models = write_synthetic_run(output, arguments.synthetic, photo_wh=tuple(arguments.photo_size))
        else:
            models = None
        with clock.stage("page"):
            page = make_page(output, models=models)
        for stage in clock.timings:
            print(f"{stage.stage:<26}{stage.cpu_s:8.2f} s CPU {stage.peak_memory_mib:8.0f} MiB peak")
        for file in (output / "report.json", page):
            print(f"{file.name:<26}{file.stat().st_size / 1e6:8.2f} MB")
        if arguments.pictures:
            take_pictures(page, arguments.pictures)


def take_pictures(page: Path, folder: Path) -> None:
    """report-overview.png and report-precision.png as a visitor sees them."""
    folder.mkdir(parents=True, exist_ok=True)
    with Page(page.resolve().as_uri(), (1280, 1130)) as browser:
        browser.wait_for("document.querySelector('canvas').width > 300")
        for section, name in (("overview", "report-overview"), ("precision", "report-precision")):
            browser.evaluate(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
            browser.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)))")
            path = folder / f"{name}.png"
            Image.fromarray(browser.screenshot()).quantize(256).save(path, optimize=True)
            print(f"{path} {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

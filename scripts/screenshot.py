"""Takes the picture of an HTML report that stands in the README; needs Chromium.

usage: python scripts/screenshot.py [docs/report.png]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import chromium  # noqa: E402

import bnfold  # noqa: E402
from bnfold.report.write import write_report  # noqa: E402

WIDTH, HEIGHT = 1200, 620


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "report.png"
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder) / "profile") as browser:
        page = Path(folder) / "report.html"
        options = bnfold.CheckOptions(input_data=ROOT / "models" / "digits_test.npz")
        write_report(page, bnfold.convert(ROOT / "models" / "bnlenet.onnx", Path(folder) / "x.onnx", options=options))
        browser.open(page.as_uri(), width=WIDTH)
        browser.screenshot(target, height=HEIGHT)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""Pictures of every state of the page, at four sizes in both themes: make screenshots.

Over the index of ``seeds/``, by a real server and a real browser; the states are those the browser
flows go through. Writes docs/screenshots/STATE-THEME-WIDTH.png.
"""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from ballet_qa.build import build_index
from conftest import ROOT, SEEDS
from test_browser import ARGUMENTS, CHROMIUM, serving, states, visiting

SIZES = {390: 844, 768: 1024, 1280: 900, 1600: 1000}
OUT = ROOT / "docs" / "screenshots"


def main() -> None:
    """Take them all."""
    if CHROMIUM is None:
        sys.exit("no chromium on this machine; apt-get install chromium")
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        build_index(SEEDS, folder)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        with serving(Path(folder)) as address:
            for scheme in ("light", "dark"):
                for width, height in SIZES.items():
                    size = {"width": width, "height": height}
                    options = {"viewport": size, "color_scheme": scheme}
                    with visiting(browser, address, **options) as page:
                        for state in states(page):
                            save(page.screenshot(), OUT / f"{state}-{scheme}-{width}.png")
                    print(f"{scheme}, {width} px", flush=True)  # noqa: T201
        browser.close()


def save(picture: bytes, path: Path) -> None:
    """A picture in 128 colours: a third of the bytes, for a page that has few."""
    Image.open(BytesIO(picture)).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()

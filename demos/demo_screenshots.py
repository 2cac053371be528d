"""Pictures of the page for the documentation: light, dark, on a phone, and words over time.

    python -m demos.demo_screenshots ADDRESS [--out docs/img]

ADDRESS is that of a page that runs (`make demo`). It needs Chromium and its driver (Debian's packages chromium and chromium-driver) and
selenium.
"""

import argparse
import base64
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avtlm.files import atomic_path

SWITCHES = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --window-size=1280,1100"
)
PATIENCE = 120.0  # seconds until the page shows what was asked for


@dataclass(frozen=True)
class Shot:
    """A picture: its file, the width of the window in pixels, light or dark, and the part of the page (None for all)."""

    file: str
    width: int
    theme: str
    part: str | None = None


SHOTS = (
    Shot("demo.png", 1280, "light"),
    Shot("demo_dark.png", 1280, "dark"),
    Shot("demo_phone.png", 390, "light"),
    Shot("demo_timeline.png", 1280, "light", "#timeline"),
)


def find_browser() -> tuple[str, str] | None:
    """Paths of Chromium and its driver; None if one is missing."""
    browser = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser is not None and driver is not None else None


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """A headless Chromium that selenium steers, and that keeps what it logs; it is closed at the end.

    Raises:
        FileNotFoundError: there is no Chromium, or no driver for it.
        ImportError: selenium is not installed.
    """
    from selenium import webdriver

    found = find_browser()
    if found is None:
        raise FileNotFoundError("There is no Chromium with its driver; install both (Debian: apt install chromium chromium-driver).")
    with tempfile.TemporaryDirectory(prefix="avtlm-browser-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = found[0]
        for switch in [*SWITCHES.split(), f"--user-data-dir={profile}"]:
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=found[1]))
        try:
            yield driver
        finally:
            driver.quit()


def resize(browser: Any, width: int, height: int = 1000) -> None:
    """Show the page in a window of this size; a real window of a headless Chromium is at least 500 pixels wide."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait_for(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it was not so for all that time.
    """
    end = time.monotonic() + patience
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience:.0f} s for {what}.")
        time.sleep(0.1)


def take(browser: Any, address: str, shot: Shot, folder: Path) -> Path:
    """One picture of the page with its second example in babble at -5 dB; returns its path."""
    from selenium.webdriver.common.keys import Keys

    def text(selector: str) -> str:
        return str(browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    resize(browser, shot.width)
    browser.get(f"{address.rstrip('/')}/?__theme={shot.theme}")
    wait_for(lambda: "babble at 0 dB" in text("#transcripts .remark"), "the first example")
    first = text("#transcripts .said")
    browser.execute_script("document.querySelectorAll('#examples button')[1].click()")
    wait_for(lambda: text("#transcripts .said") not in ("", first), "the second example")
    browser.find_element("css selector", "#snr input[type=range]").send_keys(Keys.ARROW_LEFT * 5)
    wait_for(lambda: "babble at −5 dB" in text("#transcripts .remark"), "the noise")
    if shot.part is not None:
        browser.execute_script("document.querySelectorAll('#timeline details')[0].open = true")
    shown = "return [...document.querySelectorAll('#clip video, #lips video')].every(v => v.readyState >= 2)"
    wait_for(lambda: browser.execute_script(shown), "the videos")
    time.sleep(1.5)  # until the waveform is drawn
    browser.execute_script("document.activeElement?.blur()")
    box = browser.execute_script(
        "const e = arguments[0] ? document.querySelector(arguments[0]) : document.documentElement; const b = e.getBoundingClientRect();"
        "return [b.left + scrollX, b.top + scrollY, b.width, arguments[0] ? b.height : document.body.scrollHeight]",
        shot.part,
    )
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
    with atomic_path(folder / shot.file) as temporary:
        temporary.write_bytes(base64.b64decode(picture["data"]))
    return folder / shot.file


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="demo_screenshots", description="Take pictures of the demo page for the documentation.")
    parser.add_argument("address", help="of the page, such as http://127.0.0.1:7860")
    parser.add_argument("--out", type=Path, default=Path("docs/img"), metavar="DIR", help="folder of the pictures (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        with open_browser() as browser:
            for shot in SHOTS:
                print(take(browser, options.address, shot, options.out))
    except (ImportError, OSError) as error:  # TimeoutError is one of the latter
        print(f"demo_screenshots: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

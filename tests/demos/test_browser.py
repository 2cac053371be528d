"""The page in a real browser: a headless Chromium (Debian's packages chromium and chromium-driver) steered by selenium.

The server runs in a process of its own, as `make demo` starts it, with a tiny untrained model: what it writes down means nothing, but it
comes out of the sound and the picture.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demos import made_demo
from tests.made_model import save_tiny_recognizer

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
SWITCHES = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --window-size=1280,1100"
)
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver: apt install chromium chromium-driver"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page, which must have lived through all tests without a stack trace."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("server")
    model, corpus = save_tiny_recognizer(folder / "model"), made_demo.save_videos(folder / "corpus").parent
    (model / "README.md").write_text("# Tiny\n\nAn untrained model of a test.\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "demos.noisy_speech", "--model", str(model), "--corpus", str(corpus), "--port", str(port)]
    journal = folder / "log"
    environment = os.environ | {"TMPDIR": str(folder), "GRADIO_TEMP_DIR": str(folder / "uploads")}
    with journal.open("w") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(lambda: answers(address) or process.poll() is not None, "the server to start")
            assert process.poll() is None, journal.read_text()
            yield address
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(20)
    assert "Traceback" not in journal.read_text()
    assert not list(folder.glob("avtlm-demo-*"))  # nothing is left behind


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in [*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(server: str, browser: Any) -> Iterator[Any]:
    """The page as it is after loading, with the first example shown; nothing may go wrong in the browser or leave this machine."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(server)
    wait_for(lambda: len(cards(browser)) == 3 and remark(browser), "the first example's transcripts")
    yield browser
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    own = (server, server.replace("http", "ws"), "blob:", "data:", "chrome:")  # the last: the empty page that a browser starts with
    assert [address for address in asked_for(browser) if not address.startswith(own)] == []


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def wait_for(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
        time.sleep(0.1)


def all_of(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def text_of(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join(' ')", selector))


def cards(browser: Any) -> list[str]:
    return [
        str(card) for card in browser.execute_script("return [...document.querySelectorAll('#transcripts .card')].map(c => c.innerText)")
    ]


def remark(browser: Any) -> str:
    return text_of(browser, "#transcripts .remark")


def message(browser: Any) -> str:
    return text_of(browser, "#message [role=alert], #message [role=status]").strip()


def press(browser: Any, selector: str, index: int = 0) -> None:
    wait_for(lambda: len(all_of(browser, selector)) > index, selector)
    browser.execute_script("arguments[0].click()", all_of(browser, selector)[index])


def asked_for(browser: Any) -> list[str]:
    """Addresses of all requests since the page was opened."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def upload(browser: Any, path: Path) -> None:
    def room() -> bool:
        if all_of(browser, "#clip input[type=file]"):
            return True
        browser.execute_script("document.querySelector('#clip button[aria-label=Clear]')?.click()")
        return False

    wait_for(room, "the place for uploads")
    all_of(browser, "#clip input[type=file]")[0].send_keys(str(path))


def test_the_page_opens_with_an_example_and_says_what_the_model_is(page: Any) -> None:
    assert "Lips rescue noisy speech" in text_of(page, "#introduction")
    assert "An untrained model of a test." in text_of(page, "#notice")
    assert "babble at 0 dB" in remark(page)
    assert len(all_of(page, "#examples button img")) == 4


def test_a_chosen_example_brings_its_sound_lips_reference_and_three_marked_transcripts(page: Any) -> None:
    press(page, "#examples button", 2)
    wait_for(lambda: "set green again" in text_of(page, "#transcripts .said"), "the second example")
    assert all_of(page, "#reference textarea")[0].get_property("value") == "set green again"
    titles = [card.splitlines()[0] for card in cards(page)]
    assert titles == ["Sound only", "Lips only", "Sound and lips"]
    assert all("WER" in card and "of 3 words" in card for card in cards(page))
    assert all_of(page, "#transcripts .wrong, #transcripts .missing")  # an untrained model makes mistakes
    wait_for(lambda: all_of(page, "#sound [aria-label='Play']"), "the player of the noisy sound")
    wait_for(lambda: all_of(page, "#lips video"), "the lips")
    lips = "const v = document.querySelector('#lips video'); return v.readyState >= 2 && v.videoWidth"
    wait_for(lambda: page.execute_script(lips) == 288, "the video of the lips to be playable")


def test_the_slider_changes_the_noise_and_not_what_is_seen(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    lips = all_of(page, "#lips video")[0].get_attribute("src")
    seen = cards(page)[1]
    slider = all_of(page, "#snr input[type=range]")[0]
    slider.send_keys(Keys.END)
    wait_for(lambda: "clean sound" in remark(page), "clean sound")
    slider.send_keys(Keys.HOME)
    wait_for(lambda: "babble at −10 dB" in remark(page), "loud noise")
    assert cards(page)[1] == seen
    assert all_of(page, "#lips video")[0].get_attribute("src") == lips
    press(page, "#noise input", 1)
    wait_for(lambda: "white noise at −10 dB" in remark(page), "white noise")


def test_a_sound_file_becomes_the_noise(page: Any, tmp_path: Path) -> None:
    press(page, "#noise input", 2)
    wait_for(lambda: "Choose a sound file" in message(page), "the wish for a sound file")
    wait_for(lambda: all_of(page, "#noise-file input[type=file]"), "the place for the sound file")
    all_of(page, "#noise-file input[type=file]")[0].send_keys(str(made_demo.save_noise(tmp_path)))
    wait_for(lambda: "the sound file at 0 dB" in remark(page), "noise from the file")
    assert message(page) == ""


def test_bad_uploads_give_one_sentence_and_the_page_goes_on(page: Any, tmp_path: Path) -> None:
    bad = made_demo.save_bad(tmp_path)
    for case, sentence in (
        ("text", "text.mp4: is not a media file that can be read"),
        ("no face", "no_face.mp4: no face was found; the whole face must be in view, not only the mouth."),
        ("no audio", "no_audio.mp4: has no audio track; choose or record a video with sound."),
        ("too long", "too_long.mp4: is 26 s long; this page takes clips of at most 20 s."),
    ):
        upload(page, bad[case])
        wait_for(lambda sentence=sentence: sentence in message(page), sentence)  # type: ignore[misc]
        assert cards(page) == []
        assert all_of(page, "#reference textarea")[0].get_property("value") == ""
    press(page, "#examples button", 1)
    wait_for(lambda: len(cards(page)) == 3, "an example after the bad uploads")
    assert message(page) == ""


def test_a_visitors_clip_is_scored_once_its_words_are_typed(page: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    clip = made_demo.save_videos(tmp_path).parent / "clip1.mp4"
    clip.write_bytes(clip.read_bytes() + b"\0" * 8)  # not the example's bytes
    upload(page, clip)
    wait_for(lambda: len(cards(page)) == 3 and "WER" not in cards(page)[0], "transcripts without error rates")
    field = all_of(page, "#reference textarea")[0]
    field.send_keys("Lay red, <b>now")
    wait_for(lambda: text_of(page, "#transcripts .said") == "Said lay red b now", "the reference")
    assert all("of 4 words" in card for card in cards(page))
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.DELETE)
    wait_for(lambda: "WER" not in cards(page)[0], "the error rates to go")


@pytest.mark.parametrize(("width", "columns"), [(1400, 3), (1240, 3), (1024, 3), (520, 1)])  # a headless Chromium is at least 500 wide
def test_nothing_is_cut_off_at_any_width(page: Any, width: int, columns: int) -> None:
    size = page.get_window_size()
    try:
        page.set_window_size(width, 1000)
        time.sleep(0.5)
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        lefts = page.execute_script("return [...document.querySelectorAll('#transcripts .card')].map(c => c.getBoundingClientRect().left)")
        assert len(set(lefts)) == columns
        edge = page.execute_script("return document.querySelector('#examples').getBoundingClientRect().right")
        rights = page.execute_script("return [...document.querySelectorAll('#examples button')].map(b => b.getBoundingClientRect().right)")
        assert max(rights) <= edge
    finally:
        page.set_window_size(size["width"], size["height"])

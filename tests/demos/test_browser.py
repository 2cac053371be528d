"""The page in a real browser: a headless Chromium (Debian's packages chromium and chromium-driver) steered by selenium.

The server runs in a process of its own, as `make demo` starts it, with a tiny untrained model: what it writes down means nothing, but it
comes out of the sound and the picture.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demos.demo_screenshots import SHOTS, find_browser, open_browser, resize, take, wait_for
from tests.demos import made_demo
from tests.made_model import save_tiny_recognizer

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs chromium and chromedriver: apt install chromium chromium-driver"),
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
            wait_for(lambda: answers(address) or process.poll() is not None, "the server to start", 400)
            assert process.poll() is None, journal.read_text()
            yield address
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(20)
    assert "Traceback" not in journal.read_text()
    assert not list(folder.glob("avtlm-demo-*"))  # nothing is left behind


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("selenium")
    with open_browser() as driver:
        yield driver


@pytest.fixture
def page(server: str, browser: Any) -> Iterator[Any]:
    """The page as it is after loading, with the first example shown; nothing may go wrong in the browser or leave this machine."""
    resize(browser, 1280)
    browser.get("about:blank")  # requests of the test before end here, with what the browser says of that
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
        ("no video", "no_video.mp4: has no video track; choose or record a video of a speaking face."),
        ("silent", "silent.mp4: is silent; choose or record a video in which somebody is heard."),
        ("cut off", "cut_off.mp4: "),
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


def test_files_that_are_no_videos_or_too_large_are_refused_before_they_are_sent(page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with (tmp_path / "large.mp4").open("wb") as large:
        large.truncate(101 * 2**20)
    for name, sentence in (("notes.txt", "Invalid file type: notes.txt"), ("large.mp4", "exceed the maximum allowed size of 100")):
        upload(page, tmp_path / name)
        wait_for(lambda sentence=sentence: sentence in text_of(page, ".toast-body"), sentence)  # type: ignore[misc]
    page.get_log("browser")  # the refusals are told there as well


def test_while_the_slider_moves_on_only_the_last_position_counts(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    all_of(page, "#snr input[type=range]")[0].send_keys(Keys.ARROW_RIGHT * 17)
    wait_for(lambda: "babble at 17 dB" in remark(page), "the last position")
    time.sleep(1)
    assert "babble at 17 dB" in remark(page)  # no answer to an earlier position comes late


def test_transcripts_can_be_kept_as_captions_and_json(page: Any) -> None:
    links = page.execute_script("return [...document.querySelectorAll('#transcripts a[download]')].map(a => [a.download, a.href])")
    assert [name.rsplit("_", 1)[-1] for name, _ in links] == ["a.srt", "a.json", "v.srt", "v.json", "av.srt", "av.json"]
    read = "const done = arguments[1]; fetch(arguments[0]).then(r => r.text()).then(done)"
    assert "words" in json.loads(page.execute_async_script(read, links[1][1]))


def test_words_stand_below_the_lips_and_unfold_into_a_table(page: Any) -> None:
    lanes = page.execute_script("return [...document.querySelectorAll('#timeline .name')].map(e => e.innerText)")
    assert lanes == ["Lips", "Sound", "Sound only", "Lips only", "Sound and lips", ""]
    wait_for(lambda: page.execute_script("return document.querySelector('#timeline .strip').naturalWidth") == 768, "the strip")
    all_of(page, "#timeline summary")[1].send_keys("\n")  # by the keyboard
    assert "Confidence" in text_of(page, "#timeline th")


def test_everything_can_be_reached_by_the_keyboard_in_the_order_of_the_page(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    wait_for(lambda: all_of(page, "#sound [aria-label='Play']"), "the player")
    page.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    order: list[str] = []
    outlines = []
    for _ in range(60):
        page.switch_to.active_element.send_keys(Keys.TAB)
        part, outline = page.execute_script(
            "const e = document.activeElement, c = getComputedStyle(e); const p = e.closest('#examples, #clip, #reference, #noise, #snr, "
            "#sound, #lips, #transcripts, #timeline'); return [p ? p.id : '', c.outlineStyle + c.boxShadow + c.borderColor]"
        )
        if part == "":
            break
        outlines.append(outline)
        order += [part] if part not in order[-1:] else []
    assert order == ["examples", "clip", "reference", "noise", "snr", "sound", "lips", "transcripts", "timeline"]
    first = all_of(page, "#examples button")[3]
    first.send_keys("\n")
    wait_for(lambda: "bin red soon" in text_of(page, "#transcripts .said"), "the fourth example, chosen by the keyboard")


def test_everything_has_a_name(page: Any) -> None:
    nameless = page.execute_script(
        "return [...document.querySelectorAll('button, input:not([type=file]), textarea, a, summary, img, [role=img], [role=region]')]"
        ".filter(e => e.getClientRects().length && !(e.ariaLabel || e.alt || e.title || e.innerText.trim() || "
        "(e.labels && [...e.labels].some(l => l.innerText.trim())))).map(e => e.outerHTML.slice(0, 100))"
    )
    assert nameless == []
    levels = page.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].filter(e => e.getClientRects().length).map(e => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.execute_script("return document.documentElement.lang")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(page: Any, server: str, theme: str) -> None:
    page.get(f"{server}/?__theme={theme}")
    wait_for(lambda: all_of(page, "#timeline .lane") and all_of(page, "#sound [aria-label='Play']"), "the first answer")
    page.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    time.sleep(1)  # until colours have changed
    assert page.execute_script((Path(__file__).with_name("contrast.js")).read_text()) == []


def test_who_wants_no_motion_gets_none(page: Any, server: str) -> None:
    wish = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
    try:
        slow = "e => parseFloat(getComputedStyle(e).transitionDuration) > 0.01"
        moving = f"return [...document.querySelectorAll('.gradio-container *')].filter({slow}).length"
        assert page.execute_script(moving) == 0
        assert page.execute_script("return [...document.querySelectorAll('video')].every(v => v.paused && !v.autoplay)")
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_pictures_for_the_documentation_are_taken(page: Any, server: str, tmp_path: Path) -> None:
    import cv2

    picture = cv2.imread(str(take(page, server, SHOTS[2], tmp_path)))
    assert picture is not None
    assert SHOTS[2].width - 20 <= picture.shape[1] <= SHOTS[2].width
    assert picture.shape[0] > 2000  # the whole page


@pytest.mark.parametrize(("width", "columns"), [(1920, 3), (1400, 3), (1024, 3), (520, 1), (360, 1)])
def test_nothing_is_cut_off_at_any_width(page: Any, width: int, columns: int) -> None:
    resize(page, width)
    time.sleep(0.5)
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    lefts = page.execute_script("return [...document.querySelectorAll('#transcripts .card')].map(c => c.getBoundingClientRect().left)")
    assert len(set(lefts)) == columns
    outside = page.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length && !e.closest('.lanes, .scroll') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className)"
    )
    assert outside == []
    edge = page.execute_script("return document.querySelector('#examples').getBoundingClientRect().right")
    rights = page.execute_script("return [...document.querySelectorAll('#examples button')].map(b => b.getBoundingClientRect().right)")
    assert max(rights) <= edge

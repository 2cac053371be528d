"""Ten visitors at once, who talk to the server as browsers do: each gets the answer to what they asked, and nothing piles up.

No browser is needed: uploads, the queue and the stream of answers are plain HTTP.
"""

import itertools
import json
import resource
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from demos import demo_page
from demos.demo_answers import Page
from demos.demo_examples import gather_voices, pick_examples
from demos.demo_page import build
from demos.demo_reading import Reader
from demos.noisy_clip import Studio
from demos.noisy_speech import launch
from tests.demos import made_demo
from tests.made_model import tiny_recognizer

VISITORS = 10

pytestmark = pytest.mark.slow


class Visitor:
    """One browser: its session, and calls as the page makes them."""

    def __init__(self, address: str) -> None:
        self.address, self.session = address.rstrip("/"), uuid.uuid4().hex
        with urllib.request.urlopen(f"{self.address}/config", timeout=60) as reply:
            self.events = {each["api_name"]: each["id"] for each in json.load(reply)["dependencies"]}

    def post(self, path: str, body: bytes, kind: str) -> Any:
        request = urllib.request.Request(f"{self.address}/gradio_api{path}", body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)

    def upload(self, path: Path) -> dict[str, Any]:
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\nContent-Type: video/mp4\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        (place,) = self.post("/upload", body, f"multipart/form-data; boundary={mark}")
        return {"path": place, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def ask(self, event: str, data: list[Any]) -> list[Any]:
        """What the page answers, once it has been its turn in the queue."""
        body = {"data": data, "event_data": None, "fn_index": self.events[event], "trigger_id": None, "session_hash": self.session}
        self.post("/queue/join", json.dumps(body).encode(), "application/json")
        with urllib.request.urlopen(f"{self.address}/gradio_api/queue/data?session_hash={self.session}", timeout=300) as stream:
            for line in stream:
                said = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if said.get("msg") == "process_completed":
                    assert said["success"], said
                    return list(said["output"]["data"])
        raise AssertionError("the stream ended without an answer")


@pytest.fixture
def page(tmp_path: Path) -> Page:
    corpus = made_demo.save_videos(tmp_path / "corpus")
    (tmp_path / "lips").mkdir()
    return Page(Studio([Reader("tiny", tiny_recognizer())], gather_voices(corpus), tmp_path / "lips"), pick_examples(corpus, 4))


@pytest.fixture
def server(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    blocks = build(page, "a model")
    try:
        yield launch(blocks, "127.0.0.1", None, [str(tmp_path)])
    finally:
        blocks.close()
    assert not left(tmp_path)  # the end of the page is the end of all uploads and sounds


def test_ten_visitors_get_their_own_answers_and_leave_nothing_behind(page: Page, server: str, tmp_path: Path) -> None:
    examples = page.examples
    start = threading.Barrier(VISITORS)

    def visit(number: int) -> tuple[int, list[str]]:
        visitor = Visitor(server)
        clip = {"video": visitor.upload(examples[number % 4].path)["path"]}
        start.wait(timeout=120)
        answers = []
        for turn in range(3):
            snr = -5 + number + turn
            file = {"path": clip["video"], "orig_name": "clip.mp4", "meta": {"_type": "gradio.FileData"}}
            event = "show" if turn == 0 else "remix"
            answers.append(str(visitor.ask(event, [file, made_demo.SENTENCES[number % 4], "babble", snr, None])[2]))
        return number, answers

    def visit_all() -> None:
        with ThreadPoolExecutor(VISITORS) as pool:
            for number, answers in pool.map(visit, range(VISITORS)):
                for turn, markup in enumerate(answers):
                    snr = -5 + number + turn
                    assert f"babble at {snr} dB".replace("-", "−") in markup
                    expected = page.remix(str(examples[number % 4].path), made_demo.SENTENCES[number % 4], ("babble", snr, None))
                    assert without_remark(markup) == without_remark(str(expected.transcripts))

    visit_all()
    sizes = []
    for _ in range(3):
        visit_all()
        sizes.append(resident())
    assert all(after - before < 30 * 2**20 for before, after in itertools.pairwise(sizes))
    assert len(list((tmp_path / "lips").iterdir())) == 4
    assert left(tmp_path)


def test_uploads_are_deleted_while_the_page_goes_on(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setattr(demo_page, "KEPT_SECONDS", 2)
    blocks = build(page, "a model")
    try:
        place = Path(Visitor(launch(blocks, "127.0.0.1", None, [str(tmp_path)])).upload(page.examples[0].path)["path"])
        end = time.monotonic() + 120
        while place.exists():
            assert time.monotonic() < end, "the upload was kept"
            time.sleep(0.2)
    finally:
        blocks.close()


def left(folder: Path) -> list[Path]:
    """Uploads and sounds that lie there."""
    return [path for path in (folder / "uploads").rglob("*") if path.suffix in (".mp4", ".wav")]


def resident() -> int:
    """Bytes of memory of this process, in which the server runs as well."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def without_remark(markup: str) -> str:
    """Transcripts but for how long they took."""
    head, _, tail = markup.partition('<p class="remark">')
    return head + tail.partition("</p>")[2]

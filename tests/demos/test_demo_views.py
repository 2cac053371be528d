"""What is drawn is what was read: words where they are said, symbols where they were found, captions that can be kept."""

import base64
import json
import re
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from avtlm.decoding.result import Transcript, Word
from demos import demo_views
from demos.demo_reading import Reading, Trace
from demos.noisy_clip import Outcome

WORDS = (Word("set", 0.2, 0.6, 0.9), Word("<red>", 1.0, 1.5, 0.3))
READING = Reading(Transcript("set <red>", WORDS, duration=2.0), Trace("CTC posteriors", ("s", "<"), np.eye(2, 50, dtype=np.float16)))
CROPS = np.arange(50, dtype=np.uint8)[:, None, None].repeat(96, 1).repeat(96, 2)


def decode(address: str) -> np.ndarray:
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))


def made(names: tuple[str, ...] = ("one",)) -> Outcome:
    wave = (8000 * np.sin(np.arange(32000) / 5)).astype(np.int16)
    return Outcome(wave, {name: {"a": READING, "v": READING, "av": READING} for name in names})


def test_words_stand_where_they_are_said_and_doubtful_ones_are_told_apart() -> None:
    markup = demo_views.timeline(made(), CROPS)
    boxes = re.findall(r'class="(word[ \w]*)" style="left:([\d.]+)%;width:([\d.]+)%"', markup)
    assert boxes == [("word", "10.00", "20.00"), ("word doubtful", "50.00", "25.00")] * 3
    assert "&lt;red&gt;: 1.00 to 1.50 s, 30 % sure" in markup
    assert "<red>" not in markup


def test_words_without_times_are_still_shown() -> None:
    found = Reading(Transcript("set red", (Word("set"), Word("red")), duration=2.0), None)
    markup = demo_views.timeline(Outcome(np.zeros(32000, np.int16), {"one": {"a": found}}), CROPS)
    assert "set red (without times)" in markup
    assert "no places to show" in markup


def test_the_table_has_a_row_for_every_word() -> None:
    markup = demo_views.table({"a": READING, "v": READING})
    assert markup.count("<tr>") == 1 + 4
    assert "<td>Lips only</td><td>&lt;red&gt;</td><td>1.00</td><td>1.50</td><td>30 %</td>" in markup


def test_captions_and_json_can_be_kept() -> None:
    markup = demo_views.foot(READING, "runs/my model_av")
    names, addresses = re.findall(r'download="([^"]+)"', markup), re.findall(r'href="data:text/plain;charset=utf-8,([^"]+)"', markup)
    assert names == ["runs_my_model_av.srt", "runs_my_model_av.json"]
    assert unquote(addresses[0]).startswith("1\n00:00:00,200 --> ")
    assert json.loads(unquote(addresses[1]))["words"][1] == {"word": "<red>", "start": 1.0, "end": 1.5, "confidence": 0.3}
    assert "60 %" in markup


def test_the_picture_of_places_is_dark_where_a_symbol_was_found() -> None:
    assert READING.trace is not None
    address = re.search(r'src="(data:[^"]+)"', demo_views.found("Lips only", READING.trace))
    assert address is not None
    picture = decode(address.group(1))
    assert picture.shape == (2, 50, 3)
    assert picture[0, 0].tolist() == demo_views.BLUE[::-1].tolist()
    assert picture[0, 1].tolist() == [255, 255, 255]


def test_the_strip_goes_through_the_clip() -> None:
    strip = demo_views.strip(CROPS, 5)
    assert strip.shape == (64, 320)
    assert strip[0, ::64].tolist() == [5, 15, 25, 35, 45]


def test_the_waveform_says_how_loud_it_is_and_reaches_that_high() -> None:
    loud = np.zeros(16000, np.int16)
    loud[8000] = 16384
    markup = demo_views.waveform(loud, 1.0)
    assert "peak is at 50 % of full scale" in markup
    assert "200,0.500 " in markup


@pytest.mark.parametrize("names", [("one",), ("one", "<two>")])
def test_models_are_named_where_there_are_several(names: tuple[str, ...], tmp_path: Path) -> None:
    markup = demo_views.comparison("set red", made(names), "a remark") + demo_views.timeline(made(names), CROPS)
    assert ('<h3 class="model">one</h3>' in markup) == (len(names) > 1)
    assert ("&lt;two&gt;" in markup) == (len(names) > 1)
    assert markup.count("a remark") == 1

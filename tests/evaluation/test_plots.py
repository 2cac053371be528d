"""Claims about the picture, the text plot and the tables of the main result."""

import hashlib

import pytest
from rich.console import Console

from avtlm.evaluation.plots import conditions, text_plot, wer_against_snr, wer_markdown, wer_table

SNRS = ["clean", "10", "5", "0", "-5", "-10"]
RATES = {"a": [19.8, 32.8, 45.4, 67.8, 89.4, 95.2], "v": [27.1] * 6, "av": [12.4, 15.0, 15.9, 18.8, 23.7, 28.6]}
REPORT = {
    "wer": {modality: dict(zip(SNRS, row)) for modality, row in RATES.items()},
    "interval_95": {modality: {name: [rate - 2, rate + 2] for name, rate in zip(SNRS, row)} for modality, row in RATES.items()},
}
PLAIN = {"wer": REPORT["wer"]}
ONE = {"wer": {"av": {"clean": 0.0}}}
RAGGED = {"wer": {"a": {"0": 120.0, "-5": 130.5}, "av": {"clean": 10.0}}}


@pytest.mark.parametrize("report", [REPORT, PLAIN, ONE, RAGGED], ids=["full", "no intervals", "one point", "ragged"])
def test_the_picture_is_a_png_with_the_asked_for_size(tmp_path, report):
    path = tmp_path / "deep" / "wer.png"
    wer_against_snr(report, path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (1600, 920)
    assert [entry.name for entry in path.parent.iterdir()] == ["wer.png"]


def test_the_same_report_gives_the_same_picture(tmp_path):
    for name in ("one.png", "two.png"):
        wer_against_snr(REPORT, tmp_path / name)
    one, two = (hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("one.png", "two.png"))
    assert one == two


def test_conditions_go_from_clean_to_heavy_noise():
    assert conditions(REPORT) == SNRS
    assert conditions(RAGGED) == ["clean", "0", "-5"]


@pytest.mark.parametrize("report", [REPORT, PLAIN, ONE, RAGGED], ids=["full", "no intervals", "one point", "ragged"])
def test_the_text_plot_fits_its_width_and_names_every_curve(report):
    text = text_plot(report, width=72, height=12)
    lines = text.split("\n")
    assert len(lines) == 12 + 3
    assert all(len(line) <= 72 for line in lines)
    for modality, name in {"a": "A audio only", "v": "V video only", "av": "# audio-visual"}.items():
        assert (name in lines[0]) == (modality in report["wer"])
    assert "clean" in lines[-1]


def test_higher_rates_stand_higher_in_the_text_plot():
    lines = text_plot(REPORT).split("\n")[1:-2]
    first = {sign: min(index for index, line in enumerate(lines) if sign in line) for sign in "AV#"}
    assert first["A"] < first["V"] <= first["#"]


def test_tables_show_every_rate_and_mark_the_best_of_each_column():
    markdown = wer_markdown(REPORT).split("\n")
    assert markdown[0] == "| input | clean | 10 dB | 5 dB | 0 dB | \u22125 dB | \u221210 dB |"
    assert "| **12.4 (10.4-14.4)** |" in markdown[4]
    assert markdown[3].endswith("| **27.1 (25.1-29.1)** |")
    assert wer_markdown(RAGGED).split("\n")[2] == "| Audio only |  | **120.0** | **130.5** |"
    with open("/dev/null", "w") as sink:
        console = Console(width=160, record=True, file=sink)
        console.print(wer_table(REPORT))
    text = console.export_text()
    assert all(f"{rate:.1f} (" in text for row in RATES.values() for rate in row)


@pytest.mark.parametrize(
    ("report", "message"),
    [({}, "no word error rates"), ({"wer": {"a": {}}}, "no word error rates"), ({"wer": {"a": {"loud": 1.0}}}, "neither 'clean' nor")],
)
def test_a_report_without_rates_is_refused_in_one_sentence(tmp_path, report, message):
    for draw in (lambda: wer_against_snr(report, tmp_path / "x.png"), lambda: text_plot(report), lambda: wer_markdown(report)):
        with pytest.raises(ValueError, match=message):
            draw()
    assert list(tmp_path.iterdir()) == []

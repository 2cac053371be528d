"""The page: its tables are those of the committed results, its words follow from figures, and it says what has not been run."""

from pathlib import Path

import pytest

from benchmarks.evidence.claims import CLAIMS, Measure
from benchmarks.evidence.page import PAGE, RESULTS, cell, filled, section, summary
from benchmarks.evidence.runs import RUNS, read_results
from tests.benchmarks.evidence.made_results import report, write
from tests.benchmarks.evidence.test_recipes import quick, spoken

NOTHING = dict.fromkeys(RUNS)


def in_favour(row: str, measure: Measure) -> list[float]:
    """Whatever a claim calls better is better, certainly."""
    better = {"speechlm_with", "vatlm", "with", "whole", "mt4ssl", "distilled", "pretrained", "av", "av_mae/none", "av_mae/italian"}
    good = 30.0 if row in better else 10.0
    if row == "av_mae/italian":
        good = 40.0
    sign = 1.0 if measure.higher else -1.0
    return [50.0 + sign * good + seed for seed in (0.0, 1.0, 0.5)]


def against(row: str, measure: Measure) -> list[float]:
    return [100.0 - each for each in in_favour(row, measure)]


def alike(row: str, measure: Measure) -> list[float]:
    """Noise, and as much of it on both sides."""
    return [10.0, 50.0, 90.0] if row == "whole" else [50.0, 90.0, 10.0]


def test_the_committed_page_is_what_the_committed_results_give() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text, RESULTS) == text, "run python -m benchmarks.evidence --page, and commit the page"


def test_writing_tables_anew_changes_nothing_else(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert filled(filled(text, tmp_path), RESULTS) == filled(text, RESULTS)
    for name in RUNS:
        write(tmp_path, name, report(name, in_favour))
    assert filled(filled(text, tmp_path), RESULTS) == filled(text, RESULTS)


@pytest.mark.parametrize(("figures", "word"), [(in_favour, "agrees"), (against, "contrary")])
@pytest.mark.parametrize("name", CLAIMS)
def test_the_word_of_every_claim_follows_from_the_figures(name: str, figures: object, word: str) -> None:
    reports = NOTHING | {run: report(run, figures) for run in CLAIMS[name].runs}  # type: ignore[arg-type]
    assert section(name, reports).startswith(f"Outcome: **{word}** (")
    row = next(line for line in summary(reports).splitlines() if line.startswith(f"| [{CLAIMS[name].title}]"))
    assert f"| **{word}** |" in row


def test_noise_alone_shows_no_difference() -> None:
    reports = NOTHING | {"mandarin": report("mandarin", alike)}
    assert section("mmspeech", reports).startswith("Outcome: **no difference shown** (")


def test_what_has_not_been_run_has_a_command_and_no_figure() -> None:
    for name, claim in CLAIMS.items():
        said = section(name, NOTHING)
        assert said.count("**Not yet run.**") == len(claim.runs)
        assert f"`make evidence SYSTEM={name}`" in said
        assert "Outcome" not in said
        assert "---" not in said
    assert summary(NOTHING).count("| not yet run | - |") == len(CLAIMS)


def test_a_claim_of_which_a_deciding_run_is_open_has_no_word_yet() -> None:
    """SpeechT5's further run compares nothing, so that its word does not wait for it."""
    reports = NOTHING | {"spoken_ablation": report("spoken_ablation", in_favour)}
    assert section("speecht5", reports).startswith("Outcome: **agrees**")
    assert "**Not yet run.**" in section("speecht5", reports)
    reports = NOTHING | {"speaking": report("speaking", in_favour)}
    assert "Outcome" not in section("speecht5", reports)
    assert "| SpeechT5 |" not in section("speecht5", reports)


def test_a_row_that_results_lack_is_left_out_and_one_that_is_compared_is_missed() -> None:
    found = report("speaking", in_favour)
    del found["results"]["wer"]["whisper"]
    assert "Whisper" not in section("speecht5", NOTHING | {"speaking": found})
    found = report("mandarin", in_favour)
    del found["results"]["p2t"]
    with pytest.raises(ValueError, match="mandarin: the results have no CER, %: known voices of 'p2t'"):
        section("mmspeech", NOTHING | {"mandarin": found})


def test_a_cell_has_mean_range_and_half_the_interval() -> None:
    assert cell({"seeds": [10.0, 15.0, 12.5]}, 1) == "12.5 (10.0-15.0) ±6.2"
    assert cell({"seeds": [3.14159]}, 2) == "3.14"
    assert cell({"seeds": [3.14], "interval_95": [2.0, 4.26]}, 1) == "3.1 [2.0-4.3]"


def test_how_it_was_measured_is_said_as_far_as_the_results_say_it() -> None:
    found = report("mandarin", in_favour) | {"plan": {"labels": 9, "steps": [1, 2], "seeds": 3, "changes": ["max_rows=4"], "left": None}}
    said = section("mmspeech", NOTHING | {"mandarin": found})
    assert (
        "Measured by `python -m benchmarks.mandarin`; 3 seeds; 2.0 h of stages; Abacus, 2 cores, Python 3.11, PyTorch 2.11. "
        "Settings: labels 9, steps 1 + 2, changed `max_rows=4`."
    ) in said
    bare = {"results": found["results"]}
    assert "Measured by `python -m benchmarks.mandarin`; time not recorded." in section("mmspeech", NOTHING | {"mandarin": bare})


def test_a_page_without_its_marks_is_refused(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"evidence\.md: wants one pair of marks .* look at vatlm"):
        filled(text.replace("<!-- evidence:vatlm:begin -->", ""), tmp_path)
    with pytest.raises(ValueError, match="look at vatlm"):
        filled(text + "<!-- evidence:vatlm:begin -->\n<!-- evidence:vatlm:end -->\n", tmp_path)


def test_damaged_results_are_named(tmp_path: Path) -> None:
    for content in ("{", "[]"):
        (tmp_path / "mandarin.json").write_text(content)
        with pytest.raises(ValueError, match=r"mandarin\.json: .*delete the file"):
            read_results(tmp_path, "mandarin")


def test_a_report_of_a_recipe_is_taken_as_it_is_and_decides_nothing_alone(tmp_path: Path) -> None:
    write(tmp_path, "quickstart", quick(1, 10.0))
    write(tmp_path, "speaking", spoken(1, True))
    reports = {name: read_results(tmp_path, name) for name in RUNS}
    assert section("avhubert", reports).startswith("Outcome: **not decided** (8 not decided; ")
    assert "| both | 10.0 [9.0-11.0] |" in section("avhubert", reports)
    assert "| Whisper tiny.en | 10.0 [9.0-11.0] |" in section("speecht5", reports)
    assert "; 1 seed; " in section("avhubert", reports)
    write(tmp_path, "quickstart", {"wer": {}})
    with pytest.raises(ValueError, match=r"quickstart\.json: is no report of demos\.quickstart"):
        read_results(tmp_path, "quickstart")


def test_headings_of_the_page_are_where_its_summary_points() -> None:
    headings = {line.removeprefix("## ").lower() for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")}
    assert {claim.title.lower() for claim in CLAIMS.values()} <= headings

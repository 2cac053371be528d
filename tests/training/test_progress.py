"""Progress never touches standard output or the items, and says something useful without a terminal."""

import io

import pytest
from rich.console import Console

from avtlm.training import progress
from avtlm.training.progress import Bar, bar, duration_text, rate_text, track


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def plain() -> Console:
    return Console(file=io.StringIO(), width=120)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_track_yields_the_items_and_keeps_standard_output_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""


def test_leaving_early_closes_the_display() -> None:
    for _ in track(range(5), "numbers"):
        break
    assert progress._open_bars == 0


def test_a_failing_block_closes_the_display() -> None:
    with pytest.raises(RuntimeError), bar("outer", console=terminal()), bar("inner"):
        raise RuntimeError
    assert progress._open_bars == 0
    assert progress._display is None


def test_nested_bars_share_one_display() -> None:
    console = terminal()
    with bar("outer", 2, console=console) as outer, bar("inner", 3, console=console) as inner:
        inner.advance(3, "loss 1.5")
        outer.advance()
        assert progress._display is not None
        assert len(progress._display.tasks) == 2
    assert "outer" in written(console)


def test_without_a_terminal_long_jobs_print_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    console = plain()
    with bar("lips", 4, done=1, console=console) as current:
        current.advance(note="3 broken")
    lines = written(console).splitlines()
    assert lines[0].startswith("lips: 2/4, ")
    assert lines[0].endswith("left, 3 broken")
    assert "took" in lines[1]


def test_without_a_terminal_short_jobs_are_silent() -> None:
    console = plain()
    with bar("quick", 4, console=console) as current:
        current.advance()
    assert written(console) == ""


def test_a_line_without_a_total_counts() -> None:
    current = Bar(plain(), "frames", None, 0)
    current.advance(7)
    assert current.line().startswith("frames: 7, ")


def test_rates_and_durations_read_well() -> None:
    assert [rate_text(rate) for rate in (None, 0.25, 12.345)] == ["", "4 s each", "12.3/s"]
    assert [duration_text(seconds) for seconds in (7.31, 125, 3725)] == ["7.3 s", "2:05 min", "1:02 h"]

"""`avtlm units` and its verbs of two words: what they write and print, and one sentence for wrong use."""

from pathlib import Path

import pytest

from avtlm import cli
from avtlm.units.labels import read_labels
from tests.test_cli import failure
from tests.units.made_text2unit import lines, save_fast


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_fast(tmp_path_factory.mktemp("made") / "model"))


def text(folder: Path, *more: str) -> str:
    path = folder / "text.txt"
    path.write_text("".join(f"{line}\n" for line in [*lines(5), *more]))
    return str(path)


@pytest.mark.parametrize("verb", cli.TWO_WORDS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*verb.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: avtlm {verb}" in capsys.readouterr().out


def test_units_are_made_from_a_manifest(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["units", str(corpus), str(tmp_path / "units"), "--clusters", "4", "--fit-split", "test"]) == 0
    assert "6 utterances" in capsys.readouterr().out
    files = sorted(path.name for path in (tmp_path / "units").iterdir())
    assert files == ["kmeans.json", "kmeans.safetensors", "manifest.report.json", "manifest.units"]


def test_units_of_a_large_corpus_are_made_in_parts(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["units", str(corpus), str(tmp_path / "units"), "--dump", str(tmp_path / "dump"), "--clusters", "4", "--fit-split", "test"]
    assert cli.main([*common, "--shard", "2/2"]) == 0
    assert "shard 2/2: 0 pieces done, 1 missing" in capsys.readouterr().out
    assert cli.main([*common, "--shard", "1/2"]) == 0
    assert "shard 1/2: 1 pieces done, all there: run it without --shard" in capsys.readouterr().out
    assert cli.main([*common, "--km"]) == 0
    text = capsys.readouterr().out
    assert "6 utterances" in text
    assert "4 units in use, perplexity" in text
    assert (tmp_path / "units" / "km" / "dict.km.txt").read_text() == "0 1\n1 1\n2 1\n3 1\n"
    assert "shard: '3'; write it as 2/8" in failure(capsys, *common, "--shard", "3")
    assert "shard: 3/2" in failure(capsys, *common, "--shard", "3/2")


def test_units_are_written_for_a_text_and_missing_words_listed(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["units", "text2units", text(tmp_path, "the zebra sat"), "--model", model, "-o", str(tmp_path / "out.units")]
    assert cli.main([*given, "--missing", str(tmp_path / "missing.txt")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("5 of 6 lines, ")
    assert "lines/s" in captured.out
    assert "1 of " in captured.err
    assert "'zebra' 1x" in captured.err
    assert (tmp_path / "missing.txt").read_text() == "zebra 1\n"
    assert list(read_labels(tmp_path / "out.units")) == [f"text-{number}" for number in range(1, 6)]


def test_phones_are_units_without_a_model(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lexicon = str(Path(model) / "lexicon.txt")
    given = ["units", "text2units", text(tmp_path), "--lexicon", lexicon, "--unknown", "spn", "-o", str(tmp_path / "out.phn")]
    assert cli.main([*given, "--no-durations"]) == 0
    assert (tmp_path / "out.phn").read_text().splitlines()[0].split()[0] == "SIL"
    assert "DH" in (tmp_path / "dict.phn.txt").read_text()
    assert "dict.phn.txt" in capsys.readouterr().out


def test_labels_are_reduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.units").write_text("x\t1 1 2\ny\t3\n")
    given = ["units", "reduce", str(tmp_path / "a.units"), "-o", str(tmp_path / "b.units"), "--durations", str(tmp_path / "c.units")]
    assert cli.main(given) == 0
    assert (tmp_path / "b.units").read_text() == "x\t1 2\ny\t3\n"
    assert (tmp_path / "c.units").read_text() == "x\t2 1\ny\t1\n"
    assert "2 utterances, 4 frames, 3 units" in capsys.readouterr().out


def test_wrong_use_is_one_sentence(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["units", "text2units", text(tmp_path), "--model", model, "-o", str(tmp_path / "out.units")]
    assert "are for phones as units" in failure(capsys, *given, "--alphabet", "ipa", code=2)
    assert "--beam 0: give at least 1" in failure(capsys, *given, "--beam", "0", code=2)


def test_bad_input_is_one_sentence(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = ["--model", model, "-o", str(tmp_path / "out.units")]
    assert "is empty, as 1 of 7 lines are" in failure(capsys, "units", "text2units", text(tmp_path, "", "a"), *rest)
    assert "none.txt" in failure(capsys, "units", "text2units", str(tmp_path / "none.txt"), *rest)
    (tmp_path / "dict.txt").write_text("SIL 1\n")
    lexicon = ["--lexicon", str(Path(model) / "lexicon.txt"), "--unknown", "spn", "--dictionary", str(tmp_path / "dict.txt")]
    sentence = failure(capsys, "units", "text2units", text(tmp_path), *lexicon, "-o", str(tmp_path / "out.phn"))
    assert "is not in the dictionary of 1 units; add it there" in sentence


def test_a_manifest_may_still_be_the_first_word_of_units() -> None:
    options = cli.parse(["units", "text2units.jsonl", "out"])
    assert (options.verb, options.manifest) == ("units", "text2units.jsonl")

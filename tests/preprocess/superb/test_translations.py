"""CoVoST 2."""

from pathlib import Path

from preprocess.superb.translations import plain_punctuation, usable
from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare


def test_punctuation_gets_one_form() -> None:
    assert plain_punctuation("„Ja“ , sagte er –  ‚nein‘ …") == "\"Ja\", sagte er - 'nein'..."
    assert plain_punctuation("Gut.") == "Gut."


def test_pairs_that_do_not_go_together_are_not_usable() -> None:
    assert usable("one two three", "eins zwei")
    assert not usable("one two three four five six", "eins")
    assert not usable("REMOVE this", "dies weg")
    assert not usable("", "eins")


def test_clips_have_both_texts_and_unusable_pairs_are_named(tmp_path: Path) -> None:
    root = tmp_path / "en"
    names = ("train", "dev", "test", "odd")
    text(root / "validated.tsv", "client_id\tpath\tsentence", *(f"ann\t{name}.wav\tGood morning {name}." for name in names))
    rows = [f"{name}.wav\t„Guten Morgen“ {name} .\t{name}" for name in names[:3]] + ["odd.wav\tREMOVE\ttrain"]
    text(root / "covost_v2.en_de.tsv", "path\ttranslation\tsplit", *rows)
    for name in names:
        sound(root / "clips" / f"{name}.wav")
    corpus = prepare("ST", root, tmp_path / "out")
    assert (corpus.name, corpus.about["target"]) == ("CoVoST 2 en-de", "de")
    (clip,) = clips(corpus, "train").values()
    assert (clip.text("text"), clip.text("translation")) == ("Good morning train.", '"Guten Morgen" train.')
    assert "odd.wav\tits two texts do not go together" in (tmp_path / "out" / "left_out.tsv").read_text()

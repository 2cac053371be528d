"""Model cards say what a model is, what it was trained on and how it did, in the form that the hub reads."""

import json
from pathlib import Path

import pytest
import yaml

from avtlm.model_card import NO_LICENCE, UNKNOWN, licence_of, model_card, with_licence
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import journal, recognition, run

SETTINGS = {"system": "vatlm", "task": "recognition"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def trained(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 4 steps that keeps every kind of model."""
    changes = {"steps": 4, "validate_every": 2, "average": 2, "save_every": 4, "ema": 0.9}
    return run(recognition(corpus, tmp_path_factory.mktemp("runs") / "reader", **changes)).parent


def front(card: str) -> dict[str, object]:
    assert card.startswith("---\n")
    found = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_front_matter_is_what_the_hub_reads() -> None:
    found = front(model_card("reader", SETTINGS, 1000, licence="apache-2.0"))
    assert found == {
        "license": "apache-2.0",
        "library_name": "avtlm",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["avtlm", "vatlm", "recognition"],
    }
    assert "pipeline_tag" not in front(model_card("units", {"system": "text2unit", "task": "text_to_units"}, 1000))
    assert front(model_card("old", {"system": "vatlm"}, 1000))["license"] == UNKNOWN


@pytest.mark.parametrize("folder", ["model", "best", "candidates/step4", "model/ema"])
def test_every_model_that_a_run_saves_has_its_card(trained: Path, folder: str) -> None:
    card = (trained / folder / "README.md").read_text()
    best = json.loads((trained / "model" / "trainer" / "state.json").read_text())["best"]
    lines = {line["step"]: line for line in journal(trained / "model") if "valid_wer" in line}
    step = next(step for step, line in lines.items() if line["valid_wer"] == best) if folder == "best" else 4
    assert front(card)["tags"] == ["avtlm", "vatlm", "recognition"]
    assert f"| steps | {step} of 4 |" in card
    assert f"Measured after step {step} " in card
    assert f"| word error rate (%) | {100 * lines[step]['valid_wer']:.4g} |" in card
    assert "labelled (recognition): " in card
    assert "avtlm transcribe VIDEO --model FOLDER" in card
    assert NO_LICENCE in card


def test_no_path_of_this_machine_is_told(trained: Path, corpus: MadeCorpus) -> None:
    for card in trained.rglob("README.md"):
        assert str(corpus.clips.parents[2]) not in card.read_text()


def test_an_average_says_of_what(trained: Path) -> None:
    card = (trained / "average" / "README.md").read_text()
    assert "The mean of the weights of 2 models: step2, step4." in card
    assert front(card)["license"] == UNKNOWN


def test_a_run_that_goes_on_tells_the_figures_of_its_log(corpus: MadeCorpus, tmp_path: Path) -> None:
    """Between two validations the last one counts, also one that another process has made."""
    settings = recognition(corpus, tmp_path / "run", validate_every=2, save_every=3)
    run(settings | {"steps": 2})
    rate = [line["valid_wer"] for line in journal(tmp_path / "run" / "model") if "valid_wer" in line][-1]
    changed = json.loads(json.dumps(settings)) | {"steps": 3, "validate_every": 50}
    run(changed)
    later = [line for line in journal(tmp_path / "run" / "model") if "valid_wer" in line]
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"| word error rate (%) | {100 * later[-1]['valid_wer']:.4g} |" in card
    assert later[0]["valid_wer"] == rate


def test_a_licence_is_set_and_read_again() -> None:
    card = model_card("reader", SETTINGS, 1000)
    assert licence_of(card) == UNKNOWN
    changed = with_licence(card, "mit", SETTINGS)
    assert licence_of(changed) == "mit"
    assert NO_LICENCE not in changed
    assert changed.count("license:") == 1
    assert licence_of(with_licence("# Old\n\nText.\n", "mit", SETTINGS)) == "mit"
    assert with_licence("# Old\n\nText.\n", "mit", SETTINGS).endswith("# Old\n\nText.\n")
    assert licence_of(with_licence("---\ntags: [a]\n---\n\n# Own\n", "mit", SETTINGS)) == "mit"


def test_figures_that_are_not_finite_say_so() -> None:
    card = model_card("reader", SETTINGS, 1000, figures={"valid_loss": float("nan"), "valid_wer": 0.125}, step=7)
    assert "| word error rate (%) | 12.5 |\n| loss | not finite |" in card

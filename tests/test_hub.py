"""Models travel to a hub and back whole: checked, without pickles, from the cache where there is no network; what fails says why."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import avtlm
from avtlm import checkpoint, cli
from avtlm.checkpoint import CheckpointError
from avtlm.hub import HubError, pull, push_to_hub
from avtlm.model_card import licence_of
from tests import made_media
from tests.made_hub import TOKEN, Hub, serve
from tests.made_model import save_tiny_recognizer

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "lab/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the library speaks to, with a cache of its own."""
    with serve() as (made, address):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        for name, value in {
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_recognizer(tmp_path_factory.mktemp("made") / "model")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_model_that_was_pushed_is_loaded_by_its_name_and_transcribes(hub: Hub, model: Path) -> None:
    address = push_to_hub(model, NAME, licence="cc-by-4.0", token=TOKEN)
    assert f"/{NAME}/commit/" in address
    loaded = avtlm.load(NAME)
    expected = avtlm.load(model)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in loaded.state_dict().items())
    sound = made_media.chirps(0.5)
    assert avtlm.transcribe(sound, model=NAME, rate=16000).text == avtlm.transcribe(sound, model=model, rate=16000).text
    assert licence_of((pull(NAME) / "README.md").read_text()) == "cc-by-4.0"


def test_only_the_files_of_a_model_travel(hub: Hub, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with checkpoint.replace_folder(folder) as new:
        for name, text in content(model).items():
            (new / name).write_bytes(text)
        (new / "trainer").mkdir()
        (new / "trainer" / "state.json").write_text("{}")
        (new / "notes.pt").write_bytes(b"\x80\x04.")
        (new / "extra.yaml").write_text("a: 1\n")
    push_to_hub(folder, NAME, token=TOKEN)
    ((_, files),) = hub.repositories[NAME].items()
    assert set(files) == {*content(model), "extra.yaml"}


def test_a_model_in_memory_is_pushed_as_it_is_now(hub: Hub, model: Path) -> None:
    changed = avtlm.load(model)
    with torch.no_grad():
        changed.ctc.bias += 1
    push_to_hub(changed, NAME, token=TOKEN)
    assert torch.equal(avtlm.load(NAME).ctc.bias, changed.ctc.bias)


def test_a_folder_comes_before_the_hub(hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_recognizer(Path("lab") / "tiny")
    avtlm.load(NAME)
    avtlm.load(model)
    assert hub.requests == []


def test_without_a_network_the_cache_is_used_and_says_so(hub: Hub, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.commit(NAME, content(model))
    found = pull(NAME)
    hub.down = True
    with caplog.at_level(logging.WARNING, "avtlm"):
        assert pull(NAME) == found
    assert "cannot be reached; what the cache holds is used" in caplog.text


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.down = True
    with pytest.raises(HubError, match=r"lab/tiny: the hub .* cannot be reached \(it answers with status 503\) and the cache does not"):
        avtlm.load(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"the hub \(http://127.0.0.1:9\) cannot be reached \(ConnectError\)"):
        avtlm.load(NAME)
    with pytest.raises(HubError, match="nothing was sent"):
        push_to_hub(avtlm.load(save_tiny_recognizer(Path(constants.HF_HUB_CACHE).parent / "own")), NAME, token=TOKEN)


@pytest.mark.parametrize("file", ["weights.safetensors", "config.yaml"])
def test_a_damaged_file_is_deleted_and_fetched_anew(hub: Hub, model: Path, file: str) -> None:
    hub.commit(NAME, content(model))
    hub.damaged = {file}
    with pytest.raises(HubError, match=f"{file} arrived damaged"):
        pull(NAME)
    hub.damaged = set()
    assert content(pull(NAME)) == content(model)


def test_a_download_that_breaks_off_leaves_no_half_file(hub: Hub, model: Path) -> None:
    hub.commit(NAME, content(model))
    hub.broken = {"weights.safetensors"}
    with pytest.raises(HubError, match="broke off"):
        pull(NAME)
    cached = Path(constants.HF_HUB_CACHE)
    assert not list(cached.rglob("weights.safetensors"))
    hub.down = True
    with pytest.raises(HubError, match="does not hold this model whole"):
        pull(NAME)
    hub.down, hub.broken = False, set()
    assert content(pull(NAME)) == content(model)


def test_pickles_are_neither_fetched_nor_accepted(hub: Hub, model: Path) -> None:
    hub.commit(NAME, {**content(model), "optimizer.pt": b"\x80\x04.", "trainer/state.json": b"{}"})
    assert set(content(pull(NAME))) == set(content(model))
    hub.commit("lab/pickled", {"pytorch_model.bin": b"\x80\x04.", "config.json": b"{}"})
    with pytest.raises(HubError, match=r"pytorch_model\.bin is a pickle, which is never loaded"):
        pull("lab/pickled")
    hub.commit("lab/other", {"model.safetensors": b"", "config.json": b"{}"})
    with pytest.raises(HubError, match=r"is no model of avtlm.*avtlm convert"):
        pull("lab/other")
    assert not any("pytorch_model.bin" in request or "optimizer.pt" in request for request in hub.requests)


def test_a_model_is_fetched_once_and_again_when_it_has_changed(hub: Hub, model: Path) -> None:
    first = hub.commit(NAME, content(model))
    pull(NAME)
    fetched = sum("resolve" in request for request in hub.requests)
    pull(NAME)
    assert sum("resolve" in request for request in hub.requests) == fetched
    second = hub.commit(NAME, {**content(model), "README.md": b"# newer\n"})
    assert (pull(NAME) / "README.md").read_text() == "# newer\n"
    assert pull(NAME).name == second
    assert pull(NAME, revision=first).name == first


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("lab/none", {}, "neither such a folder nor such a model on the hub"),
        ("lab/secret", {}, "or it is private and needs a token"),
        (NAME, {"revision": "v9"}, "has no revision 'v9'"),
        ("one/two/three", {}, "is no name of a model on the hub; write it as owner/name"),
    ],
)
def test_what_is_not_there_says_so(hub: Hub, model: Path, name: str, options: dict[str, str], sentence: str) -> None:
    hub.commit(NAME, content(model))
    hub.commit("lab/secret", content(model))
    hub.private = {"lab/secret"}
    with pytest.raises(HubError, match=sentence):
        pull(name, **options)
    if name == "lab/secret":
        assert pull(name, token=TOKEN).is_dir()


def test_a_name_that_is_no_id_is_a_folder_that_is_missing(hub: Hub) -> None:
    for name in ("./model", "model", "/nowhere/model", Path("lab/tiny")):
        with pytest.raises(CheckpointError, match="is not a folder"):
            avtlm.load(name)
    assert hub.requests == []


def test_a_token_that_may_not_write_is_refused(hub: Hub, model: Path) -> None:
    with pytest.raises(HubError, match="does not know this token, or needs one"):
        push_to_hub(model, NAME, token="hf_other")
    assert NAME not in hub.repositories


def test_the_verbs_push_a_folder_and_pull_it(
    hub: Hub, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["push", str(model), NAME]) == 1
    assert "does not know this token" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert cli.main(["push", str(model), NAME, "--licence", "mit"]) == 0
    assert f"/{NAME}/commit/" in capsys.readouterr().out
    assert cli.main(["pull", NAME]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert licence_of((folder / "README.md").read_text()) == "mit"
    assert cli.main(["pull", "lab/none"]) == 1
    assert "neither such a folder nor such a model" in capsys.readouterr().err


def test_without_the_library_the_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'avtlm\[hub\]'"):
        avtlm.load(NAME)
    assert avtlm.load(model) is not None

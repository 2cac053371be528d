"""Model folders are complete, strict, and never half written, even if the saving process is killed."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from avtlm import checkpoint
from avtlm.checkpoint import CheckpointError, check, load_config, load_decoding, load_into, load_weights, replace_folder, save_model
from avtlm.config import ConfigError

CONFIG = {"system": "vatlm", "encoder": {"dim": 4, "dropout": 1e-5}}


class Words:
    def save(self, folder: Path) -> None:
        (folder / "vocabulary.json").write_text('["a", "b"]')


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    model.tied = nn.Linear(3, 4, bias=False)
    model.tied.weight = model[0].weight
    model.register_buffer("turned", torch.arange(6.0).view(2, 3).T)
    model.register_buffer("scale", torch.tensor(2, dtype=torch.bfloat16))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", make_model(), CONFIG, Words(), {"notes/origin.txt": "here"}, decoding={"beam": 5})
    return tmp_path / "model"


def test_a_saved_model_comes_back_equal(folder: Path) -> None:
    model = make_model(1)
    load_into(model, folder)
    expected = make_model().state_dict()
    weights = load_weights(folder)
    assert set(weights) == set(expected)
    for key, tensor in expected.items():
        assert weights[key].dtype == tensor.dtype
        assert torch.equal(weights[key], tensor), key
        assert torch.equal(model.state_dict()[key], tensor), key
    assert load_config(folder) == CONFIG
    assert load_decoding(folder) == {"beam": 5}
    assert (folder / "notes" / "origin.txt").read_text() == "here"


def test_the_model_card_says_what_the_model_is(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("# model\n")
    assert "vatlm" in card


def test_tied_weights_are_stored_once(folder: Path) -> None:
    content = (folder / "weights.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert ("0.weight" in header) != ("tied.weight" in header)
    weights = load_weights(folder)
    assert weights["0.weight"].data_ptr() == weights["tied.weight"].data_ptr()


def test_equal_models_make_equal_files(folder: Path, tmp_path: Path) -> None:
    """In another process, whose dictionaries and sets may have another order."""
    script = (
        "import sys; from pathlib import Path; from avtlm import checkpoint; from torch import nn\n"
        "class Bare(nn.Module): pass\n"
        "source, target = map(Path, sys.argv[1:]); model = Bare()\n"
        "weights = checkpoint.load_weights(source); model.state_dict = lambda: weights\n"
        "files = {name: (source / name).read_text() for name in ('vocabulary.json', 'notes/origin.txt')}\n"
        "checkpoint.save_model(target, model, checkpoint.load_config(source), None, files, decoding=checkpoint.load_decoding(source))\n"
    )
    copies = []
    for number in range(3):
        copy = tmp_path / f"copy{number}"
        subprocess.run([sys.executable, "-c", script, str(folder), str(copy)], check=True)
        copies.append((copy / "weights.safetensors").read_bytes())
    assert copies[0] == copies[1] == copies[2]


def test_a_save_replaces_the_whole_folder(folder: Path) -> None:
    save_model(folder, make_model(1), {"system": "other"})
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.yaml", "weights.safetensors"]
    assert load_config(folder) == {"system": "other"}
    assert load_decoding(folder) == {}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("file", ["weights.safetensors", "config.yaml", "vocabulary.json", "decoding.yaml"])
def test_each_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    for read in (check, load_config, load_weights):
        with pytest.raises(CheckpointError, match=rf"model: {file} is missing; copy the whole model folder again\.$"):
            read(folder)


def test_a_missing_model_card_does_no_harm(folder: Path) -> None:
    (folder / "README.md").unlink()
    check(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing is not a folder; give the folder of a model"):
        load_weights(tmp_path / "nothing")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pickle"])
def test_damaged_weights_are_refused(folder: Path, damage: str) -> None:
    path = folder / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-5], "empty": b"", "text": b"hello world " * 30, "pickle": pickle.dumps(print)}[damage])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged or not a safetensors file"):
        load_weights(folder)


@pytest.mark.parametrize("notes", ["[", "[]", '{"files": ["../x"]}', '{"files": [1]}', '{"tied": {"a": "none"}}', '{"tied": {"a": [1]}}'])
def test_a_hostile_header_is_refused(folder: Path, notes: str) -> None:
    save_file({"w": torch.zeros(1)}, folder / "weights.safetensors", {"avtlm": notes})
    with pytest.raises(CheckpointError, match="damaged header"):
        load_weights(folder)


def test_a_configuration_never_runs_code(folder: Path, tmp_path: Path) -> None:
    (folder / "config.yaml").write_text(f"system: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(ConfigError):
        load_config(folder)
    assert not (tmp_path / "made").exists()


def test_a_configuration_without_a_system_is_refused(folder: Path) -> None:
    (folder / "config.yaml").write_text("dim: 4\n")
    with pytest.raises(CheckpointError, match="does not name the system"):
        load_config(folder)


def test_all_differences_from_the_model_stand_in_one_error(folder: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(4), nn.Linear(4, 3))
    model.extra = nn.Linear(1, 1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(model, folder)
    text = str(caught.value)
    assert "2 missing (extra.weight, extra.bias)" in text
    assert "3 unexpected (" in text
    assert "0.weight [4, 3] instead of [5, 3]" in text
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_error_while_saving_keeps_the_previous_model(folder: Path) -> None:
    class Broken:
        def save(self, folder: Path) -> None:
            (folder / "half").write_text("x")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        save_model(folder, make_model(1), CONFIG, Broken())
    assert torch.equal(load_weights(folder)["0.weight"], make_model().state_dict()["0.weight"])
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_folder_that_is_no_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="is not a model folder; choose another place"):
        save_model(tmp_path, make_model(), CONFIG)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_without_an_atomic_exchange_two_renames_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_exchange", lambda first, second: False)
    save_model(folder, make_model(1), CONFIG)
    assert torch.equal(load_weights(folder)["0.weight"], make_model(1).state_dict()["0.weight"])
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_kill_between_the_two_renames_is_repaired_by_the_next_reader(folder: Path) -> None:
    folder.rename(folder.with_name(".model.previous"))
    assert load_config(folder) == CONFIG
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_linked_folder_is_replaced_behind_its_link(folder: Path) -> None:
    link = folder.with_name("latest")
    link.symlink_to("model")
    save_model(link, make_model(1), {"system": "new"})
    assert link.is_symlink()
    assert load_config(folder) == {"system": "new"}


def test_other_files_may_be_added_before_the_folder_is_put_in_place(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "state", marker="step.txt") as temporary:
        (temporary / "step.txt").write_text("7")
        assert not (tmp_path / "state").exists()
    assert (tmp_path / "state" / "step.txt").read_text() == "7"


SAVER = """
    import sys, torch
    from torch import nn
    from avtlm.checkpoint import save_model
    model = nn.Linear(400, 400)
    step = 0
    while True:
        step += 1
        nn.init.constant_(model.weight, step)
        save_model(sys.argv[1], model, {"system": "x", "step": step}, extra_files={"step.txt": str(step)})
        print(step, flush=True)
"""


def test_a_save_killed_at_any_moment_leaves_a_whole_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, nn.Linear(400, 400), {"system": "x", "step": 0}, extra_files={"step.txt": "0"})
    rng = random.Random(0)
    for _ in range(3):
        script = [sys.executable, "-c", textwrap.dedent(SAVER), str(folder)]
        with subprocess.Popen(script, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            assert process.stdout is not None
            process.stdout.readline()  # one save is done
            time.sleep(rng.uniform(0.02, 0.3))
            process.send_signal(signal.SIGKILL)
        step = load_config(folder)["step"]
        weights = load_weights(folder)["weight"]
        assert (folder / "step.txt").read_text() == str(step)
        assert step > 0
        assert bool((weights == step).all())
    save_model(folder, nn.Linear(2, 2), {"system": "x"})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_save_killed_between_any_two_file_operations_leaves_a_whole_model(tmp_path: Path) -> None:
    """os._exit stands in for the kill, before every single write, flush and rename in turn."""
    script = textwrap.dedent("""
        import os, sys, torch
        from pathlib import Path
        from torch import nn
        from avtlm import checkpoint
        folder, exchange = Path(sys.argv[1]), sys.argv[2] == "exchange"
        if not exchange:
            checkpoint._exchange = lambda first, second: False
        checkpoint.save_model(folder, nn.Linear(3, 3), {"system": "x", "step": 0}, extra_files={"step.txt": "0"})
        point = 0
        while True:
            point += 1
            child = os.fork()
            if child == 0:
                left = point
                def counted(real):
                    def call(*arguments, **keywords):
                        global left
                        left -= 1
                        if left == 0:
                            os._exit(9)
                        return real(*arguments, **keywords)
                    return call
                for module, name in ((os, "rename"), (os, "fsync"), (os, "mkdir"), (checkpoint.shutil, "rmtree"),
                                     (checkpoint, "save_file"), (checkpoint, "_exchange"), (Path, "write_text")):
                    setattr(module, name, counted(getattr(module, name)))
                checkpoint.save_model(folder, nn.Linear(3, 3), {"system": "x", "step": point}, extra_files={"step.txt": str(point)})
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            step = checkpoint.load_config(folder)["step"]
            assert (folder / "step.txt").read_text() == str(step)
            assert checkpoint.load_weights(folder)["weight"].shape == (3, 3)
            if code == 0:
                assert step == point
                print("points", point)
                break
            assert code == 9, code
    """)
    for way in ("exchange", "renames"):
        result = subprocess.run([sys.executable, "-c", script, str(tmp_path / way), way], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert int(result.stdout.split()[-1]) > 10

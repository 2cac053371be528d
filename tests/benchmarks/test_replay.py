"""Cases of other options than the stored ones: what the adapters make of them. Expectations follow by hand from stored cases."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avtlm.text.vocabulary import SPECIALS
from benchmarks.parity import CASES
from benchmarks.replay import Report, replay
from benchmarks.replay.avhubert import mask_of
from tests.convert import made_checkpoints as made
from tests.golden_case import read_case as golden


def derived(
    folder: Path,
    source: str,
    config: dict[str, Any] | None = None,
    inputs: dict[str, Tensor] | None = None,
    outputs: dict[str, Tensor] | None = None,
    state: dict[str, Tensor] | None = None,
) -> Report:
    """A stored case with some options and tensors replaced, replayed; ``outputs`` are all that it holds then."""
    shutil.copytree(CASES / source, folder)
    description = json.loads((folder / "case.json").read_text())
    description["config"] |= config or {}
    (folder / "case.json").write_text(json.dumps(description))
    for name, changes in (("inputs", inputs), ("state", state)):
        if changes:
            path = folder / f"{name}.safetensors"
            save_file({**load_file(path), **changes}, path)
    if outputs:
        save_file({name: tensor.clone() for name, tensor in outputs.items()}, folder / "outputs.safetensors")
    return replay(folder, "case")


def stored(source: str) -> tuple[dict[str, Tensor], ...]:
    return tuple(load_file(CASES / source / f"{name}.safetensors") for name in ("inputs", "outputs", "state"))


def failed(report: Report) -> str:
    return report.failure or ", ".join(f"{each.name}: {each.error}" for each in report.comparisons if not each.passed)


@pytest.mark.parametrize("untied", [False, True])
def test_a_second_set_of_units_like_the_first_adds_its_loss_again(tmp_path: Path, untied: bool) -> None:
    inputs, outputs, state = stored("avhubert/pretrain")
    twice = {"label_embs_concat": state["label_embs_concat"].repeat(2, 1)}
    if untied:
        twice |= {name: state[name].repeat(2, *[1] * (state[name].dim() - 1)) for name in ("final_proj.weight", "final_proj.bias")}
    expected = {name: outputs[name] for name in outputs if name.startswith("av.") and "grad" not in name}
    expected |= {name[:-1] + "1": tensor for name, tensor in expected.items() if name.endswith("_0")}
    expected["av.loss"] = outputs["av.loss"] + outputs["av.loss_m_0"]
    config = {"num_clusters": [20, 20], "untie_final_proj": untied}
    report = derived(tmp_path / "case", "avhubert/pretrain", config, {"target1": inputs["target0"]}, expected, twice)
    assert report.passed, failed(report)
    assert report.skipped == {}


def test_weights_of_nothing_leave_the_logs_of_the_criterion_as_they_are(tmp_path: Path) -> None:
    _, outputs, _ = stored("vatlm/pretrain_unified")
    log = {name: tensor for name, tensor in outputs.items() if name.startswith("total.log.") and name != "total.log.loss"}
    total = outputs["total.loss"] - outputs["total.log.loss_onlytext"] - outputs["total.log.loss_onlyaudio"]
    report = derived(
        tmp_path / "case", "vatlm/pretrain_unified", {"banlance_loss_weights": [0.0, 0.0]}, outputs={**log, "total.loss": total}
    )
    assert report.passed, failed(report)
    assert report.skipped == {}


def test_scores_are_not_divided_by_lengths_where_a_case_says_so(tmp_path: Path) -> None:
    _, outputs, _ = stored("avhubert/seq2seq")
    key = "av.beam1_lenpen1.0.utt0"
    tokens = outputs[f"{key}.nbest_tokens"]
    expected = {f"{key}.nbest_tokens": tokens, f"{key}.nbest_score": outputs[f"{key}.nbest_score"] * tokens.shape[1]}
    config = {"beams": [[1, 1.0]], "unnormalized": True}
    report = derived(tmp_path / "one", "avhubert/seq2seq", config, outputs=expected)
    assert report.passed, failed(report)
    for name, option in (("two", {"unnormalized": False}), ("three", {"unnormalized": True, "min_len": tokens.shape[1] + 2})):
        assert not derived(tmp_path / name, "avhubert/seq2seq", config | option, outputs=expected).passed


def test_masks_do_not_matter_to_fine_tuned_models_and_label_smoothing_does(tmp_path: Path) -> None:
    _, outputs, _ = stored("avhubert/seq2seq")
    masks = {"mask_prob_audio": 0.7, "mask_prob_image": 0.1, "mask_channel_prob": 0.3, "mask_min_space": -4}
    expected = {name: outputs[name] for name in ("av.logits", "av.nll_sum")}
    report = derived(
        tmp_path / "case", "avhubert/seq2seq", {**masks, "label_smoothing": 0.0}, outputs={**expected, "av.loss_sum": outputs["av.nll_sum"]}
    )
    assert report.passed, failed(report)


def test_of_two_clips_the_other_one_stands_in_and_of_more_a_case_names_it() -> None:
    hidden = torch.tensor([[True, False, True], [False, True, False]])
    mask = mask_of({"mask_video": hidden}, other_clip=True)
    assert mask.video_row is not None
    assert mask.video_row.tolist() == [1, 0]
    assert torch.equal(mask.video_source, torch.arange(3).expand(2, -1))  # type: ignore[arg-type]
    three = {"mask_video": torch.ones(3, 4, dtype=torch.bool)}
    with pytest.raises(ValueError, match="without video_sub_index"):
        mask_of(three, other_clip=True)
    for given in ({"video_perm": torch.tensor([2, 0, 1])}, {"video_shift": torch.tensor(2)}):
        assert mask_of({**three, **given}, other_clip=True).video_row.tolist() == [2, 0, 1]  # type: ignore[union-attr]


def test_every_nth_row_is_found_by_what_the_case_says(tmp_path: Path) -> None:
    _, outputs, _ = stored("avhubert/resencoder")
    layer = outputs["trunk_layer4"]
    for name, step, says, passes in (("five", 5, "every 5th row kept", True), ("four", 5, "", False)):
        folder = tmp_path / name
        derived(folder, "avhubert/resencoder", outputs={"trunk_layer4": layer[::step]})
        description = json.loads((folder / "case.json").read_text())
        description["tensors"]["outputs"]["trunk_layer4"]["meaning"] = says
        (folder / "case.json").write_text(json.dumps(description))
        # 14 rows thinned to 3 may be every 5th or 6th one; the least is taken where nothing is said.
        assert replay(folder, name).passed == passes or not says


def test_frames_of_any_shape_are_cut_to_any_size(tmp_path: Path) -> None:
    frames = torch.arange(60 * 90, dtype=torch.int64).reshape(1, 60, 90).remainder(251).to(torch.uint8)
    grey = (frames.float() / 255 - 0.421) / 0.165
    expected = {"test": grey[:, 14:46, 29:61], "train_dw7_dh3_flip1": grey[:, 3:35, 7:39].flip(2)}
    report = derived(tmp_path / "case", "avhubert/video_transform", {"crop": 32, "hw": [60, 90]}, {"frames": frames}, expected)
    assert report.passed, failed(report)
    wide = torch.zeros(1, 96, 120, dtype=torch.uint8)
    wide[..., 16:104] = 255
    white = torch.full((1, 88, 88), (1 - 0.421) / 0.165)
    assert derived(tmp_path / "wide", "avhubert/video_transform", inputs={"frames": wide}, outputs={"test": white}).passed


def test_labels_of_a_cropped_batch_are_cut_to_the_fewest(tmp_path: Path) -> None:
    inputs, _, _ = (*stored_inputs("avhubert/collate"), None)
    short = {"label1": inputs["label1"][:6]}
    rows = [inputs[f"label{row}"] for row in range(3)]
    starts = [3, 0, 2]
    left = [len(label) - start for label, start in zip([rows[0], short["label1"], rows[2]], starts, strict=True)]
    fewest = min(8, *left)
    labels = [label[start : start + fewest] for label, start in zip([rows[0], short["label1"], rows[2]], starts, strict=True)]
    expected = {"crop.target": torch.stack(labels), "crop.target_lengths": torch.tensor([fewest] * 3)}
    config = {"modes": [["crop", False, 8, True]], "crop_starts": starts}
    report = derived(tmp_path / "case", "avhubert/collate", config, short, expected)
    assert fewest == 6
    assert report.passed, failed(report)


def stored_inputs(source: str) -> tuple[dict[str, Tensor], None]:
    return load_file(CASES / source / "inputs.safetensors"), None


def test_audio_may_be_stacked_otherwise(tmp_path: Path) -> None:
    inputs, _ = stored_inputs("avhubert/audio_features")
    outputs = load_file(CASES / "avhubert/audio_features" / "outputs.safetensors")
    name = next(name for name in inputs if name.startswith("wav"))
    frames = outputs[f"logfbank{name[3:]}"]
    pairs = torch.cat([frames, frames.new_zeros(len(frames) % 2, 26)]).reshape(-1, 52)
    expected = {f"stacked{name[3:]}": pairs, f"aligned{name[3:]}_video3": pairs[:3]}
    report = derived(tmp_path / "case", "avhubert/audio_features", {"stack_order_audio": 2}, outputs=expected)
    assert report.passed, failed(report)


@pytest.mark.parametrize("source", ["avhubert/audio_features", "avhubert/collate", "avhubert/noise_mix", "avhubert/video_transform"])
def test_options_that_an_adapter_does_not_know_are_refused(tmp_path: Path, source: str) -> None:
    report = derived(tmp_path / "case", source, {"speed": 1.1})
    assert report.failure == "case.json: config: options that avtlm does not know: speed."


def test_clips_that_the_official_code_gives_up_are_compared_as_such(tmp_path: Path) -> None:
    inputs, _ = stored_inputs("lip_roi/autoavsr_mediapipe")
    outputs = load_file(CASES / "lip_roi/autoavsr_mediapipe" / "outputs.safetensors")
    first = {name: tensor for name, tensor in outputs.items() if "0" in name}
    astray = inputs["landmarks1"].clone()
    astray[:, 3] += torch.tensor([60.0, 0.0])
    for number, landmarks in enumerate((torch.full_like(astray, float("nan")), astray)):
        given = {"landmarks1": landmarks}
        assert derived(tmp_path / f"both{number}", "lip_roi/autoavsr_mediapipe", inputs=given, outputs=first).passed is False
        gone = {**first, "dropped1": torch.tensor(1)}
        report = derived(tmp_path / f"dropped{number}", "lip_roi/autoavsr_mediapipe", inputs=given, outputs=gone)
        assert report.passed, failed(report)


def test_a_clip_without_a_face_is_left_out_where_the_official_script_writes_whole_frames(tmp_path: Path) -> None:
    outputs = load_file(CASES / "lip_roi/avhubert_align" / "outputs.safetensors")
    gone = torch.full_like(load_file(CASES / "lip_roi/avhubert_align" / "inputs.safetensors")["landmarks1"], float("nan"))
    kept = {name: tensor for name, tensor in outputs.items() if "0" in name or name == "crops1"}
    report = derived(tmp_path / "case", "lip_roi/avhubert_align", inputs={"landmarks1": gone}, outputs=kept)
    assert report.passed, failed(report)
    assert list(report.skipped) == ["crops1"]


def test_crops_of_another_size_are_cut_where_the_case_holds_such(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (120, 200), np.uint8))
    centres = torch.tensor([[100.0, 60.0], [10.0, 119.0]], dtype=torch.float64)
    expected = {
        "avhubert.patch0": image[44:76, 84:116],
        "avhubert.patch1": image[88:120, 0:32],
        "autoavsr.patch0": image[44:76, 84:116],
        "autoavsr.error1": torch.tensor(1),
    }
    given = {"image": image, "centres": centres}
    report = derived(tmp_path / "case", "lip_roi/cut_patch", inputs=given, outputs=expected)
    assert report.passed, failed(report)


def test_a_fine_tuned_file_that_lacks_its_encoders_configuration_is_read_with_the_pretrained_one_beside_it(tmp_path: Path) -> None:
    before, after = golden("vatlm/pretrain_unified"), golden("vatlm/seq2seq")
    contents = {
        "pretrained": made.pretrained(before, "vat_hubert", {**before.state, "target_glu.0.bias": torch.ones(4)}),  # never used
        "finetuned": made.fine_tuned(after, "vat_hubert", "seq2seq", w2v_args=False),
    }
    for name, content in contents.items():
        made.write(tmp_path / f"{name}.pt", content)
        save_file({key: tensor.clone() for key, tensor in content["model"].items()}, tmp_path / f"{name}.safetensors")
    symbols = {"km": [*SPECIALS, *map(str, range(20))], "target": made.pieces(40).symbols}
    expected = {f"{name}_dictionary_size": len(value) for name, value in symbols.items()}
    heads = {f"{name}_symbols_head": value[:8] for name, value in symbols.items()}
    texts = {"texts": ["ab"], "token_ids": [[*made.pieces(40).encode("ab"), 2]], "decoded": ["ab"]}
    description = {"files": {f"{name}.pt": "" for name in contents}, "pickled_globals": [], "expected": {**expected, **heads, **texts}}
    (tmp_path / "case.json").write_text(json.dumps(description))
    report = replay(tmp_path, "case")
    assert report.passed, failed(report)
    assert {each.name.split(".")[0] for each in report.comparisons} >= {"pretrained", "finetuned", "token_ids", "decoded"}

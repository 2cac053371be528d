"""Cases of MT2KD: the student with its teachers' answers, the three tasks of fine-tuning, and audio tagging alone."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.convert.names.mt2kd import names, plain_key
from avtlm.convert.names.transformer import find_name
from avtlm.convert.names.zipformer import UNUSED
from avtlm.data.batching import Batch
from avtlm.decoding.transducer import transducer_greedy
from avtlm.nn.attention import padding_mask
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.distillation import joined_frames, sound_losses, speaker_distances
from avtlm.objectives.pruned_transducer import full_lattice, loss_scales, sum_paths
from avtlm.systems.mt2kd import BLANK, MT2KD, Heard, JoinerConfig, MT2KDConfig, WeightConfig
from benchmarks.replay.case import Case, Check
from benchmarks.replay.speech_encoders import load
from benchmarks.replay.zipformer import config_of, frames_first, seen_at_once

RECOGNITION, SPEAKER, TAGGING = 0, 1, 2  # task ids


def model_of(case: Case, settings: MT2KDConfig, lacks: tuple[str, ...] = ()) -> MT2KD:
    """The case's model in evaluation, as cases were made; parts that the official one lacks are left as they start."""
    model = MT2KD(settings).eval()
    rules = names(settings.encoder)
    state = {
        find_name(rules, plain_key(key), "MT2KD"): tensor for key, tensor in case.state.items() if not UNUSED.fullmatch(plain_key(key))
    }
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(lacks)} if lacks else {}
    load(model, {**own, **state})
    return model


def gradients(case: Case, check: Check, model: MT2KD, loss: Tensor) -> None:
    """Of the parameters that a case names, some of them by their second name."""
    model.zero_grad()
    loss.backward()
    found = dict(model.named_parameters())
    rules = names(model.config.encoder)
    for key in case.config["grad_params"]:
        check.gradient(f"grad.{key}", found[find_name(rules, plain_key(key), "MT2KD")].grad)


def encoder_of(case: Case) -> dict[str, Any]:
    """Options that say what is heard, and how much at once."""
    encoder = config_of(case)
    chunk, left = seen_at_once(encoder)
    return {"encoder": encoder, "chunk": chunk, "left_context": left}


def speaker_stack(case: Case) -> int | None:
    """Official indices count from the end, too, of which the last one means the output."""
    stack = case.config["speaker_input_idx"]
    return None if stack == -1 else stack % len(case.config["encoder"]["downsampling_factor"])


def heard_by(check: Check, model: MT2KD, case: Case) -> Heard:
    """The encoder's output, compared."""
    features, lengths = case.inputs["x"], case.inputs["x_lens"]
    heard = model.listen(features, lengths)
    check.forward("encoder_out", heard.frames)
    check.equal("encoder_out_lens", heard.lengths)
    return heard


# Stage 1 ----------------------------------------------------------------------------------------------------------------------------------


def first_stage(case: Case, check: Check) -> None:
    config = case.config
    scales = WeightConfig(speech=config["whisper_loss_scale"], sound=config["beats_loss_scale"], speaker=config["ecapa_loss_scale"])
    width, delay = 2 * config["whisper_dim"], config["delta_t"]
    settings = MT2KDConfig(
        **encoder_of(case),
        vocabulary=0,
        tags=case.inputs["teacher_beats"].shape[2],
        voice_dim=case.inputs["teacher_ecapa"].shape[2],
        speech_width=width,
        speaker_stack=speaker_stack(case),
        weights=scales,
        relative_lengths=True,
    )
    object.__setattr__(settings, "delay", delay)  # officially a model need not be causal to be late
    model = model_of(case, settings)
    heard = heard_by(check, model, case)
    seen = (settings.chunk, settings.left_context)
    for number, layers in enumerate(model.encoder(case.inputs["x"], case.inputs["x_lens"], *seen).stacks):
        for layer, out in enumerate(layers):
            check.forward(f"middle.{number}.{layer}", frames_first(out))
    logits, embedded = model.tag_logits(heard), model.embed_speaker(heard)
    assert model.speech_projection is not None
    predicted = model.speech_projection(heard.frames.relu())
    joined = joined_frames(case.inputs["teacher_whisper"], predicted.shape[1], 2)
    check.forward("at_logits", logits)
    check.forward("asr_prediction", predicted)
    check.forward("speaker_embedding", embedded[:, None])
    check.forward("asr_target", joined)
    check.forward("none.beats_loss", sound_losses(logits, case.inputs["teacher_beats"][:, 0]))
    check.forward("none.ecapa_loss", speaker_distances(embedded, case.inputs["teacher_ecapa"][:, 0])[:, None])
    padding = padding_mask(heard.lengths, predicted.shape[1])[..., None]
    apart = (predicted[:, delay:] - joined[:, : predicted.shape[1] - delay]).abs()
    check.forward("none.whisper_loss", apart.masked_fill(padding[:, delay:], 0.0) / width)

    everyone = torch.ones(len(case.inputs["x"]), 3, dtype=torch.bool)
    for name, value in distances(model, heard, case, everyone).items():
        check.loss(f"sum.{name}_loss", value)
    task = case.inputs["task_id"]
    for_speaker = task != TAGGING if config["share_asr"] else task == SPEAKER
    learned = torch.stack([task == RECOGNITION, task == TAGGING, for_speaker], 1)
    for name, value in distances(model, heard, case, learned).items():
        check.loss(f"task_masked.{name}", value)
    total = torch.stack([loss.value for loss in model.distillation_losses(heard, taught(case, learned)).values()]).sum()
    check.loss("task_masked.total", total)
    gradients(case, check, model, total)


def taught(case: Case, learned: Tensor) -> Batch:
    """The answers of a case's teachers. The official code looks at the lengths of the student's frames alone."""
    speech = case.inputs["teacher_whisper"]
    targets = {
        "learned": learned,
        "speech": speech,
        "sound": case.inputs["teacher_beats"][:, 0],
        "speaker": case.inputs["teacher_ecapa"][:, 0],
    }
    ids = tuple(map(str, range(len(learned))))
    return Batch(ids, "distillation", targets=targets, target_lengths={"speech": torch.full((len(learned),), speech.shape[1])})


def distances(model: MT2KD, heard: Heard, case: Case, learned: Tensor) -> Mapping[str, Tensor]:
    """Losses of the three teachers without their scales, by the official names."""
    logs: dict[str, tuple[Tensor, Tensor]] = {}
    for loss in model.distillation_losses(heard, taught(case, learned)).values():
        logs |= loss.logs
    return {"whisper": logs["speech_distance"][0], "beats": logs["sound_loss"][0], "ecapa": logs["speaker_distance"][0]}


# Stage 2 ----------------------------------------------------------------------------------------------------------------------------------


def second_stage(case: Case, check: Check) -> None:
    config, given = case.config, case.inputs
    joiner = JoinerConfig(
        dim=config["decoder_dim"],
        context=config["context_size"],
        joint_dim=config["joiner_dim"],
        prune_range=config["prune_range"],
        lm_scale=config["lm_scale"],
        am_scale=config["am_scale"],
        simple_scale=config["simple_loss_scale"],
        warmup=config["warm_step"],
    )
    projected = config["use_encoder_projection"]
    settings = MT2KDConfig(
        **encoder_of(case),
        task="transcription",
        vocabulary=config["vocab_size"],
        tags=given["events"].shape[1],
        speakers=config["num_spkrs"],
        speech_width=config["encoder_projection_dim"] if projected else 0,
        project_speech=projected,
        speaker_stack=speaker_stack(case),
        transducer=joiner,
        weights=WeightConfig(tagging=config["audio_tagging_loss_scale"], naming=config["sv_loss_scale"], ctc=0.2 * config["use_ctc"]),
        relative_lengths=True,
    )
    model = model_of(case, settings)
    assert model.transducer is not None
    assert model.speaker is not None
    model.start_step(config["batch_idx"], config["batch_idx"] + 1)
    model.eval()
    heard = heard_by(check, model, case)
    read, tokens, counts = model.read(heard.frames), given["y"], given["y_lens"]
    logits, embedded = model.tag_logits(heard), model.embed_speaker(heard)
    check.forward("at_logits", logits)
    check.forward("speaker_embedding", embedded[:, None])
    check.forward("decoder_out", model.transducer.read(tokens))
    joint = model.transducer(read, tokens)
    check.forward("joint_logits_first", joint[:1])
    check.forward("full_rnnt_loss", -sum_paths(full_lattice(joint, tokens, heard.lengths), heard.lengths, counts).total)
    found = model.pruned_losses(read, heard.lengths, tokens, counts)
    check.equal("prune_ranges", found.ranges)
    check.forward("none.simple_loss", found.simple)
    check.forward("none.pruned_loss", found.pruned)
    check.forward("none.at_loss", sound_losses(logits, given["events"]))
    check.forward("none.sv_loss", F.cross_entropy(model.speaker(embedded), given["speaker"], reduction="none"))
    for row, best in enumerate(transducer_greedy(model.transducer, read, heard.lengths, max_symbols=1)):
        check.equal(f"greedy_ids_{row}", torch.tensor(best.tokens, dtype=torch.long))
    if model.ctc is not None:  # which the official model has, but whose loss its forward leaves out
        check.loss("ctc_loss", ctc_loss(model.ctc_logits(read), heard.lengths, tokens, counts, BLANK).value)

    # The official code hears all clips at once and counts each for its own task; here every task has its batch.
    total, scales = torch.zeros(()), loss_scales(config["batch_idx"], joiner.warmup, joiner.simple_scale)
    check.loss("loss.simple_scale", scales[0])
    check.loss("loss.pruned_scale", scales[1])
    rows = given["task_id"] == RECOGNITION
    check.loss("loss.simple", found.simple[rows].sum())
    check.loss("loss.pruned", found.pruned[rows].sum())
    total = total + scales[0] * found.simple[rows].sum() + scales[1] * found.pruned[rows].sum()
    tagging = model.tagging_loss(of_rows(heard, given["task_id"] == TAGGING), given["events"][given["task_id"] == TAGGING])
    naming = model.naming_loss(of_rows(heard, given["task_id"] == SPEAKER), given["speaker"][given["task_id"] == SPEAKER])
    check.loss("loss.at", tagging.logs["tagging_loss"][0])
    check.loss("loss.sv", naming.logs["speaker_loss"][0])
    total = total + tagging.value + naming.value
    check.loss("loss.total", total)
    gradients(case, check, model, total)


def of_rows(heard: Heard, rows: Tensor) -> Heard:
    """Some clips of a batch."""
    return Heard(heard.frames[rows], heard.lengths[rows], heard.voice[rows], heard.voice_lengths[rows])


# Audio tagging alone ----------------------------------------------------------------------------------------------------------------------


def tagging_alone(case: Case, check: Check) -> None:
    settings = MT2KDConfig(
        **encoder_of(case),
        task="transcription",
        vocabulary=0,
        tags=case.config["num_events"],
        speech_width=0,
        speaker_stack=0,
        weights=WeightConfig(tagging=1.0),
        relative_lengths=True,
    )
    model = model_of(case, settings, ("voice.",))
    heard = heard_by(check, model, case)
    logits = model.tag_logits(heard)
    check.forward("logits", logits)
    check.forward("probs", logits.sigmoid())
    loss = model.tagging_loss(heard, case.inputs["target"])
    check.loss("loss", loss.value)
    gradients(case, check, model, loss.value)


ADAPTERS = [
    (lambda case: case.official.endswith("model_shift.py:MultiKDModel"), first_stage),
    (lambda case: case.official.endswith("model_shift.py:AsrModel"), second_stage),
    (lambda case: case.official.endswith("AT/zipformer/model.py:AudioTaggingModel"), tagging_alone),
]

"""Cases of MT2KD's teachers and features: Whisper's encoder, BEATs, ECAPA-TDNN, lhotse's filter bank; and of its evaluation."""

import numpy as np
import torch
import torch.nn.functional as F

from avtlm.convert.names.teachers import BEATS, BEATS_COPIES, WHISPER_OPENAI, ecapa_name
from avtlm.convert.names.transformer import find_name
from avtlm.convert.teachers import beats_config
from avtlm.evaluation.speaker import nearest_error_rate
from avtlm.evaluation.tagging import tagging
from avtlm.frontends.fbank import fbank
from avtlm.frontends.subsampling import kaldi_filterbank
from avtlm.frontends.teacher_features import beats_filterbank, whisper_log_mel
from avtlm.nn.beats import Beats, held
from avtlm.nn.ecapa import Ecapa, EcapaConfig, relative_lengths
from avtlm.nn.whisper_encoder import WhisperConfig, WhisperEncoder
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import load

# What SpeechBrain's model has where a case does not say.
SPEECHBRAIN = {
    "lin_neurons": 192,
    "channels": [512, 512, 512, 512, 1536],
    "kernel_sizes": [5, 3, 3, 3, 1],
    "dilations": [1, 2, 3, 4, 1],
    "attention_channels": 128,
    "res2net_scale": 8,
    "se_channels": 128,
    "global_context": True,
}
KEPT_MEL, KEPT_FBANK = 3, 7  # of which frames cases keep every so-manieth
HOP = 160


def fbank_case(case: Case, check: Check) -> None:
    wave = case.inputs["audio"]
    features = fbank(wave, case.config["num_mel_bins"])
    for name in ("lhotse", "torchaudio_lhotse_settings"):
        check.close(name, features, case.bound("lhotse"))
    check.close("torchaudio_default", kaldi_filterbank(wave * case.config["scale"], case.config["num_mel_bins"]), case.bound("lhotse"))


@torch.no_grad()
def whisper_case(case: Case, check: Check) -> None:
    dims = case.config["dims"]
    sizes = (dims["n_state"], dims["n_layer"], dims["n_head"], 4 * dims["n_state"], dims["n_mels"], dims["n_ctx"])
    model = WhisperEncoder(WhisperConfig(*sizes)).eval()
    state = {find_name(WHISPER_OPENAI, key, "Whisper"): tensor for key, tensor in case.state.items()}
    for layer in range(dims["n_layer"]):  # keys have no bias there
        state[f"encoder.layers.{layer}.self_attention.key.bias"] = torch.zeros(dims["n_state"])
    load(model, state)
    waves, lengths = case.inputs["audio"], case.inputs["audio_lens"]
    mel = whisper_log_mel(waves, dims["n_mels"])
    check.forward("log_mel", mel[..., ::KEPT_MEL])
    last, frames = model(mel, lengths // HOP)
    check.forward("embedding_last", last)
    check.equal("embedding_lens", frames)
    check.forward("embedding_layer0", model(mel, lengths // HOP, output_layer=1)[0])
    whole = F.pad(waves[:1], (0, 30 * 16000 - waves.shape[1]))
    heard = model(whisper_log_mel(whole, dims["n_mels"]), torch.tensor([2 * dims["n_ctx"]]))[0]
    check.forward("whisper_30s_first40", heard[:, :40])


@torch.no_grad()
def beats_case(case: Case, check: Check) -> None:
    config = beats_config(case.config["cfg"], "case.json")
    model = Beats(config).eval()
    state = {find_name(BEATS, key, "BEATs"): tensor for key, tensor in case.state.items() if not BEATS_COPIES.fullmatch(key)}
    load(model, {name: tensor.flatten() if name.endswith("gate.scale") else tensor for name, tensor in state.items()})
    waves, padding = case.inputs["audio"], case.inputs["padding_mask"]
    features = torch.stack([beats_filterbank(wave) for wave in waves])
    check.forward("fbank", features[:, ::KEPT_FBANK])
    frames, kept = features.shape[1], list[torch.Tensor]()
    logits = model(features, held((~padding).sum(1), waves.shape[1], frames), kept)
    for layer, out in enumerate(kept):
        check.forward(f"layer_{layer}", out.transpose(0, 1))
    check.forward("probs_padded", logits.sigmoid())
    check.forward("probs_nomask_first", model(features[:1], torch.tensor([frames])).sigmoid())


@torch.no_grad()
def ecapa_case(case: Case, check: Check) -> None:
    args = {**SPEECHBRAIN, **case.config["args"]}
    config = EcapaConfig(
        bands=args.pop("input_size"),
        channels=tuple(args.pop("channels")),
        kernels=tuple(args.pop("kernel_sizes")),
        dilations=tuple(args.pop("dilations")),
        attention_dim=args.pop("attention_channels"),
        squeezed=args.pop("se_channels"),
        scale=args.pop("res2net_scale"),
        dim=args.pop("lin_neurons"),
        global_context=args.pop("global_context"),
        groups=tuple(args.pop("groups", ())),
    )
    args = {name: value for name, value in args.items() if name not in ("device", "dropout")}
    if args:
        raise CaseError(f"case.json: config.args has {', '.join(sorted(args))}, which are not known here.")
    model = Ecapa(config).eval()
    load(model, {ecapa_name(key): tensor for key, tensor in case.state.items()})
    features, kept = case.inputs["feats"], list[torch.Tensor]()
    embedding = model(features, relative_lengths(case.inputs["rel_lens"], features.shape[1]), kept)
    *blocks, gathered, pooled = kept
    for number, out in enumerate(blocks):
        check.forward(f"block_{number}", out)
    check.forward("mfa", gathered)
    check.forward("asp", pooled[..., None])
    check.forward("embedding", embedding[:, None])


def metrics_case(case: Case, check: Check) -> None:
    bound, given = case.bound("all"), {name: tensor.numpy() for name, tensor in case.inputs.items()}
    found = nearest_error_rate(given["sv_labels"], given["sv_scores"])
    check.close("eer", torch.tensor(found.rate, dtype=torch.float64), bound)
    check.close("eer_threshold", torch.tensor(found.threshold), bound)
    tags = tagging(given["at_labels"], given["at_scores"])
    check.close("mAP", torch.tensor(tags.mean_average_precision_of_all), bound)
    check.close("AP_per_class", torch.from_numpy(np.nan_to_num(tags.average_precision)), bound)
    first, second = (case.inputs["emb"][case.inputs["pairs"][:, place]] for place in (0, 1))
    check.close("pair_cosine", (F.normalize(first, dim=1) * F.normalize(second, dim=1)).sum(1), bound)


ADAPTERS = [
    (lambda case: case.official.startswith("lhotse.Fbank"), fbank_case),
    (lambda case: case.official.startswith("teachers.WhisperTeacher"), whisper_case),
    (lambda case: case.official.startswith("BEATs.BEATs"), beats_case),
    (lambda case: case.official.endswith("ECAPA_TDNN.ECAPA_TDNN"), ecapa_case),
    (lambda case: case.official.startswith("inference_speaker.py"), metrics_case),
]

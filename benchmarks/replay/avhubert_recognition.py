"""Cases of AV-HuBERT and VATLM fine-tuned: attention decoder with its search, and CTC."""

from dataclasses import replace

import torch
from torch import Tensor

from avtlm import config
from avtlm.convert.names.vatlm import rename
from avtlm.convert.options.avhubert import DECODER, decoder
from avtlm.data.batching import Batch
from avtlm.decoding.beam import attention_beam
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.recognizer import DecodingConfig, Recognizer, RecognizerConfig
from avtlm.systems.avhubert import AVHubert
from avtlm.systems.vatlm import VATLM, VATLMConfig
from avtlm.text.vocabulary import EOS, PAD, Vocabulary
from benchmarks.replay.avhubert_models import SEEN, SPECIALS, batch_of, gradients, load, model_config, options_of
from benchmarks.replay.case import Case, CaseError, Check

# Options of pre-training that fine-tuned models have and do not heed.
MASKS = {
    *("mask_prob_audio", "mask_prob_image", "mask_length_audio", "mask_length_image", "mask_selection", "mask_other", "no_mask_overlap"),
    *("mask_min_space", "mask_channel_prob", "mask_channel_length", "mask_channel_selection", "mask_channel_other"),
    *("no_mask_channel_overlap", "mask_channel_min_space", "modality_dropout", "audio_dropout", "selection_type"),
}
# What a search is asked for, by the names of the official generation config, with the defaults of the cases.
SEARCH = {
    **{"beams": [], "max_len_a": 1.0, "max_len_b": 0, "min_len": 1, "unnormalized": False, "unkpen": 0.0, "temperature": 1.0},
    "no_repeat_ngram_size": 0,
}
SMOOTHING = 0.1  # of labels, where a case does not say otherwise
PREDICTOR = ("predictor.units", "predictor.project.weight", "predictor.project.bias")


def recogniser(case: Case, ctc: bool) -> Recognizer:
    """The fine-tuned model with the case's weights, in evaluation mode."""
    options = options_of(case, (*MASKS, *DECODER) if ctc else MASKS)
    settings = model_config(case, options)
    vocabulary = Vocabulary.tokens([f"t{number:05d}" for number in range(options.take("vocab") - SPECIALS)])
    for key in SEARCH:
        options.take(key, 0)
    heads = RecognizerConfig(
        encoder=config.to_dict(settings),
        ctc_weight=1.0 if ctc else 0.0,
        decoder=None if ctc else decoder(options),
        label_smoothing=options.take("label_smoothing", SMOOTHING),
        decoding=DecodingConfig(method="ctc_greedy" if ctc else "attention"),
    )
    options.finish()
    model = Recognizer(heads, VATLM(settings) if isinstance(settings, VATLMConfig) else AVHubert(settings), vocabulary)
    # A fine-tuned file may come without what only pre-training needs.
    load(model, rename(case.state, settings.masking == "input"), {*PREDICTOR, "frontends.audio_mask", "feature_mask"})
    return model.eval()


def seq2seq_case(case: Case, check: Check) -> None:
    model, inputs, outputs = recogniser(case, ctc=False), case.inputs, case.outputs
    assert model.decoder is not None
    scale = case.config.get("feature_grad_mult", 1.0)
    if not torch.equal(shift_right(inputs["target"], EOS, PAD), inputs["prev_output_tokens"]):
        raise CaseError("inputs.safetensors: prev_output_tokens is not target with its end symbol in front.")
    for name, modality in SEEN.items():
        if not any(key.startswith(f"{name}.") for key in outputs):
            continue
        prefix, batch = f"{name}.", batch_of(inputs).only(modality)
        seen: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out[0])) for layer in model.decoder.layers]
        encoded, lengths = model.encoder.encode(batch)  # type: ignore[operator]
        logits = model.decoder(inputs["prev_output_tokens"], encoded, lengths)
        for hook in hooks:
            hook.remove()
        check.forward(f"{prefix}encoder_out_TBC", encoded.transpose(0, 1))
        if model.decoder.positions is not None:
            check.forward(f"{prefix}decoder_positions", model.decoder.place(inputs["prev_output_tokens"]))
        for number, out in enumerate(seen):
            check.forward(f"{prefix}decoder_layer{number}_TBE", out.transpose(0, 1))
        check.forward(f"{prefix}logits", logits)
        loss = seq2seq_loss(logits, inputs["target"], PAD, model.config.label_smoothing)
        check.loss(f"{prefix}loss_sum", loss.value)
        check.loss(f"{prefix}nll_sum", loss.logs["nll"][0])
        model.zero_grad()
        loss.value.backward()
        _scale_front_ends(model, scale)
        gradients(check, model, f"{prefix}grad.")
        searches(model, batch, encoded.detach(), lengths, case, check, prefix)


def _scale_front_ends(model: Recognizer, scale: float) -> None:
    """A case may be recorded with the gradient scale of pre-training; fine-tuning sets it to 1, and so does ours."""
    for key, parameter in model.named_parameters():
        if key.startswith(("encoder.frontends.video", "encoder.frontends.audio", "encoder.frontends.lips")) and parameter.grad is not None:
            parameter.grad *= scale


def searches(model: Recognizer, batch: Batch, encoded: Tensor, lengths: Tensor, case: Case, check: Check, prefix: str) -> None:
    """The n-best lists of every beam and length penalty of a case."""
    assert model.decoder is not None
    asked = {**SEARCH, **case.config}
    for beam, penalty in asked["beams"]:
        width = min(beam, len(model.vocabulary) - 1)  # a wider search has no more continuations: padding is none
        decoding = DecodingConfig(
            method="attention",
            beam=width,
            length_penalty=penalty,
            max_length_ratio=asked["max_len_a"],
            max_length_extra=asked["max_len_b"],
            official_length_limit=True,
        )
        options = replace(
            model.beam_options(batch, decoding),
            nbest=width,
            normalize=not asked["unnormalized"],
            min_len=asked["min_len"],
            no_repeat_ngram=asked["no_repeat_ngram_size"],
            unk_penalty=asked["unkpen"],
            temperature=asked["temperature"],
        )
        for row, hypotheses in enumerate(attention_beam(model.decoder, encoded, lengths, options)):
            key = f"{prefix}beam{beam}_lenpen{penalty}.utt{row}."
            lists = [[*hypothesis.tokens, EOS] for hypothesis in hypotheses]
            width = max(len(tokens) for tokens in lists)
            check.equal(f"{key}nbest_tokens", torch.tensor([tokens + [PAD] * (width - len(tokens)) for tokens in lists]))
            check.forward(f"{key}nbest_score", torch.tensor([hypothesis.score for hypothesis in hypotheses]))
            best = hypotheses[0]
            check.forward(f"{key}best_positional_scores", torch.tensor([*best.token_scores, best.components["end"]]))


def ctc_case(case: Case, check: Check) -> None:
    model, inputs = recogniser(case, ctc=True), case.inputs
    assert model.ctc is not None
    for name, modality in SEEN.items():
        if not any(key.startswith(f"{name}.") for key in case.outputs):
            continue
        prefix = f"{name}."
        encoded, lengths = model.encoder.encode(batch_of(inputs).only(modality))  # type: ignore[operator]
        logits = model.ctc(encoded)
        check.forward(f"{prefix}encoder_out_TBV", logits.transpose(0, 1))
        check.forward(f"{prefix}lprobs_TBV", logits.log_softmax(-1).transpose(0, 1))
        loss = ctc_loss(logits, lengths, inputs["target"], inputs["target_lengths"])
        if f"{prefix}ctc_loss_sum_blank0" in case.outputs and bool(case.outputs[f"{prefix}ctc_loss_sum_blank0"].isinf()):
            check.value(f"{prefix}ctc_loss_sum_blank0: targets that do not fit", bool(loss.logs["ctc_too_short"][0] > 0), True, 0.0)
            for name in case.outputs:
                if name == f"{prefix}ctc_loss_sum_blank0" or name.startswith(f"{prefix}grad."):
                    check.skip(
                        name, "a target that does not fit into its frames makes it infinite or not a number; here it counts as zero."
                    )
            continue
        check.loss(f"{prefix}ctc_loss_sum_blank0", loss.value)
        model.zero_grad()
        loss.value.backward()
        _scale_front_ends(model, case.config.get("feature_grad_mult", 1.0))
        gradients(check, model, f"{prefix}grad.")

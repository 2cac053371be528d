"""Cases of MMSpeech's official code: its model, losses and search; positions, lengths, features and phonemes of texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.convert.names.mmspeech import EMBEDDING, UNUSED, rules
from avtlm.convert.names.transformer import find_name
from avtlm.convert.options import Options
from avtlm.convert.options.mmspeech import WITHOUT_EFFECT, Tables, official
from avtlm.data.batching import Batch
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.frontends.multimodal import InputMask
from avtlm.frontends.subsampling import SubsamplingConfig, kaldi_filterbank, normalise_bands, shortened
from avtlm.nn.attention import padding_mask
from avtlm.nn.biased_decoder import distance_bucket
from avtlm.objectives.loss import Loss
from avtlm.objectives.seq2seq import seq2seq_loss
from avtlm.systems.mmspeech import Heard, MMSpeech, MMSpeechConfig, Read
from avtlm.text.mandarin import MandarinPhonemizer
from avtlm.text.mandarin import official as official_text
from avtlm.text.vocabulary import BOS, EOS, PAD, SPECIALS
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import load


def bucket_case(case: Case, check: Check) -> None:
    for name, pairs in case.inputs.items():
        size = name.partition(".")[2]
        check.equal(f"bucket.{size}", distance_bucket(pairs[:, 0] - pairs[:, 1], int(size)))
    for name, corner in case.outputs.items():
        if name.startswith("corner."):
            place = torch.arange(len(corner))
            check.equal(name, distance_bucket(place[:, None] - place, int(name.partition(".")[2])))


def lengths_case(case: Case, check: Check) -> None:
    lengths, counted = case.inputs["lengths"], SubsamplingConfig(official_lengths=True)
    longest = int(lengths.max())
    check.equal("real", torch.tensor([shortened(length) for length in lengths.tolist()]))
    check.equal("reported", counted.valid_frames(lengths, longest))
    check.value("real of a batch", float((SubsamplingConfig().valid_frames(lengths, longest) != case.outputs["real"]).sum()), 0.0, 0.0)
    for row, batch in enumerate(case.inputs["batches"]):
        frames = shortened(int(batch.max()))
        check.equal(f"padding_mask.{row}", padding_mask(counted.valid_frames(batch, frames), frames))


def features_case(case: Case, check: Check) -> None:
    features = kaldi_filterbank(case.inputs["waveform"])
    check.close("fbank", features, case.bound("fbank"))
    check.close("cmvn", normalise_bands(features), case.bound("cmvn"))


def phonemes_case(case: Case, check: Check) -> None:
    words: dict[str, list[str]] = {}
    for word, phones in case.description["lexicon"]:
        words.setdefault(word, phones.split())
    phonemizer = MandarinPhonemizer(official_text(None), words)
    for number, told in enumerate(case.description["cases"]):
        normalised = phonemizer.normalise(told["text"])
        found = {"normalized": normalised, "tokens": phonemizer.tokens(normalised), "phones": " ".join(phonemizer(told["text"]))}
        for name, ours in found.items():
            check.value(f"{number}.{name}: differs", float(ours != told[name]), 0.0, 0.0)


# The model ------------------------------------------------------------------------------------------------------------------------------


def settings_of(case: Case) -> MMSpeechConfig:
    """Our configuration of a case's model."""
    dicts = case.config["dicts"]
    options = Options(case.config["model"], "case.json: config.model", WITHOUT_EFFECT)
    tables = Tables(len(SPECIALS) + dicts["n_text"] + 2, dicts["n_audio"], dicts["n_phone"], dicts.get("n_disamb", 0))
    settings = official(options, tables)
    options.finish()
    return settings


def weights_of(settings: MMSpeechConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A case's weights by our names."""
    kept = {key: tensor for key, tensor in state.items() if not UNUSED.fullmatch(key)}
    named = {our_name(settings, key): tensor for key, tensor in kept.items() if key != "decoder.output_projection.weight"}
    if not settings.decoder.tie_embeddings:
        named["decoder.output.weight"] = kept["decoder.output_projection.weight"]
    if not settings.encoder.norm_first and "encoder.norm.weight" not in named:
        raise CaseError("state.safetensors: no encoder.encoder.layer_norm, which post-norm encoders begin with.")
    return named


def our_name(settings: MMSpeechConfig, key: str) -> str:
    """Our name of an official tensor; of a tied output that of the embedding."""
    name = find_name(rules(), key, "MMSpeech")
    return EMBEDDING if settings.decoder.tie_embeddings and name == "decoder.output.weight" else name


@dataclass
class View:
    """A mini-batch of a case, and what our model makes of it.

    Attributes:
        prefix: of its tensors.
        speech: frames of speech that the official encoder gives out, ``phones`` of phonemes behind them.
    """

    case: Case
    prefix: str
    model: MMSpeech
    heard: Heard
    read: Read
    speech: int
    phones: int
    hears: bool
    mask: InputMask | None

    def whole(self, part: Tensor) -> Tensor:
        """What there is of one stream (batch, frames, ...), with zeros for the other one."""
        before, behind = (0, self.phones) if self.hears else (self.speech, 0)
        return F.pad(part, (0, 0, before, behind))

    @property
    def there(self) -> Tensor:
        """Valid frames of both streams, bool (batch, frames)."""
        valid = (~padding_mask(self.read.lengths, self.read.states.shape[1]))[..., None].float()
        return self.whole(valid)[..., 0] > 0


def view_of(case: Case, check: Check, model: MMSpeech, prefix: str, given: str | None = None) -> View:
    """Run the encoder over a mini-batch, and compare its stages.

    Args:
        given: where its inputs stand, if not under ``prefix``.
    """
    inputs = {key.removeprefix(f"{given or prefix}."): value for key, value in case.inputs.items() if key.startswith(f"{given or prefix}.")}
    hears = inputs["fbank_masks"]
    if bool(hears.any()) != bool(hears.all()):
        raise CaseError(f"inputs.safetensors: {prefix} has rows with and without speech, which the official code cannot compute either.")
    heard = model.hear_features(inputs["fbank"], inputs["fbank_length"])
    features = model.frontend.convolve(inputs["fbank"])
    hidden = inputs.get("mask_indices") if given is None else None
    channels = inputs.get("mask_channel_indices") if given is None else None  # of all frames, or of each alike
    channels = channels if channels is None or channels.dim() == 2 else channels[:, 0]
    mask = None if hidden is None else InputMask(fused=hidden, channels=channels)
    phones = inputs["phone_items"]
    lengths = ((phones != PAD) & inputs["phone_masks"][:, None]).sum(1)
    spoken = bool(hears.any())
    heard = Heard(heard.frames, heard.lengths if spoken else torch.zeros_like(heard.lengths))
    if spoken and bool(inputs["phone_masks"].any()):
        raise CaseError(f"inputs.safetensors: {prefix} has speech and phonemes in one row; avtlm reads one of them.")
    read = (
        model.read_speech(heard, mask) if spoken else model.read_phones(phones.masked_fill(~inputs["phone_masks"][:, None], PAD), lengths)
    )
    view = View(case, prefix, model, heard, read, heard.frames.shape[1], phones.shape[1], spoken, mask)
    check.forward(f"{prefix}.enc.subsample.features", features)
    check.forward(f"{prefix}.enc.post_subsample_proj", heard.frames)
    seen, placed = model.place(model.hide(heard, mask), heard.lengths, model.speech_positions)
    check.forward(f"{prefix}.enc.pos_conv", placed)
    embedded = model.phone_embedding(phones)
    named, places = model.place(embedded, lengths, model.phone_positions)
    check.forward(f"{prefix}.enc.phone_pos_conv", places)
    check.forward(f"{prefix}.position_embeddings", torch.cat([placed, places], 1))
    encoder, first, depth = model.encoder, model.config.speech_layers, len(model.encoder.layers)
    if spoken:
        states = encoder.hidden_states(seen, heard.lengths, depth)[1:]
    else:
        states = [None] * first + encoder.hidden_states(named, lengths, depth, first_layer=first)[1:]
    spoken_frames = ~heard.padding
    for index, state in enumerate(states):
        if state is not None:
            there = spoken_frames if index < first else view.there
            check.forward(f"{prefix}.enc.layer{index}", state if index < first else view.whole(state), there)
    check.forward(f"{prefix}.encoder_out", view.whole(read.states), view.there)
    check.forward(f"{prefix}.phone_distribution", view.whole(model.phone_logits(read.states)), view.there)
    check.equal(f"{prefix}.encoder_padding_mask", ~view.there)
    return view


def decode(check: Check, view: View, tokens: Tensor, target: Tensor, constraint: Tensor | None) -> Tensor:
    """Run the decoder, and compare its stages; returns the sum of the tokens' losses."""
    model, prefix = view.model, view.prefix
    decoder, kept = model.decoder, list[Tensor]()
    embedded = decoder.embed(tokens)
    check.forward(f"{prefix}.dec.inner0", embedded)
    out = decoder.decode(embedded, decoder.project_memory(view.read.memory, view.read.lengths), lengths=(tokens != PAD).sum(1), kept=kept)
    for index, state in enumerate(kept):
        check.forward(f"{prefix}.dec.inner{index + 1}", state)
        check.forward(f"{prefix}.dec.layer{index}", state)
    logits = decoder.predict(out)
    check.forward(f"{prefix}.logits", logits)
    if constraint is not None:
        check.forward(f"{prefix}.logits_constrained", logits.masked_fill(~constraint, float("-inf")))
    symbols = None
    if constraint is not None:
        allowed = constraint[target != PAD]
        symbols = int(allowed[0].sum())
        if not torch.equal(allowed, (torch.arange(logits.shape[-1]) < symbols).expand_as(allowed)):
            raise CaseError(f"inputs.safetensors: {prefix}.constraint_masks allow other symbols than the first ones.")
    loss = seq2seq_loss(logits[..., :symbols], target, PAD, 0.0).value
    tokens_only = target.masked_fill(target == EOS, PAD)
    ours = model.written_loss(view.read, tokens_only, (tokens_only != PAD).sum(1), symbols).value
    check.value(f"{prefix}: loss from tokens alone", ours.item(), loss.item(), 1e-3)
    return loss


def losses_of(case: Case, check: Check, view: View) -> tuple[Tensor, int]:
    """Compare the losses of a mini-batch; returns their sum, and the sentences."""
    model, prefix = view.model, view.prefix
    inputs = {key.removeprefix(f"{prefix}."): value for key, value in case.inputs.items() if key.startswith(f"{prefix}.")}
    tokens, target = inputs["prev_output_tokens"], inputs["target"]
    zero = torch.zeros(())
    nll = decode(check, view, tokens, target, inputs.get("constraint_masks"))
    ctc = divergence = zero
    codes = bool(inputs["audio_code_masks"].any())
    batch = Batch(
        tuple(map(str, range(len(target)))),
        "pairs",
        targets={"tokens": target.masked_fill(target == EOS, PAD), "phones": inputs["phone_items"] + len(SPECIALS) - 1},
        target_lengths={"tokens": ((target != PAD) & (target != EOS)).sum(1), "phones": inputs["phone_lengths"]},
    )
    if view.hears and not codes:
        found = model.paired_losses(view.heard, batch, view.mask)
        ctc = found["pp"].value
        constraint = inputs.get("constraint_masks")
        if constraint is not None and int(constraint.sum(-1).max()) == model.config.vocabulary:  # ours always chooses among texts' symbols
            check.value(f"{prefix}: s2t", found["s2t"].value.item(), nll.item(), 1e-3)
    elif view.hears and view.mask is not None:
        found = {"msp": model.agreement(view.heard, view.read, view.mask)}
        divergence = found["msp"].value
    else:
        found = dict[str, Loss]()
    check.loss(f"{prefix}.nll_loss", nll)
    check.loss(f"{prefix}.ctc_loss", ctc)
    check.loss(f"{prefix}.kl_loss", divergence)
    total = nll + ctc + divergence
    check.loss(f"{prefix}.loss", total)
    return total, len(target)


def compare_gradients(check: Check, settings: MMSpeechConfig, model: MMSpeech, prefix: str, total: Tensor) -> None:
    """Compare the gradients that a case holds of a loss."""
    start = f"{prefix}.grad."
    names = [name for name in check.case.outputs if name.startswith(start)]
    model.zero_grad()
    total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    bound = float(str(check.case.description["tolerance"].get("grad", "1e-4")).split()[0])
    for name in names:
        official_name = name.removeprefix(start)
        found = None if UNUSED.fullmatch(official_name) else parameters[our_name(settings, official_name)].grad
        expected = check.case.outputs[name]
        largest = max(float(expected.abs().max()), 1e-6)
        check.close(name, torch.zeros_like(expected) if found is None else found, bound * largest)


def repeats(tokens: list[int], size: int) -> bool:
    """Whether a sequence of so many tokens comes twice."""
    found = [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)] if size else []
    return len(set(found)) < len(found)


def searched(case: Case, check: Check, model: MMSpeech, view: View) -> None:
    """Compare a beam search, and decoding step by step.

    A case whose hypotheses repeat what its ``no_repeat_ngram_size`` forbids was searched without that rule, and so it is here.
    """
    asked: dict[str, Any] = case.config["gen"]
    size = asked.get("no_repeat_ngram_size", 0)
    if any(repeats(tokens.tolist(), size) for name, tokens in case.outputs.items() if name.startswith("gen.") and name.endswith(".tokens")):
        size = 0
    first, end = (int(part) for part in asked.get("constraint_range", f"{len(SPECIALS)},{model.config.vocabulary}").split(","))
    longest = asked["max_len_b"]
    if asked.get("max_len_a"):  # of the prompt's tokens, not of frames
        longest += asked["max_len_a"] * case.inputs["v1.src_tokens"].shape[1]
    decoder = model.decoder
    decoder.written, written = end, decoder.written
    options = BeamOptions(
        beam=asked["beam"],
        nbest=asked["beam"],
        length_penalty=asked.get("lenpen", 1.0),
        max_len_a=0.0,
        max_len_b=int(longest),
        min_len=asked.get("min_len", 1),
        no_repeat_ngram=size,
        normalize=asked.get("normalize_scores", not asked.get("unnormalized", False)),
        unk_penalty=asked.get("unkpen", 0.0),
        temperature=asked.get("temperature", 1.0),
        start=BOS,
        never=tuple(range(len(SPECIALS), first)),
    )
    bound = case.bound("scores")
    for row, hypotheses in enumerate(attention_beam(decoder, view.read.memory, view.read.lengths, options)):
        for rank, hypothesis in enumerate(hypotheses):
            key = f"gen.{row}.{rank}"
            check.equal(f"{key}.tokens", torch.tensor([*hypothesis.tokens, EOS]))
            check.close(f"{key}.score", torch.tensor(hypothesis.score), bound)
            check.close(f"{key}.positional_scores", torch.tensor([*hypothesis.token_scores, hypothesis.components["end"]]), bound)
    decoder.written = written
    tokens = case.outputs.get("gen.inc.prev_tokens")
    if tokens is None:
        return
    best = [case.outputs[f"gen.{row}.0.tokens"] for row in range(len(tokens))]
    made = torch.full_like(tokens, PAD)
    for row, said in enumerate(best):
        made[row, : len(said)] = torch.cat([torch.tensor([BOS]), said[:-1]])
    check.equal("gen.inc.prev_tokens", made)
    memory = decoder.project_memory(view.read.memory, view.read.lengths)
    check.forward("gen.full.logits", decoder.predict(decoder.decode(decoder.embed(tokens), memory, lengths=(tokens != PAD).sum(1))))
    state = decoder.initial_state(len(tokens))
    steps = [decoder.predict(decoder.decode(decoder.embed(tokens[:, [place]], place), memory, state)) for place in range(tokens.shape[1])]
    check.forward("gen.inc.logits", torch.cat(steps, 1))


def model_case(case: Case, check: Check) -> None:
    """All mini-batches, their losses and gradients, and a search."""
    settings = settings_of(case)
    model = MMSpeech(settings).eval()
    load(model, weights_of(settings, case.state))
    totals, sentences = dict[str, Tensor](), []
    for prefix in sorted({name.partition(".")[0] for name in case.inputs if name.endswith(".fbank")}):
        view = view_of(case, check, model, prefix)
        total, count = losses_of(case, check, view)
        compare_gradients(check, settings, model, prefix, total)
        totals[prefix] = total
        sentences.append(count)
    # The first stage leaves it to the optimiser to divide the loss of its one mini-batch.
    loss = torch.stack(list(totals.values())).sum() / (1 if case.config.get("train_stage") == 1 else sum(sentences))
    for prefix, total in totals.items():
        check.loss(f"combined.loss_{prefix}", total)
    check.loss("combined.loss", loss)
    check.equal("combined.sample_sizes", torch.tensor(sentences))
    compare_gradients(check, settings, model, "combined", loss)
    if "gen" in case.config:
        with torch.no_grad():
            searched(case, check, model, view_of(case, check, model, "gen", "v1"))


ADAPTERS = [
    (lambda case: "make_token_bucket_position" in case.official and "unify_transformer" in case.official, bucket_case),
    (lambda case: case.official.startswith("Conv2dSubsampling4"), lengths_case),
    (lambda case: "_get_torchaudio_fbank" in case.official and "waveform" in case.inputs, features_case),
    (lambda case: case.official.startswith("Text2Phone"), phonemes_case),
    (lambda case: case.official.startswith("OFASpeech"), model_case),
]

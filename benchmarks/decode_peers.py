"""Other searches, with our weights and log-probabilities, so that they can be timed beside ours.

- transformers: an MBart decoder is ours but for a norm behind the embeddings, which is taken out, and learned positions, which become our
  sinusoids. Its cache keeps keys and values of the memory for every hypothesis.
- ESPnet in the style of auto_avsr's BatchBeamSearch: all hypotheses of one utterance together, with what earlier layers said as its cache,
  so that keys and values of the text and of the memory are projected anew for every hypothesis at every step; CTC by a loop over frames in
  float32; hypotheses as Python lists.
- torchaudio (flashlight) and pyctcdecode: CTC prefix search without words. flashlight ranks by the best alignment.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.decoding.joint import JointOptions
from avtlm.decoding.lexicon import LexiconOptions
from avtlm.nn.attention import attend, padding_mask
from avtlm.nn.transformer import Decoder, DecoderLayer

Texts = list[tuple[int, ...]]


class PeerError(Exception):
    """Why a library cannot be measured here."""


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PeerError(f"it cannot be imported ({error})") from error


# transformers ---------------------------------------------------------------------------------------------------------------------------


def transformers_search(decoder: Decoder) -> Callable[[Tensor, Tensor, int, int], Texts]:
    """``generate`` with the weights of a pre-norm decoder: (encoded, lengths, beam, tokens) -> the best text of every row.

    Raises:
        PeerError: it cannot be imported.
    """
    library = _imported("transformers")
    config = decoder.config
    model = library.MBartForConditionalGeneration(
        library.MBartConfig(
            vocab_size=decoder.embedding.num_embeddings,
            d_model=config.dim,
            encoder_layers=1,
            encoder_ffn_dim=8,
            encoder_attention_heads=1,
            decoder_layers=config.layers,
            decoder_ffn_dim=config.feed_forward_dim,
            decoder_attention_heads=config.heads,
            activation_function=config.activation,
            max_position_embeddings=512,
            scale_embedding=config.scale_embedding,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=None,
            tie_word_embeddings=False,
        )
    ).eval()
    theirs = model.model.decoder
    assert decoder.positions is not None
    with torch.no_grad():
        theirs.embed_tokens.weight.copy_(decoder.embedding.weight)
        model.lm_head.weight.copy_(decoder.embedding.weight if decoder.output is None else decoder.output.weight)
        theirs.embed_positions.weight[2:].copy_(decoder.positions(torch.arange(512)))
    theirs.layernorm_embedding = nn.Identity()
    theirs.layer_norm.load_state_dict(decoder.norm.state_dict())
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    for layer, own in zip(theirs.layers, decoder.layers, strict=True):
        assert isinstance(own, DecoderLayer)
        for attention, mine in ((layer.self_attn, own.self_attention), (layer.encoder_attn, own.cross_attention)):
            for ours, name in names.items():
                getattr(attention, name).load_state_dict(getattr(mine, ours).state_dict())
        layer.self_attn_layer_norm.load_state_dict(own.self_attention_norm.state_dict())
        layer.encoder_attn_layer_norm.load_state_dict(own.cross_attention_norm.state_dict())
        layer.final_layer_norm.load_state_dict(own.feed_forward_norm.state_dict())
        linears = [part for part in own.feed_forward.modules() if isinstance(part, nn.Linear)]
        layer.fc1.load_state_dict(linears[0].state_dict())
        layer.fc2.load_state_dict(linears[1].state_dict())
    outputs = importlib.import_module("transformers.modeling_outputs")

    @torch.inference_mode()
    def search(encoded: Tensor, lengths: Tensor, beam: int, tokens: int) -> Texts:
        found = model.generate(
            encoder_outputs=outputs.BaseModelOutput(last_hidden_state=encoded),
            attention_mask=(~padding_mask(lengths, encoded.shape[1])).long(),
            num_beams=beam,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            early_stopping=True,
            length_penalty=1.0,
            bad_words_ids=[[1]],
        )
        return [tuple(row[1 : 1 + tokens]) for row in found.tolist()]

    return search


# ESPnet ---------------------------------------------------------------------------------------------------------------------------------


class EspnetSearch:
    """One utterance by the rules of joint.py, as auto_avsr computes it."""

    def __init__(self, decoder: Decoder, options: JointOptions) -> None:
        self.decoder, self.options = decoder, options
        self.steps = 0

    @torch.inference_mode()
    def __call__(self, encoded: Tensor, log_probs: Tensor, steps: int) -> list[tuple[tuple[int, ...], float]]:
        """encoded (frames, dim), log_probs (frames, vocabulary) -> the hypotheses after so many steps, with scores, best first."""
        options, frames = self.options, len(log_probs)
        size = int(options.pre_beam_ratio * options.beam)
        texts, scores = [[options.start]], torch.zeros(1)
        cache: list[Tensor] | None = None
        state = torch.full((frames, 2, 1), -1e10)
        state[:, 1, 0] = log_probs[:, options.blank].cumsum(0)
        before = torch.zeros(1)
        for _ in range(steps):
            attention, grown = self._decode(texts, encoded, cache)
            attention[:, list(options.never)] = -math.inf
            candidates = attention.topk(size, -1).indices
            forward, psi = self._prefix(texts, state, log_probs, candidates)
            heard = torch.full_like(attention, -1e10).scatter(1, candidates, psi)
            heard[:, options.end] = -1e10  # no text ends before its time here
            total = (1 - options.ctc_weight) * attention + options.ctc_weight * (heard - before[:, None]) + scores[:, None]
            best, chosen = total.flatten().topk(options.beam)
            parents, tokens = (chosen // total.shape[1]).tolist(), (chosen % total.shape[1]).tolist()
            places = [int((candidates[parent] == token).nonzero()[0]) for parent, token in zip(parents, tokens, strict=True)]
            texts = [[*texts[parent], token] for parent, token in zip(parents, tokens, strict=True)]
            cache = [torch.stack([layer[parent] for parent in parents]) for layer in grown]
            state = torch.stack([forward[:, :, parent, place] for parent, place in zip(parents, places, strict=True)], 2)
            before = torch.stack([psi[parent, place] for parent, place in zip(parents, places, strict=True)])
            scores = best
        self.steps = steps
        return [(tuple(text[1:]), float(score)) for text, score in zip(texts, scores, strict=True)]

    def _decode(self, texts: list[list[int]], encoded: Tensor, cache: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        decoder = self.decoder
        tokens = torch.tensor(texts)
        scale = decoder.config.dim**0.5 if decoder.config.scale_embedding else 1.0
        x = decoder.embedding(tokens) * scale + decoder.place(tokens)
        memory = encoded.expand(len(tokens), *encoded.shape)
        grown = []
        for index, layer in enumerate(decoder.layers):
            assert isinstance(layer, DecoderLayer)
            normed = layer.self_attention_norm(x)
            last = x[:, -1:] + self._attend(layer.self_attention, normed[:, -1:], normed)
            last = last + self._attend(layer.cross_attention, layer.cross_attention_norm(last), memory)
            last = last + layer.feed_forward(layer.feed_forward_norm(last))
            x = last if cache is None else torch.cat([cache[index], last], 1)
            grown.append(x)
        x = decoder.norm(x[:, -1])
        logits = F.linear(x, decoder.embedding.weight) if decoder.output is None else decoder.output(x)
        return logits.log_softmax(-1), grown

    def _attend(self, attention: Any, query: Tensor, source: Tensor) -> Tensor:
        """Keys and values are projected for every hypothesis, every time; softmax written out."""
        q, k, v = (
            attention.split(part(each)) for part, each in ((attention.query, query), (attention.key, source), (attention.value, source))
        )
        return attention.output(attend(q, k, v, backend="reference").flatten(-2))

    def _prefix(self, texts: list[list[int]], state: Tensor, log_probs: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """(frames, 2, hypotheses, candidates) forward variables, and log psi (hypotheses, candidates)."""
        length, frames = len(texts[0]) - 1, len(log_probs)
        emissions = log_probs[:, candidates]  # (frames, hypotheses, candidates)
        blank = log_probs[:, self.options.blank]
        forward = torch.full((frames, 2, *candidates.shape), -1e10)
        if length == 0:
            forward[0, 0] = emissions[0]
        phi = state.logsumexp(1)[:, :, None].repeat(1, 1, candidates.shape[1])
        repeated = candidates == torch.tensor([text[-1] for text in texts])[:, None]
        phi = torch.where(repeated, state[:, 1, :, None], phi)
        start = max(length, 1)
        for frame in range(start, frames):
            label, silent = forward[frame - 1, 0], forward[frame - 1, 1]
            forward[frame, 0] = torch.logaddexp(label, phi[frame - 1]) + emissions[frame]
            forward[frame, 1] = torch.logaddexp(label, silent) + blank[frame]
        entering = torch.cat([phi[:1], phi[:-1]]) + emissions
        psi = torch.cat([entering[start:], forward[start - 1 : start, 0]]).logsumexp(0)
        return forward, psi.masked_fill(candidates == self.options.blank, -1e10)


# CTC ------------------------------------------------------------------------------------------------------------------------------------


def torchaudio_search(symbols: int) -> Callable[[Tensor, Tensor, int], Texts]:
    """flashlight's lexicon-free search through torchaudio: (log_probs, lengths, beam) -> the best text of every row.

    Raises:
        PeerError: flashlight-text is missing.
    """
    _imported("flashlight.lib.text.decoder")
    library = _imported("torchaudio.models.decoder")
    names = ["-", "|", *(f"t{number}" for number in range(2, symbols))]

    def search(log_probs: Tensor, lengths: Tensor, beam: int) -> Texts:
        decoder = library.ctc_decoder(
            lexicon=None, tokens=names, beam_size=beam, beam_threshold=1e9, blank_token="-", sil_token="|", nbest=1
        )
        found = decoder(log_probs.float(), lengths.int())
        return [tuple(row[0].tokens.tolist()[1:-1]) for row in found]

    return search


def torchaudio_words(names: Sequence[str], lexicon: Path, model: Path, options: LexiconOptions) -> Callable[[Tensor, Tensor], list[str]]:
    """flashlight's search over words through torchaudio, with KenLM: (log_probs, lengths) -> the best text of every row.

    Raises:
        PeerError: flashlight-text is missing.
    """
    _imported("flashlight.lib.text.decoder")
    decoder = _imported("torchaudio.models.decoder").ctc_decoder(
        lexicon=str(lexicon),
        tokens=list(names),
        lm=str(model),
        nbest=1,
        beam_size=options.beam,
        beam_threshold=options.threshold,
        lm_weight=options.lm_weight,
        word_score=options.word_score,
        blank_token=names[0],
        sil_token="|",
        unk_word="<unk>",
    )

    def search(log_probs: Tensor, lengths: Tensor) -> list[str]:
        return [" ".join(row[0].words) for row in decoder(log_probs.float(), lengths.int())]

    return search


def pyctcdecode_search(symbols: int) -> Callable[[Tensor, Tensor, int], Texts]:
    """pyctcdecode without a language model, and without its pruning by probability.

    Raises:
        PeerError: it is missing.
    """
    library = _imported("pyctcdecode")
    names = ["", *(chr(0x4E00 + number) for number in range(1, symbols))]  # no spaces: it would merge them
    decoder = library.build_ctcdecoder(names)
    ids = {name: number for number, name in enumerate(names)}

    def search(log_probs: Tensor, lengths: Tensor, beam: int) -> Texts:
        rows = zip(log_probs, lengths.tolist(), strict=True)
        texts = [decoder.decode(row[:length].numpy(), beam_width=beam, beam_prune_logp=-1e9, token_min_logp=-1e9) for row, length in rows]
        return [tuple(ids[letter] for letter in text) for text in texts]

    return search

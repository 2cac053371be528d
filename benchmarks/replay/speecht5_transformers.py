"""Cases of SpeechT5 in transformers: recognition, synthesis, voice conversion."""

import torch
from torch import Tensor

from avtlm.convert.names.speecht5 import EMBEDDING, hugging_face_rules
from avtlm.convert.names.transformer import find_name
from avtlm.convert.options import Options
from avtlm.convert.options.speecht5 import CLASSES, hugging_face
from avtlm.data.batching import Batch
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.synthesis import LONGEST_OF_TEXT, SynthesisOptions
from avtlm.nn.spectrogram import shift_frames
from avtlm.nn.transformer import Decoder
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.systems.speecht5 import SpeechT5
from avtlm.text.vocabulary import EOS, PAD
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import batch_of, gradients, load
from benchmarks.replay.speecht5 import Given, first_spoken


def prepare(case: Case) -> Given:
    kind = next((kind for kind, name in CLASSES.items() if case.official == f"transformers.{name}"), None)
    if kind is None:
        raise CaseError(f"case.json: {case.official} is no class that is replayed.")
    options = Options(case.config["cfg"], "case.json: config.cfg")
    settings = hugging_face(options, kind)
    options.take("max_speech_positions", 0)
    options.take("max_text_positions", 0)
    options.take("vocab_size", 0)
    options.finish()
    model = SpeechT5(settings).eval()
    rules = hugging_face_rules(kind.endswith("t"))
    load(model, {find_name(rules, key, CLASSES[kind]): tensor for key, tensor in case.state.items()})
    inputs = case.inputs
    if "input_values" in inputs:
        return Given(case, model, batch_of(inputs["input_values"], 1 - inputs["attention_mask"]))
    text = inputs["input_ids"]
    return Given(case, model, Batch(tuple(map(str, range(len(text)))), "text", text=text, text_lengths=inputs["attention_mask"].sum(1)))


def _name(given: Given, key: str) -> str:
    return EMBEDDING if "embed_tokens" in key else find_name(hugging_face_rules("text" in given.config.outputs), key, "SpeechT5")


def _encoder(given: Given, check: Check) -> tuple[Tensor, Tensor]:
    model, batch = given.model, given.batch
    if batch.audio is not None:
        heard = model.hear(batch)
        seen, lengths = model.read_speech(heard), heard.lengths
        check.equal("frame_attention_mask", ~heard.padding)
    else:
        assert batch.text is not None
        assert batch.text_lengths is not None
        seen, lengths = model.read_text(batch.text), batch.text_lengths
    check.forward("prenet_out", seen)
    states = model.encoder.hidden_states(seen, lengths)
    for index, state in enumerate(states):
        check.forward(f"encoder_hidden_states_{index}", state)
    check.forward("encoder_last_hidden_state", states[-1])
    return states[-1], lengths


def text_case(case: Case, check: Check) -> None:
    given = prepare(case)
    model, decoder = given.model, given.model.decoder
    assert isinstance(decoder, Decoder)
    labels = case.inputs["labels"].masked_fill(case.inputs["labels"] < 0, PAD)
    encoded, lengths = _encoder(given, check)
    # It feeds the end symbol in front of padding, too; fairseq does not.
    tokens = torch.cat([torch.full_like(labels[:, :1], EOS), labels[:, :-1]], 1)
    assert torch.equal(shift_right(labels, EOS, PAD)[labels != PAD], tokens[labels != PAD])
    kept: list[Tensor] = []
    weights: list[Tensor] = []
    seen = decoder.embed(tokens)
    out = decoder.decode(seen, decoder.project_memory(encoded, lengths), kept=kept, weights=weights)
    for index, state in enumerate([seen, *kept]):
        check.forward(f"decoder_hidden_states_{index}", state)
    check.forward("cross_attentions_last", weights[-1])
    logits = decoder.predict(out)
    check.forward("logits", logits)
    loss = seq2seq_loss(logits, labels, PAD, 0.0)
    check.loss("loss", loss.value / loss.count)
    gradients(check, model, loss.value / loss.count, lambda key: _name(given, key))
    _generate(given, check)


def _generate(given: Given, check: Check) -> None:
    """Every utterance alone, as the case says. A generation that transformers cuts off has no end symbol; a beam search there may come to
    another end then."""
    case, batch = given.case, given.batch
    assert batch.audio is not None
    assert batch.audio_lengths is not None
    for name, asked in case.config["gen"].items():
        beam = asked["num_beams"]
        # max_length counts the start symbol, and the end symbol where there is one; scores are divided by the tokens behind the start.
        most, penalty = asked["max_length"] - (1 if beam == 1 else 2), asked.get("length_penalty", 1.0)
        options = BeamOptions(beam=beam, nbest=beam, max_len_a=0, max_len_b=most, min_len=0, length_penalty=penalty)
        for row, length in enumerate(batch.audio_lengths.tolist()):
            with torch.no_grad():
                read = given.model.encode(batch_of(batch.audio[row : row + 1, :length], None))
                best = attention_beam(given.model.decoder, *read, options)[0][0]
            check.equal(f"gen.{name}.utt{row}", torch.tensor([EOS, *best.tokens, EOS][: asked["max_length"]]))
            check.close(f"gen.{name}.utt{row}.score", torch.tensor(best.score), 1e-4)


def speech_case(case: Case, check: Check) -> None:
    given = prepare(case)
    model, inputs = given.model, case.inputs
    reduction = model.config.spectrogram.reduction
    assert model.speech_prenet is not None
    assert model.spectrogram is not None
    labels = inputs["labels"]
    padded = labels[:, :, 0] == -100.0
    frames = shift_frames(labels, reduction)
    frames = frames.masked_fill(frames == -100.0, 0.0)
    check.forward("decoder_input_values", frames)
    thinned = inputs["decoder_attention_mask"][:, reduction - 1 :: reduction]
    check.equal("decoder_attention_mask_thinned", thinned)
    steps = thinned.sum(1)
    encoded, lengths = _encoder(given, check)
    seen = model.speech_prenet(frames, inputs["speaker_embeddings"], keep=inputs["prenet_keep"][:, None])
    kept: list[Tensor] = []
    weights: list[Tensor] = []
    memory = model.decoder.project_memory(encoded, lengths)
    out = model.decoder.decode(seen, memory, lengths=steps, kept=kept, weights=weights)
    for index, state in enumerate([seen, *kept]):
        check.forward(f"decoder_hidden_states_{index}", state)
    for index, each in enumerate(weights):
        check.forward(f"cross_attentions_{index}", each)
    written = model.spectrogram(out, steps)
    check.forward("spectrogram_before_postnet", written.before)
    check.forward("spectrogram", written.after)
    check.forward("stop_logits", written.stop)
    if "loss" in case.outputs:
        whole = (~padded).sum(1)
        batch = Batch(
            given.batch.ids,
            "generation",
            text=given.batch.text,
            text_lengths=given.batch.text_lengths,
            targets={"mel": labels.masked_fill(padded[..., None], 0.0), "voice": inputs["speaker_embeddings"]},
            target_lengths={"mel": whole},
        )
        loss = model.generation_losses(batch, keep=inputs["prenet_keep"][:, None])["spectrogram"]
        check.loss("loss", loss.value / loss.count)
        gradients(check, model, loss.value / loss.count, lambda key: _name(given, key))
    speech = first_spoken(given, SynthesisOptions(stop="sum", longest=LONGEST_OF_TEXT))
    check.forward("gen.spectrogram", speech.mel)
    check.forward("gen.cross_attentions", speech.attention)


ADAPTERS = [
    (lambda case: case.official == "transformers.SpeechT5ForSpeechToText", text_case),
    (lambda case: case.official in ("transformers.SpeechT5ForTextToSpeech", "transformers.SpeechT5ForSpeechToSpeech"), speech_case),
]

"""The transducer head: one step at a time says what whole texts say, and its loss is the probability that the searches find."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avtlm import config, systems
from avtlm.checkpoint import save_model
from avtlm.convert.export import to_fairseq
from avtlm.convert.export_huggingface import to_huggingface
from avtlm.convert.model import ConversionError
from avtlm.decoding.settings import DecodingConfig
from avtlm.decoding.transducer import transducer_beam, transducer_score
from avtlm.nn.transducer import TransducerConfig, TransducerHead
from avtlm.objectives.transducer import transducer_loss
from avtlm.plain_yaml import dump_yaml
from avtlm.recognizer import Recognizer
from avtlm.training.loop import train
from tests.convert.made_speech import recogniser as recogniser_of
from tests.made_corpus import make_corpus
from tests.test_recognizer import BOTH, batch, recogniser, row_of

SMALL = TransducerConfig(weight=0.5, dim=8, context=2, joint_dim=8, dropout=0.0)


def head(context: int = 2) -> TransducerHead:
    torch.manual_seed(0)
    return TransducerHead(replace(SMALL, context=context), 7, 5).eval()


@pytest.mark.parametrize("context", [1, 2, 3])
def test_one_label_at_a_time_gives_the_logits_of_the_whole(context: int) -> None:
    model, encoded, tokens = head(context), torch.randn(2, 3, 5), torch.tensor([[4, 5, 6, 4], [3, 3, 1, 2]])
    whole = model(encoded, tokens)
    assert whole.shape == (2, 3, 5, 7)
    state, fed = model.initial_state(2), torch.cat([torch.zeros(2, 1, dtype=torch.long), tokens], 1)
    for place in range(5):
        said, state = model.predict(fed[:, place], state)
        for frame in range(3):
            assert torch.allclose(model.join(encoded[:, frame], said), whole[:, frame, place], atol=1e-6)


def test_of_one_label_its_embedding_is_all_there_is() -> None:
    model, tokens = head(1), torch.tensor([[4, 5], [1, 2]])
    assert not [name for name, _ in model.named_parameters() if name.startswith("convolution")]
    assert torch.equal(model.read(tokens), model.embedding(torch.tensor([[0, 4, 5], [0, 1, 2]])))


@pytest.mark.parametrize("sizes", [(3, 0, 2), (0, 0, 0)])
def test_the_loss_is_the_probability_of_the_texts(sizes: tuple[int, ...]) -> None:
    model, encoded = head(), torch.randn(3, 6, 5)
    lengths, token_lengths = torch.tensor([6, 1, 4]), torch.tensor(sizes)
    tokens = torch.randint(1, 7, (3, max(sizes)))
    loss = transducer_loss(model(encoded, tokens), lengths, tokens, token_lengths)
    expected = transducer_score(model, encoded, lengths, tokens, token_lengths)
    assert loss.value.item() == pytest.approx(-float(expected.sum()), rel=1e-5)
    assert int(loss.count) == sum(sizes)
    loss.value.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


def test_the_beam_finds_the_most_probable_text() -> None:
    model, encoded, lengths = head(), 3 * torch.randn(1, 3, 5), torch.tensor([3])
    [found] = transducer_beam(model, encoded, lengths, beam=300, nbest=3)
    texts = [text for length in range(4) for text in itertools.product(range(1, 7), repeat=length)]
    scores = {}
    for text in texts:
        tokens = torch.tensor([text], dtype=torch.long).reshape(1, -1)
        scores[text] = float(transducer_score(model, encoded, lengths, tokens, torch.tensor([len(text)])))
    ranked = sorted(scores, key=lambda text: -scores[text])[:3]
    assert [hypothesis.tokens for hypothesis in found] == ranked
    assert [hypothesis.score for hypothesis in found] == pytest.approx([scores[text] for text in ranked], abs=1e-6)


def test_sizes_that_do_not_fit_are_refused() -> None:
    for wrong in ({"weight": 1.0}, {"dim": 6}, {"context": 0}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match=r"give|is not a probability"):
            replace(SMALL, **wrong)  # type: ignore[arg-type]


# In a recogniser -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 4])
def test_a_recogniser_searches_by_its_transducer(beam: int) -> None:
    model, whole = recogniser(replace(BOTH, transducer=SMALL)), batch()
    assert model.transducer is not None
    model.transducer.output.bias.data[:5] -= 8.0  # blanks and special symbols are not likely, so that there is a text
    decoding = DecodingConfig("transducer", beam, min(beam, 2))
    together = model.transcribe_batch(whole, decoding)
    assert any(result.text for result in together)
    for row, result in enumerate(together):
        alone = model.transcribe_batch(row_of(whole, row), decoding)[0]
        assert [h.tokens for h in alone.hypotheses] == [h.tokens for h in result.hypotheses]
        for word in result.words:
            assert word.start is not None
            assert word.end is not None
            assert word.start < word.end
            assert word.confidence is not None
    with pytest.raises(ValueError, match="transducer was asked for, but this model has no transducer"):
        recogniser().search(whole, decoding)
    with pytest.raises(ValueError, match="hot_words: the search of transducers has no place for them"):
        DecodingConfig("transducer", hot_words={"ab": 1.0})


@pytest.mark.parametrize("write", [to_fairseq, to_huggingface])
def test_a_recogniser_with_a_transducer_has_no_official_form(write: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    model = recogniser_of("hubert")
    model = Recognizer(replace(model.config, transducer=SMALL), model.encoder, model.vocabulary)
    folder = tmp_path / "model"
    card = {"system": "hubert", "task": "recognition", "model": config.to_dict(model.config)}
    save_model(folder, model, card, model.vocabulary)
    with pytest.raises(ConversionError, match="it has a transducer"):
        write(folder, tmp_path / "out")


def test_a_recogniser_learns_with_a_transducer_and_is_kept_in_a_folder(tmp_path: Path) -> None:
    made = make_corpus(tmp_path, 4)
    source = f"{{manifest: {made.sound}, task: recognition, modality: a, split: train}}"
    encoder = {
        "encoder": {"dim": 16, "layers": 1, "heads": 2, "feed_forward_dim": 16, "position_groups": 2},
        "waveform": {"widths": [8] * 7},
    }
    model = {"encoder": encoder, "ctc_weight": 1.0, "transducer": {"weight": 0.6, "dim": 8, "joint_dim": 8}}
    model["decoding"] = {"method": "transducer", "beam": 2}
    lines = f"system: hubert\ntask: recognition\noutput: {tmp_path / 'run'}\nsteps: 2\nlog_every: 1\nthreads: 1\nmax_rows: 2\n"
    (tmp_path / "run.yaml").write_text(f"{lines}sources: {{clips: {source}}}\n" + dump_yaml({"model": model}))
    found = systems.load(train(tmp_path / "run.yaml"))
    assert isinstance(found.transducer, TransducerHead)
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert "transducer_loss" in log
    assert "ctc_loss" in log

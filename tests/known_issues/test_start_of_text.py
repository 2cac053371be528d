"""Attention searches began texts with </s> whatever a model begins them with: MMSpeech, which learns <s>, wrote scraps of sentences."""

import pytest
import torch

from avtlm.decoding.search import Heads, Search
from avtlm.decoding.settings import DecodingConfig
from avtlm.nn.cache import KeyValueCache
from avtlm.text.vocabulary import BOS, EOS, SPECIALS, Vocabulary
from tests.systems.mandarin_models import mmspeech, pairs

SYMBOLS = Vocabulary([*SPECIALS, *"一二三四五六", "<mask>", "<blank>"])


@pytest.mark.parametrize("start", [BOS, EOS])
def test_a_search_begins_with_what_the_model_begins_texts_with(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mmspeech()
    memory, lengths = model.remember(pairs())
    first: list[torch.Tensor] = []
    step = type(model.decoder).step

    def noted(self: torch.nn.Module, tokens: torch.Tensor, memory: object, state: KeyValueCache) -> object:
        if state.length == 0:
            first.append(tokens)
        return step(self, tokens, memory, state)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model.decoder), "step", noted)
    search = Search(
        DecodingConfig(method="attention", beam=2, max_length_ratio=0.0, max_length_extra=4.0),
        Heads(model.decoder, None, SYMBOLS, start=start),
    )
    assert search.beam_options((0.0, 4.0)).start == start
    with torch.no_grad():
        search(memory, lengths)
    assert [set(tokens.tolist()) for tokens in first] == [{start}]

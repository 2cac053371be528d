"""Speech2C beside what a replay of the stored cases shows."""

import torch

from avtlm.nn.transformer import Decoder
from avtlm.systems.speech2c import Speech2C, Speech2CConfig, without_repeats
from tests.systems.sequence_models import batch, speech2c


def test_base_has_an_encoder_like_hubert_and_a_decoder() -> None:
    with torch.device("meta"):
        model = Speech2C(Speech2CConfig())
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    hubert = 94_697_600
    assert sum(p.numel() for p in model.parameters()) - sizes["decoder"] == hubert + 320 * 64
    assert sizes["decoder"] == 6 * 9_451_776 + 2 * 504 * 768 + 48 * 64


def test_runs_of_one_unit_become_one() -> None:
    units = torch.tensor([[4, 4, 5, 5, 5, 4, -1], [6, 4, 4, -1, -1, -1, -1]])
    assert without_repeats(units).tolist() == [[4, 5, 4, 2], [6, 4, 2, 1]]


def test_losses_include_what_the_decoder_writes() -> None:
    rows, model = batch("wave", "units"), speech2c()
    losses = model.losses(rows, torch.Generator().manual_seed(3))
    assert set(losses) == {"masked_prediction", "feature_penalty", "decoder"}
    silent = speech2c(decoder_weight=0.0).losses(rows, torch.Generator().manual_seed(3))
    assert set(silent) == {"masked_prediction", "feature_penalty"}


def test_distances_reach_the_decoder_step_by_step() -> None:
    """Token by token with a cache, it says what it says of the whole text."""
    model = speech2c()
    decoder = model.decoder
    assert isinstance(decoder, Decoder)
    with torch.no_grad():
        encoded, lengths = model.encode(batch("wave"))
        tokens = torch.tensor([[2, 4, 5, 6, 4, 5], [2, 5, 4, 4, 6, 6], [2, 6, 6, 5, 4, 4]])
        whole = decoder(tokens, encoded, lengths)
        memory, state = decoder.project_memory(encoded, lengths), decoder.initial_state(3)
        for place in range(tokens.shape[1]):
            logits, state = decoder.step(tokens[:, place], memory, state)
            torch.testing.assert_close(logits, whole[:, place], atol=1e-5, rtol=1e-5)
    assert decoder.distances is not None
    with torch.no_grad():
        decoder.distances.table.weight += 1.0 + torch.arange(4.0)[:, None]
        assert not torch.allclose(decoder(tokens, encoded, lengths)[:, -1], whole[:, -1], atol=1e-3)


def test_fine_tuning_drops_the_head_and_the_decoder() -> None:
    model = speech2c()
    model.drop_heads()
    assert {name.split(".")[0] for name in model.state_dict()} == {"frontend", "feature_mask", "encoder"}

"""A cache whose rows change places holds what one does that copies everything every time."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avtlm.nn.cache import TOKENS, KeyValueCache

LAYERS, HEADS, DIM = 2, 2, 3


def grow(cache: KeyValueCache, plain: list[Tensor], rows: int, tokens: int, generator: torch.Generator) -> None:
    """Append the same random keys and values to a cache and to lists, and compare all that they hold."""
    for layer in range(LAYERS):
        pair = torch.randn(2, rows, tokens, HEADS, DIM, generator=generator)
        kept = cache.append(layer, *pair)
        for part in range(2):
            place = 2 * layer + part
            plain[place] = torch.cat([plain[place], pair[part]], 1) if plain[place].numel() else pair[part]
            assert torch.equal(kept[part], plain[place])
    cache.advance(tokens)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.sampled_from(["sort", "same", "fewer", "more"]), st.integers(1, 3)), max_size=12))
def test_rows_that_change_places_hold_their_own_past(seed: int, steps: list[tuple[str, int]]) -> None:
    generator = torch.Generator().manual_seed(seed)
    cache, plain, rows = KeyValueCache(LAYERS), [torch.empty(0)] * (2 * LAYERS), 6
    grow(cache, plain, rows, 1, generator)
    for change, tokens in steps:
        after = {"fewer": max(1, rows - 2), "more": rows + 3}.get(change, rows)
        chosen = torch.arange(rows) if change == "same" else torch.randint(0, rows, (after,), generator=generator)
        cache = cache.reorder(chosen)
        plain, rows = [part[chosen] for part in plain], after
        grow(cache, plain, rows, tokens, generator)
    assert cache.length == plain[0].shape[1]


def test_it_grows_beyond_its_first_room_between_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    cache, plain = KeyValueCache(LAYERS), [torch.empty(0)] * (2 * LAYERS)
    for _ in range(2 * TOKENS + 3):
        grow(cache, plain, 4, 1, generator)
        chosen = torch.randint(0, 4, (4,), generator=generator)
        cache = cache.reorder(chosen)
        plain = [part[chosen] for part in plain]
    assert cache.length == 2 * TOKENS + 3


def test_what_hypotheses_have_in_common_is_not_copied_again(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    cache, plain = KeyValueCache(LAYERS), [torch.empty(0)] * (2 * LAYERS)
    for _ in range(9):
        grow(cache, plain, 4, 1, generator)
    cache.reorder(torch.tensor([2, 2, 2, 2]))  # from here on all have one past
    plain = [part[[2, 2, 2, 2]] for part in plain]
    grow(cache, plain, 4, 1, generator)
    copied: list[tuple[int, ...]] = []
    original = Tensor.index_select

    def noted(self: Tensor, *arguments: object) -> Tensor:
        copied.append(tuple(self.shape))
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Tensor, "index_select", noted)
    cache.reorder(torch.tensor([1, 0, 2, 3]))
    assert [shape[0] for shape in copied] == [1]  # the last token alone
    cache.reorder(torch.arange(4))
    assert len(copied) == 1

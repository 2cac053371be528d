"""The way back of a table of key names: rules from ours to theirs, so that each table is written once."""

import re

from avtlm.convert.names.vatlm import DECODER, ENCODER, FINE_TUNED

_GROUP = re.compile(r"\((?:\\d\+|\.\+|weight\|bias)\)")


def inverse(rules: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rules (a pattern of our names, their name), in the same order.

    A pattern of a table is plain text with groups of digits or of anything, and its counterpart names all of them in their order.
    """
    turned = []
    for pattern, ours in rules:
        groups = _GROUP.findall(pattern)
        parts = re.split(r"\\(\d)", ours)
        assert [int(number) for number in parts[1::2]] == list(range(1, len(groups) + 1)), pattern
        ours = "".join(groups[int(part) - 1] if place % 2 else re.escape(part) for place, part in enumerate(parts))
        theirs = "".join(
            re.sub(r"\\(.)", r"\1", text) + (rf"\{place + 1}" if place < len(groups) else "")
            for place, text in enumerate(_GROUP.split(pattern))
        )
        turned.append((ours, theirs))
    return turned


_ENCODER, _DECODER = inverse(ENCODER), inverse(DECODER)


def official_key(name: str, fine_tuned: bool, ctc: bool = False) -> str:
    """The official name of a tensor of AVHubert or VATLM, or of a Recognizer around one (``fine_tuned``; with ``ctc`` and no decoder, the
    official model is another one and names its encoder otherwise).

    Raises:
        ValueError: the official model has no such tensor.
    """
    rules, inner, prefix = _ENCODER, name, ""
    if fine_tuned and name.startswith("ctc."):
        return "w2v_encoder.proj." + name.removeprefix("ctc.")
    if fine_tuned and name.startswith("decoder."):
        rules = _DECODER
    elif fine_tuned and name.startswith("encoder."):
        inner, prefix = name.removeprefix("encoder."), FINE_TUNED[ctc]
    if inner in ("frontends.audio_mask", "feature_mask"):
        return prefix + "mask_emb"
    for ours, theirs in rules:
        match = re.fullmatch(ours, inner)
        if match:
            return prefix + match.expand(theirs)
    raise ValueError(f"{name!r}: the official model has no such tensor.")

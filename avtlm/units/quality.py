"""How much units know about phones: the measures of HuBERT (arXiv 2106.07447, section IV-D) against phones with times in the manifest.

With p(y, z) the share of frames of phone y and unit z:

- phone purity, the mean over units of the share of their most frequent phone: sum over z of max over y of p(y, z). It is the accuracy of
  guessing the phone from the unit, and grows with the number of units.
- cluster purity, the same the other way round: sum over y of max over z of p(y, z). It shrinks with the number of units.
- PNMI, phone-normalised mutual information: I(y; z) / H(y), the part of the uncertainty about the phone that the unit removes.

The use of the units (how many, and how evenly: perplexity) needs no phones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from avtlm.data.manifest import Utterance
from avtlm.units.text_to_units import timed_phones


@dataclass(frozen=True)
class PhoneQuality:
    """Units against phones; frames outside every phone are left out.

    Attributes:
        frames: compared, of ``utterances`` with timed phones.
        phones: different ones.
    """

    phone_purity: float
    cluster_purity: float
    pnmi: float
    frames: int
    utterances: int
    phones: int

    def __str__(self) -> str:
        return (
            f"phone purity {self.phone_purity:.3f}, cluster purity {self.cluster_purity:.3f}, PNMI {self.pnmi:.3f} "
            f"({self.phones} phones, {self.frames} frames of {self.utterances} utterances)"
        )


def entropy(counts: np.ndarray) -> float:
    """Of the shares of counts, in nats."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def usage(counts: np.ndarray) -> tuple[int, float]:
    """Units in use and their perplexity, exp(entropy): the number of equally frequent units that would be as uneven."""
    return int((counts > 0).sum()), float(np.exp(entropy(counts)))


def purity_and_information(joint: np.ndarray) -> tuple[float, float, float]:
    """Phone purity, cluster purity and PNMI of counts (phones, units).

    A corpus of one phone leaves nothing to know: its PNMI is 0.

    Raises:
        ValueError: nothing was counted.
    """
    total = joint.sum()
    if total == 0:
        raise ValueError("cluster quality: no frame has both a phone and a unit; check the times of the phones in the manifest.")
    phones = entropy(joint.sum(1))
    information = phones + entropy(joint.sum(0)) - entropy(joint.ravel())
    return float(joint.max(0).sum() / total), float(joint.max(1).sum() / total), max(0.0, information / phones) if phones > 0 else 0.0


def phones_of_frames(row: Utterance, frames: int, rate: float) -> list[str]:
    """The phone in the middle of each of the first ``frames`` frames at ``rate`` Hz; empty where there is none.

    Raises:
        ValueError: the row has no timed phones.
    """
    timed = timed_phones(row)
    symbols, starts, ends = [t[0] for t in timed], np.array([t[1] for t in timed]), np.array([t[2] for t in timed])
    middles = (np.arange(frames) + 0.5) / rate
    which = np.searchsorted(ends, middles, side="right").clip(max=len(timed) - 1)
    inside = (starts[which] <= middles) & (middles < ends[which])
    return [symbols[index] if there else "" for index, there in zip(which.tolist(), inside.tolist(), strict=True)]


def phone_quality(rows: Iterable[Utterance], labels: Mapping[str, np.ndarray], units: int, rate: float) -> PhoneQuality | None:
    """Compare labels with the phones of every row that has timed ones; None if no row has.

    Args:
        labels: units of every utterance by id, (frames,) at ``rate`` Hz.
        units: size of the inventory.

    Raises:
        ValueError: rows have timed phones, but no frame lies in one.
    """
    counts: dict[str, np.ndarray] = {}
    utterances = 0
    for row in rows:
        if ":" not in (row.phones or "") or row.id not in labels:
            continue
        utterances += 1
        found = labels[row.id]
        names, inverse = np.unique(phones_of_frames(row, len(found), rate), return_inverse=True)
        for index, name in enumerate(names.tolist()):
            if name:
                mine = np.bincount(found[inverse == index], minlength=units)
                counts[name] = counts.get(name, 0) + mine
    if not utterances:
        return None
    joint = np.array(list(counts.values())) if counts else np.zeros((1, units), int)
    return PhoneQuality(*purity_and_information(joint), int(joint.sum()), utterances, len(counts))

"""Who can be heard: the variants of eSpeak NG that speakers are drawn from, and what else sets speakers apart.

Of the 104 variants in the wheel, 56 are used. Left out are, in this order:

- voices for effect (robots, whispers, demons) and those that speak more than a fifth slower or faster than the rest (Andrea, anika,
  antonio, pedro, AnxiousAndy, Marco ...): at 25 Hz the fast ones leave CTC too few frames;
- voices that can hardly be understood: those whose phones a linear classifier of cepstra, trained on other voices, recognises in less than
  55 % of the frames, where the median of all voices is about 73 % (zac 18 %, kaukovalta 21 %, Alicia 22 %, ian 33 %, Lee 36 %, shelby 40 %,
  david 49 %, travis 52 %, Annie 53 %);
- all but one of voices with nearly the same spectrum (steph2 and steph, klatt2 and klatt, Gene2 and Gene, edward2 and benjamin; michel,
  miguel, Henrique and Diogo): a held-out voice must not be a training voice under another name.
"""

import numpy as np

from preprocess.synthesis.espeak import Voice

VARIANTS = (
    "Alex", "Andy", "Denis", "Diogo", "Gene", "Hugo", "Jacky", "Mario", "Michael", "Mike", "Nguyen", "Reed", "Storm", "adam",
    "announcer", "aunty", "belinda", "benjamin", "boris", "caleb", "ed", "edward", "f1", "f2", "f3", "f4", "f5", "grandma",
    "grandpa", "gustave", "iven", "iven2", "iven4", "john", "klatt", "klatt3", "linda", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8",
    "marcelo", "max", "norbert", "pablo", "paul", "quincy", "rob", "robert", "sandro", "steph", "victor",
)  # fmt: skip
ACCENTS = ("en-us", "en")
AMERICAN_SHARE = 0.7


def draw_voices(held_out: int, training: int, rng: np.random.Generator) -> tuple[list[Voice], list[Voice]]:
    """Voices of held-out and of training speakers, each group in the order of drawing.

    Every held-out speaker has a variant that nobody else has. Training speakers share the others, as evenly as can be, once there are more
    speakers than variants.
    """
    assert held_out < len(VARIANTS), "a variant is left for training"
    order = [VARIANTS[i] for i in rng.permutation(len(VARIANTS))]
    shared = order[held_out:]
    names = [*order[:held_out], *(shared[i % len(shared)] for i in range(training))]
    voices = [_draw(name, rng) for name in names]
    return voices[:held_out], voices[held_out:]


def _draw(variant: str, rng: np.random.Generator) -> Voice:
    accent = ACCENTS[0] if rng.random() < AMERICAN_SHARE else ACCENTS[1]
    return Voice(f"{accent}+{variant}", int(rng.integers(125, 175)), int(rng.integers(25, 80)), int(rng.integers(20, 80)))

"""avtlm: audio-visual-text models on one shared core.

    import avtlm

    model = avtlm.load("runs/quickstart/model")          # a model folder, or a model of the hub: "owner/name"
    avtlm.transcribe("clip.mp4", model=model).words      # words with start, end and confidence

The names below are imported when they are first used, so that ``import avtlm`` costs next to nothing; all else is in the submodules.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

__all__ = ["Clip", "Transcript", "Word", "__version__", "load", "pull", "push_to_hub", "save", "transcribe"]

if TYPE_CHECKING:
    from avtlm.arrays import transcribe as transcribe
    from avtlm.data.media import Clip as Clip
    from avtlm.decoding.result import Transcript as Transcript
    from avtlm.decoding.result import Word as Word
    from avtlm.hub import pull as pull
    from avtlm.hub import push_to_hub as push_to_hub
    from avtlm.models import load as load
    from avtlm.models import save as save

_HOMES = {
    "Clip": "avtlm.data.media",
    "Transcript": "avtlm.decoding.result",
    "Word": "avtlm.decoding.result",
    "load": "avtlm.models",
    "pull": "avtlm.hub",
    "push_to_hub": "avtlm.hub",
    "save": "avtlm.models",
    "transcribe": "avtlm.arrays",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'avtlm' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    # The module avtlm.transcribe takes the place of the function of this name as soon as it is imported, and can be called like it.
    return sys.modules["avtlm.transcribe"] if name == "transcribe" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

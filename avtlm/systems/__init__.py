"""The published systems, by name: one file each. A plain dictionary, so that a reader sees them all and nothing is registered by import."""

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from avtlm import checkpoint, config
from avtlm.data.inputs import InputFormat
from avtlm.nn.linear import lay_out
from avtlm.protocols import DropsHeads

if TYPE_CHECKING:
    from avtlm.text.vocabulary import Tokenizer

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class System:
    """Where a system's configuration and model are defined, and how it is trained.

    Attributes:
        units: every clip that it pre-trains on has unit labels.
        whole: it is trained and used with its own decoder and vocabulary (avtlm.protocols.WholeConfig).
        task: the only one that it is trained for, where that is not pre-training.
        paired: it pre-trains on speech with transcripts, too.
        learns: tasks of the sources that a run of a task may have, where these are not those of other systems.
    """

    module: str
    config: str
    model: str
    units: bool = True
    whole: bool = False
    task: str | None = None
    paired: bool = False
    learns: Mapping[str, tuple[str, ...]] | None = None

    def config_class(self) -> type[Any]:
        cls: type[Any] = getattr(importlib.import_module(self.module), self.config)
        return cls

    def build(self, settings: Any) -> nn.Module:
        """A freshly initialised model from its configuration dataclass."""
        model: nn.Module = getattr(importlib.import_module(self.module), self.model)(settings)
        return model


SYSTEMS = {
    "avhubert": System("avtlm.systems.avhubert", "AVHubertConfig", "AVHubert"),
    "data2vec": System("avtlm.systems.data2vec", "Data2VecConfig", "Data2Vec", units=False),
    "fast_text2unit": System("avtlm.systems.fast_text2unit", "FastText2UnitConfig", "FastText2Unit", units=False, task="text_to_units"),
    "hubert": System("avtlm.systems.hubert", "HubertConfig", "Hubert"),
    "language_model": System("avtlm.systems.language_model", "LanguageModelConfig", "LanguageModel", units=False),
    "mmspeech": System("avtlm.systems.mmspeech", "MMSpeechConfig", "MMSpeech", units=False, whole=True, paired=True),
    "mt2kd": System(
        "avtlm.systems.mt2kd",
        "MT2KDConfig",
        "MT2KD",
        units=False,
        whole=True,
        learns={"pretrain": ("distillation",), "transcription": ("recognition", "tagging", "speaker")},
    ),
    "mt4ssl": System("avtlm.systems.mt4ssl", "MT4SSLConfig", "MT4SSL"),
    "multistage": System("avtlm.systems.multistage", "MultistageConfig", "AudioVisualPretrain", units=False),
    "speech2c": System("avtlm.systems.speech2c", "Speech2CConfig", "Speech2C"),
    "speechlm": System("avtlm.systems.speechlm", "SpeechLMConfig", "SpeechLM", whole=True),
    "speecht5": System("avtlm.systems.speecht5", "SpeechT5Config", "SpeechT5", units=False, whole=True),
    "speechut": System("avtlm.systems.speechut", "SpeechUTConfig", "SpeechUT", whole=True),
    "text2unit": System("avtlm.systems.text2unit", "Text2UnitConfig", "Text2Unit", units=False, task="text_to_units"),
    "vatlm": System("avtlm.systems.vatlm", "VATLMConfig", "VATLM"),
    "wav2vec2": System("avtlm.systems.wav2vec2", "Wav2Vec2Config", "Wav2Vec2", units=False),
    "wavlm": System("avtlm.systems.wavlm", "WavLMConfig", "WavLM"),
}


# What turns spectrograms into sound; no system of its own.
VOCODERS = {"hifigan": System("avtlm.nn.vocoder", "VocoderConfig", "Vocoder", units=False)}
# Models that are used whole, with their own decoder; what those of each task do.
WHOLE = {"transcription": "writes down speech", "generation": "writes speech", "speaker": "names voices"}


def find(name: str) -> System:
    """Raises ConfigError naming the systems there are."""
    if name not in SYSTEMS:
        raise config.ConfigError(f"system: {name!r} is unknown; choose one of {', '.join(sorted(SYSTEMS))}.")
    return SYSTEMS[name]


def for_use(model: Model, device: torch.device | str | None = None) -> Model:
    """A model that will learn nothing more: on the GPU if there is one (or on ``device``), in evaluation mode, its weights laid out for
    speed (see avtlm.nn.linear)."""
    return lay_out(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval())


def load_encoder(folder: str | Path) -> tuple[nn.Module, InputFormat]:
    """The encoder of a pre-trained or fine-tuned model folder, and what it takes in.

    Raises:
        CheckpointError, ConfigError: the folder is incomplete or describes something else.
    """
    settings = checkpoint.load_config(folder)
    if settings.get("task") == "recognition":
        recognizer = load(folder)
        encoder: nn.Module = recognizer.encoder
        return encoder, input_format(encoder)
    _refuse_models_of_text(folder, settings)
    system = find(settings["system"])
    model = system.build(config.load(system.config_class(), settings["model"]))
    if settings.get("heads") is False and isinstance(model, DropsHeads):
        model.drop_heads()  # an encoder alone, converted from a file without what it was pre-trained with
    checkpoint.load_into(model, folder)
    return model.eval(), input_format(model)


def load_whole(folder: str | Path, task: str) -> tuple[nn.Module, "Tokenizer | None"]:
    """A model that is used whole, in evaluation mode, and its vocabulary, which is None where the folder has none.

    Args:
        task: what it has to be for: ``transcription``, ``generation`` or ``speaker``.

    Raises:
        CheckpointError, ConfigError, VocabularyError: the folder is incomplete or damaged.
        ValueError: the folder is of another task, or its vocabulary does not belong to its model.
    """
    from avtlm.text.vocabulary import FILE, load_vocabulary

    assert task in WHOLE, task
    settings = checkpoint.load_config(folder)
    found = settings.get("task")
    if found != task:
        kind = f"holds a {settings['system']} model for {found}" if found else f"holds a {settings['system']} model without a task"
        if found == "pretrain":
            raise ValueError(f"{folder}: {kind}, which was only pre-trained; fine-tune it for {task} first.")
        raise ValueError(f"{folder}: {kind}; give the folder of a model for {task}, one that {WHOLE[task]}.")
    system = find(settings["system"])
    model = system.build(config.load(system.config_class(), settings["model"]))
    checkpoint.load_into(model, folder)
    vocabulary = load_vocabulary(folder) if (Path(folder) / FILE).exists() else None
    rows = getattr(model.config, "vocabulary", None)
    further = len(getattr(model.config, "further_symbols", ()))  # which word pieces of SentencePiece do not count
    if vocabulary is not None and rows is not None and len(vocabulary) not in (rows, rows - further):
        raise ValueError(f"{folder}: its vocabulary has {len(vocabulary)} symbols, but its model {rows}; they do not belong together.")
    return model.eval(), vocabulary


def load_vocoder(folder: str | Path) -> nn.Module:
    """A vocoder in evaluation mode, from its model folder.

    Raises:
        CheckpointError, ConfigError: the folder is incomplete or describes something else.
    """
    settings = checkpoint.load_config(folder)
    system = VOCODERS.get(settings["system"])
    if system is None:
        raise config.ConfigError(f"{folder}: {settings['system']} is no vocoder; give the folder of one of {', '.join(VOCODERS)}.")
    model = system.build(config.load(system.config_class(), settings["model"]))
    checkpoint.load_into(model, folder)
    return model.eval()


def input_format(encoder: nn.Module) -> InputFormat:
    """What the front-ends of an encoder take in."""
    form: InputFormat = encoder.input_format  # type: ignore[assignment]
    return form


def load(folder: str | Path) -> Any:
    """A fine-tuned recogniser, or a whole model that writes text, in evaluation mode, from its model folder alone.

    Raises:
        CheckpointError: a file is missing or does not fit.
        VocabularyError, ValueError: the folder holds an encoder without heads, no vocabulary, or a model that writes no text.
    """
    settings = checkpoint.load_config(folder)
    _refuse_models_of_text(folder, settings)
    if settings.get("task") == "transcription":
        return _transcription(folder)
    if settings.get("task") != "recognition":
        if settings.get("task") in (*WHOLE, "vocoder"):
            doing = WHOLE.get(settings["task"], "turns spectrograms into sound")
            raise ValueError(
                f"{folder}: holds a {settings['system']} model that {doing} and no text; give the folder of a recogniser, or of a model "
                "for transcription."
            )
        raise ValueError(
            f"{folder}: a pre-trained encoder without a recogniser; fine-tune it first (avtlm train configs/vatlm/finetune_avsr.yaml)."
        )
    model = _recognizer(folder, settings, checkpoint.load_decoding(folder))
    checkpoint.load_into(model, folder)
    return model.eval()


def outline(folder: str | Path, settings: dict[str, Any], decoding: dict[str, Any]) -> Any:
    """A recogniser, or a whole model that writes text, without weights (on the device ``meta``): what it takes in, its vocabulary and how
    it searches are there, and what it computes without weights.

    Args:
        folder: where the vocabulary lies; there need be no weights.
        settings: of config.yaml.
        decoding: of decoding.yaml; empty for what the model asks for.

    Raises:
        ConfigError, VocabularyError: the folder describes something else, or lacks its vocabulary.
    """
    from avtlm.recognizer import DecodingConfig
    from avtlm.text.vocabulary import load_vocabulary
    from avtlm.whole_model import WholeModel

    with torch.device("meta"):
        if settings.get("task") == "recognition":
            return _recognizer(folder, settings, decoding).eval()
        system = find(settings["system"])
        model = system.build(config.load(system.config_class(), settings["model"]))
    searched = config.load(DecodingConfig, decoding) if decoding else None
    return WholeModel(model, load_vocabulary(folder), searched).eval()


def _recognizer(folder: str | Path, settings: dict[str, Any], decoding: dict[str, Any]) -> Any:
    """The recogniser that settings describe, with fresh weights."""
    from avtlm.recognizer import DecodingConfig, Recognizer, RecognizerConfig
    from avtlm.text.vocabulary import load_vocabulary

    heads = config.load(RecognizerConfig, settings["model"])
    # decoding.yaml is the file that one may change without training anew.
    heads = dataclasses.replace(heads, decoding=config.load(DecodingConfig, decoding or config.to_dict(heads.decoding)))
    system = find(settings["system"])
    encoder = system.build(config.load(system.config_class(), heads.encoder))
    model = Recognizer(heads, encoder, load_vocabulary(folder))
    model.folder = Path(folder)
    model.geometry = settings.get("geometry", model.geometry)
    return model


def _transcription(folder: str | Path) -> Any:
    """A whole model that writes text, as a recogniser; see avtlm.whole_model."""
    from avtlm.recognizer import DecodingConfig
    from avtlm.text.vocabulary import FILE, VocabularyError
    from avtlm.whole_model import WholeModel

    model, vocabulary = load_whole(folder, "transcription")
    if vocabulary is None:
        raise VocabularyError(
            f"{folder}: a model that writes text, but its {FILE} is missing; convert it again with --vocabulary dict.txt, or with the "
            "SentencePiece model (of Hugging Face: spm_char.model in its folder)."
        )
    given = checkpoint.load_decoding(folder)
    whole = WholeModel(model, vocabulary, config.load(DecodingConfig, given) if given else None)
    whole.folder = Path(folder)
    return whole.eval()


def load_language_model(folder: str | Path) -> tuple[nn.Module, "Tokenizer"]:
    """A language model, in evaluation mode, and the vocabulary of its tokens.

    Raises:
        CheckpointError: a file is missing or does not fit.
        ValueError: the folder holds something else.
    """
    return _load_of_text(folder, "language_model", "no language model; train one (avtlm train configs/language_model/tiny.yaml)")


def load_text2unit(folder: str | Path) -> tuple[nn.Module, "Tokenizer"]:
    """A text-to-unit model, in evaluation mode, and the vocabulary of what it reads.

    Raises:
        CheckpointError: a file is missing or does not fit.
        ValueError: the folder holds something else.
    """
    return _load_of_text(folder, "text_to_units", "none that writes units; train one (avtlm train configs/text2unit/tiny_fast.yaml)")


def _load_of_text(folder: str | Path, task: str, advice: str) -> tuple[nn.Module, "Tokenizer"]:
    from avtlm.text.vocabulary import load_vocabulary

    settings = checkpoint.load_config(folder)
    if settings.get("task") != task:
        raise ValueError(f"{folder}: holds a {settings['system']} model and {advice}.")
    system = find(settings["system"])
    model = system.build(config.load(system.config_class(), settings["model"]))
    checkpoint.load_into(model, folder)
    return model.eval(), load_vocabulary(folder)


def _refuse_models_of_text(folder: str | Path, settings: dict[str, Any]) -> None:
    if settings.get("task") == "text_to_units":
        raise ValueError(f"{folder}: a model that writes units for text, which neither hears nor sees; give it to avtlm units text2units.")
    if settings.get("task") == "language_model":
        raise ValueError(
            f"{folder}: a language model, which neither hears nor sees; give it to a recogniser: --decoding fusion.language_model={folder}."
        )

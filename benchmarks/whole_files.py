"""Whole files of everything that the library reads, each with the way to read it: what `benchmarks.fuzz` damages."""

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("media", "manifest", "config", "checkpoint", "official", "arrays")


@dataclass(frozen=True)
class Seed:
    """A whole file, what it is called where it is read, and how it is read.

    Attributes:
        read: from the path of the damaged file; returns how much was read (None: nothing that can be counted) and what was said of it.
        whole: how much there is in the whole file.
        beside: further files that have to stand beside it.
    """

    kind: str
    name: str
    data: bytes
    read: Callable[[Path], tuple[int | None, Sequence[str]]]
    whole: int | None = None
    textual: bool = False
    beside: tuple[tuple[str, bytes], ...] = ()


def seeds(folder: Path, kinds: Sequence[str]) -> list[Seed]:
    """Whole files of some kinds, made in a folder."""
    makers = {
        "media": _media,
        "manifest": _manifests,
        "config": _configs,
        "checkpoint": _checkpoints,
        "official": _official,
        "arrays": _arrays,
    }
    return [seed for kind in kinds for seed in makers[kind](folder)]


def _media(folder: Path) -> list[Seed]:
    from avtlm.data.media import read_clip
    from avtlm.data.sound import read_track
    from benchmarks.containers import Container
    from tests.made_media import noise_frames, tone

    def video(path: Path) -> tuple[int, list[str]]:
        clip = read_clip(path)
        assert clip.frames is not None
        return len(clip.frames), clip.info["warnings"]

    def sound(path: Path) -> tuple[int, list[str]]:
        wave, notes = read_track(path)
        return 0 if wave is None else len(wave), notes

    pictures, wave = noise_frames(30, 64), tone(1.2)
    made = []
    for clip in (
        Container("a.mp4", "libx264", "aac", header_in_front=True),
        Container("b.mp4", "libx264", "aac"),
        Container("c.avi", "mpeg4", "mp3"),
        Container("d.mkv", "libx264", "aac"),
        Container("e.webm", "libvpx", "libopus"),
        Container("f.mpg", "mpeg1video", "mp2"),
    ):
        path = clip.write(folder, pictures, 1.2)
        made.append(Seed("media", clip.name, path.read_bytes(), video, video(path)[0]))
    import soundfile

    for name in ("g.wav", "h.flac", "i.ogg", "j.mp3"):
        soundfile.write(folder / name, wave, 16000)
        # Nothing tells how long MP3 was meant to be: its lengths are guessed from the size of the file.
        whole = None if name.endswith("mp3") else sound(folder / name)[0]
        made.append(Seed("media", name, (folder / name).read_bytes(), sound, whole))
    return made


def _manifests(folder: Path) -> list[Seed]:
    from avtlm.data.manifest import Manifest, Utterance, read_manifest, validate, write_manifest, write_tsv
    from avtlm.data.shards import Shard, head_line

    def read(path: Path) -> tuple[int, list[str]]:
        manifest = read_manifest(path)
        return len(manifest), [str(problem) for problem in validate(manifest)]

    rows = tuple(
        Utterance(
            f"s/{number}",
            f"v/{number}.mp4",
            f"a/{number}.wav",
            50,
            32000,
            transcript="bin blue",
            speaker="s1",
            split="train",
            phones="b:0:1",
        )
        for number in range(4)
    )
    rows = (*rows, Utterance("ü", audio="a.wav", audio_samples=1, extra={"units": "1 2", "span": [0.5, None]}))
    write_manifest(folder / "m.jsonl", Manifest(Path("/data"), rows))
    write_tsv(folder / "train.tsv", Manifest(folder, rows[:4]))
    shard = Shard("shard-000000.tar", 10240, "0" * 64, 1, 50)
    row = {"id": "a", "video_frames": 50, "shard": 0, "members": {"video": ["0.video.npy", 512, 100, 7], "json": ["0.json", 2048, 10, 9]}}
    shards = f"{head_line([shard], 'key')}\n{json.dumps(row)}\n"
    words = (folder / "train.wrd").read_bytes()
    return [
        Seed("manifest", "m.jsonl", (folder / "m.jsonl").read_bytes(), read, textual=True),
        Seed("manifest", "train.tsv", (folder / "train.tsv").read_bytes(), read, textual=True, beside=(("train.wrd", words),)),
        Seed("manifest", "lines.txt", b"first line\nsecond line\n", read, textual=True),
        Seed("manifest", "shards.jsonl", shards.encode(), read, textual=True),
    ]


def _configs(folder: Path) -> list[Seed]:
    from avtlm import config
    from avtlm.decoding.settings import DecodingConfig
    from avtlm.training.loop import TrainConfig

    def training(path: Path) -> tuple[None, list[str]]:
        config.load(TrainConfig, path)
        return None, []

    def decoding(path: Path) -> tuple[None, list[str]]:
        config.load(DecodingConfig, path)
        return None, []

    chosen = ("vatlm/tiny_pretrain.yaml", "avhubert/finetune_avsr_base.yaml", "hubert/finetune_10h.yaml", "speecht5/base.yaml")
    paths = [path for name in chosen if (path := ROOT / "configs" / name).is_file()] or sorted((ROOT / "configs").glob("*/*.yaml"))[:4]
    made = [Seed("config", path.name, path.read_bytes(), training, textual=True) for path in paths]
    return [*made, Seed("config", "decoding.yaml", config.to_yaml(DecodingConfig()).encode(), decoding, textual=True)]


def _checkpoints(folder: Path) -> list[Seed]:
    import torch

    from avtlm.checkpoint import load_config, load_decoding, load_weights, save_model
    from avtlm.decoding.settings import DecodingConfig

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
    save_model(folder / "model", model, {"system": "vatlm", "encoder": {"dim": 4}}, decoding=DecodingConfig())

    def read(path: Path) -> tuple[None, list[str]]:
        load_config(path.parent)
        load_decoding(path.parent)
        load_weights(path.parent)
        return None, []

    files = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    return [
        Seed(
            "checkpoint",
            name,
            files[name],
            read,
            textual=name.endswith("yaml"),
            beside=tuple((other, files[other]) for other in files if other != name),
        )
        for name in ("weights.safetensors", "weights.safetensors", "config.yaml", "decoding.yaml")
    ]


def _official(folder: Path) -> list[Seed]:
    import torch

    from avtlm.convert.pickles import StoredTensor, TorchFile

    def read(path: Path) -> tuple[None, list[str]]:
        def tensors(value: Any, depth: int = 0) -> None:
            if isinstance(value, StoredTensor):
                value.read()
            elif isinstance(value, dict) and depth < 5:
                for part in list(value.values()):
                    tensors(part, depth + 1)

        tensors(TorchFile(path).content)
        return None, []

    state = {
        "args": None,
        "cfg": {"model": {"name": "x", "dims": [1, 2]}},
        "model": {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.ones(2)},
    }
    made = []
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save(state, folder / name, _use_new_zipfile_serialization=zipped)
        made.append(Seed("official", name, (folder / name).read_bytes(), read))
    return made


def _arrays(folder: Path) -> list[Seed]:
    from avtlm.data.media import read_lip_crops
    from avtlm.lips.landmarks import read_landmarks
    from avtlm.units.labels import read_labels

    def crops(path: Path) -> tuple[int, list[str]]:
        return len(read_lip_crops(path)), []

    def landmarks(path: Path) -> tuple[None, list[str]]:
        read_landmarks(path)
        return None, []

    def labels(path: Path) -> tuple[None, list[str]]:
        read_labels(path)
        return None, []

    points = np.random.default_rng(0).uniform(0, 96, (3, 68, 2))
    np.save(folder / "crops.npy", np.zeros((4, 96, 96), np.uint8))
    np.save(folder / "points.npy", points)
    np.savez(folder / "points.npz", landmarks=points)
    written = json.dumps([None, *points[:1].round(1).tolist()]).encode()
    pickled = pickle.dumps([None, points[0]])
    return [
        Seed("arrays", "crops.npy", (folder / "crops.npy").read_bytes(), crops, 4),
        Seed("arrays", "points.npy", (folder / "points.npy").read_bytes(), landmarks),
        Seed("arrays", "points.npz", (folder / "points.npz").read_bytes(), landmarks),
        Seed("arrays", "points.json", written, landmarks, textual=True),
        Seed("arrays", "points.pkl", pickled, landmarks),
        Seed("arrays", "all.units", b"a/1\t1 2 3\nb\t7 7 7 8\n", labels, textual=True),
    ]

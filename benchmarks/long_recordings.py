"""A ten-minute recording against its utterances one by one: word error rates, memory, speed, and the latency of live captions.

    python -m benchmarks.long_recordings [--model DIR] [--manifest FILE] [--minutes 10] [--modality a av] [--json FILE]

The recording is made of the utterances of one split, in their order and repeated if there are too few, with pauses between them and quiet
noise over everything. The same sound, cut at the true boundaries, is decoded one by one; that is what the long recording is compared
with: differences are due to the segmentation alone. Pictures, where they are asked for, stand still in the pauses. Memory is the peak of
a process of its own that transcribes the first minute, the first five, and all.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from avtlm.data.manifest import Manifest, Utterance, read_manifest
from avtlm.data.media import SAMPLE_RATE, read_clip, write_wav
from avtlm.data.seeds import seed_for
from avtlm.data.sound import fit
from avtlm.evaluation.wer import corpus_wer
from avtlm.files import DEFAULT_MODEL, write_text
from avtlm.live_captions import LiveCaptions
from avtlm.long_recordings import LongTranscript
from avtlm.text.normalize import normalize
from avtlm.transcribe import load_recognizer, transcribe
from demos.stages import machine

FPS = 25
SAMPLES = SAMPLE_RATE // FPS  # of a picture
MINUTES = (1, 5)  # besides all
TAIL = 1.0  # seconds behind the last utterance


@dataclass(frozen=True)
class Setting:
    """One way to make and to divide a recording; pauses in seconds."""

    name: str
    pauses: tuple[float, float]
    window: float = 20.0
    vad: str = "energy"
    min_silence: float = 0.5


@dataclass(frozen=True)
class Made:
    """A recording of the first ``minutes``, its utterances one by one, and what is said in them."""

    path: Path
    single: tuple[Path, ...]
    texts: tuple[str, ...]
    seconds: float


def noisy(wave: np.ndarray, level: float, seed: int, *names: str) -> np.ndarray:
    """Sound in white noise at a level in dB of full scale."""
    noise = np.random.default_rng(seed_for(seed, "room", *names)).standard_normal(len(wave))
    return (wave + 10 ** (level / 20) * noise).astype(np.float32)


class Writer:
    """A growing recording: .wav, or .mkv with H.264 and the sound as it is, so that nothing but the cuts differs."""

    def __init__(self, path: Path, pictures: bool) -> None:
        self.path = path
        self._sound: list[np.ndarray] = []
        self._container = av.open(str(path), "w") if pictures else None
        self._video: Any = None
        self.samples = 0

    def add(self, frames: np.ndarray | None, wave: np.ndarray) -> None:
        self._sound.append(wave)
        self.samples += len(wave)
        if self._container is None or frames is None:
            return
        if self._video is None:
            self._video = self._container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "50", "threads": "1"})
            self._video.height, self._video.width = frames.shape[1:3]
            self._video.pix_fmt = "yuv420p"
            self._sound_stream = self._container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
            self._container.mux(self._video.encode(frame.reformat(format="yuv420p")))

    def close(self) -> None:
        wave = np.concatenate(self._sound)
        if self._container is None:
            write_wav(self.path, wave)
            return
        self._container.mux(self._video.encode(None))
        samples = np.round(wave[None] * 32767).clip(-32768, 32767).astype(np.int16)
        for at in range(0, samples.shape[1], SAMPLES):  # in packets as a camera writes them
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + SAMPLES]), format="s16", layout="mono")
            block.sample_rate, block.pts = SAMPLE_RATE, at
            self._container.mux(self._sound_stream.encode(block))
        self._container.mux(self._sound_stream.encode(None))
        self._container.close()


def utterances(corpus: Manifest, split: str, pictures: bool) -> Iterator[tuple[Utterance, np.ndarray | None, np.ndarray]]:
    """Rows with their pictures (None without) and their sound, again and again.

    Raises:
        ValueError: no row of the split has what is needed.
    """
    rows = [row for row in corpus.split(split) if row.transcript and (row.video or row.audio)]
    if not rows:
        raise ValueError(f"split {split}: no utterance has sound and a transcript; name another split or manifest.")
    while True:
        for row in rows:
            path = corpus.path(row.video if pictures or row.audio is None else row.audio)
            assert path is not None
            clip = read_clip(path, video=pictures)
            if clip.audio is None:
                raise ValueError(f"{path}: has no audio track; give the manifest of a corpus whose videos have sound.")
            yield row, clip.frames, clip.audio


def make(corpus: Manifest, split: str, setting: Setting, minutes: float, pictures: bool, noise: float, out: Path, seed: int) -> Made:
    """A recording of so many minutes at least, and its utterances one by one, in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    kind = "mkv" if pictures else "wav"
    rng = np.random.default_rng(seed_for(seed, "pauses", setting.name))
    whole = Writer(out / f"long.{kind}", pictures)
    single, texts = [], []
    still: np.ndarray | None = None

    def pause(seconds: float, frames: np.ndarray | None) -> None:
        count = round(seconds * FPS)
        held = None if frames is None else np.repeat(frames, count, axis=0)
        whole.add(held, noisy(np.zeros(count * SAMPLES, np.float32), noise, seed, "pause", str(whole.samples)))

    for number, (row, frames, wave) in enumerate(utterances(corpus, split, pictures)):
        pause(rng.uniform(*setting.pauses), frames[:1] if frames is not None and still is None else still)
        count = len(wave) // SAMPLES if frames is None else len(frames)
        wave = noisy(fit(wave, count * SAMPLES), noise, seed, row.id, str(number))
        alone = Writer(out / f"{number:04d}.{kind}", pictures)
        for writer in (whole, alone):
            writer.add(frames, wave)
        alone.close()
        single.append(alone.path)
        texts.append(row.transcript or "")
        still = None if frames is None else frames[-1:]
        if whole.samples >= minutes * 60 * SAMPLE_RATE:
            break
    pause(TAIL, still)
    whole.close()
    return Made(whole.path, tuple(single), tuple(texts), whole.samples / SAMPLE_RATE)


def wer(references: Sequence[str], found: str) -> float:
    """In percent, of everything as one text: no utterance boundaries are known in a long recording."""
    return corpus_wer([(normalize(" ".join(references)), normalize(found))], resamples=1).percent


def compare(made: Made, model: str, modality: str, setting: Setting) -> dict[str, Any]:
    """Error rates of the recording and of its utterances one by one."""
    recognizer = load_recognizer(model)
    cpu, start = time.process_time(), time.perf_counter()
    alone = " ".join(found.text for found in transcribe(made.single, recognizer, modality))
    middle = time.perf_counter()
    (long,) = transcribe([made.path], recognizer, modality, window=setting.window, vad=setting.vad, min_silence=setting.min_silence)
    assert isinstance(long, LongTranscript)
    one_by_one, whole = wer(made.texts, alone), wer(made.texts, long.text)
    return {
        "setting": setting.name,
        "modality": modality,
        "pauses_seconds": setting.pauses,
        "window_seconds": setting.window,
        "min_silence_seconds": setting.min_silence,
        "vad": setting.vad,
        "seconds": round(made.seconds, 1),
        "utterances": len(made.texts),
        "words": sum(len(text.split()) for text in made.texts),
        "segments": len(long.parts),
        "problems": len(long.problems),
        "wer_one_by_one": round(one_by_one, 2),
        "wer_long": round(whole, 2),
        "difference": round(whole - one_by_one, 2),
        "real_time_factor": round((time.perf_counter() - middle) / made.seconds, 4),
        "real_time_factor_one_by_one": round((middle - start) / made.seconds, 4),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def live(made: Made, model: str, modality: str) -> dict[str, Any]:
    """Live captions of the recording, timed as if it came in real time."""
    from avtlm.data.live_input import FileInput

    captions = LiveCaptions(load_recognizer(model), modality)
    text = " ".join(caption.text for caption in captions.captions(FileInput(made.path, "v" in modality)) if caption.final)
    return {"modality": modality, "wer": round(wer(made.texts, text), 2), **captions.report().to_dict()}


def peak(path: Path, model: str, modality: str) -> dict[str, Any]:
    """Peak memory of a process of its own that transcribes one file: before the file, and after it, in megabytes."""
    command = [sys.executable, "-m", "benchmarks.long_recordings", "--one", str(path), "--model", model, "--modality", modality]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the process that was to transcribe {path.name} failed: {done.stderr.strip()[-500:]}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def transcribe_one(path: str, model: str, modality: str) -> None:
    """What `peak` starts."""
    recognizer = load_recognizer(model)
    before = peak_memory()
    (found,) = transcribe([path], recognizer, modality)
    print(json.dumps({"seconds": round(found.duration or 0, 1), "loaded_mb": before, "peak_mb": peak_memory()}))


def peak_memory() -> float:
    """Of this process so far, in megabytes. What getrusage tells on Linux counts the process that started this one as well."""
    status = Path("/proc/self/status")
    if status.exists():
        kilobytes = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(kilobytes / 1024, 1)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used / 2**20 if sys.platform == "darwin" else used / 1024, 1)


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything that was asked for."""
    corpus, model = read_manifest(options.manifest), str(options.model)
    spoken = Setting("pauses", tuple(options.pauses))
    report: dict[str, Any] = {"recordings": [], "memory": [], "live": []}
    with tempfile.TemporaryDirectory() as folder:
        for modality in options.modality:
            pictures = "v" in modality
            settings = [spoken]
            if not pictures:
                settings.append(Setting("no pauses", (0.0, 0.0), options.dense_window))
            for setting in settings:
                name = f"{modality} {setting.name}"
                console.print(f"making and decoding: {name}")
                out = Path(folder) / name.replace(" ", "_")
                made = make(corpus, options.split, setting, options.minutes, pictures, options.noise, out, options.seed)
                report["recordings"].append(compare(made, model, modality, setting))
                if setting is not spoken:
                    shorter = dataclasses.replace(setting, name="no pauses, shorter gaps divide", min_silence=options.gap)
                    report["recordings"].append(compare(made, model, modality, shorter))
                    continue
                for vad in () if pictures else options.vad:
                    report["recordings"].append(compare(made, model, modality, dataclasses.replace(spoken, name=f"pauses, {vad}", vad=vad)))

                parts = {options.minutes: made}
                for minutes in {m for m in (*MINUTES, options.live_minutes) if m < options.minutes}:
                    shorter = out / f"first_{minutes:g}"
                    parts[minutes] = make(corpus, options.split, spoken, minutes, pictures, options.noise, shorter, options.seed)
                report["live"].append(live(parts[min(options.live_minutes, options.minutes)], model, modality))
                for minutes in sorted({m for m in (*MINUTES, options.minutes) if m in parts}):
                    report["memory"].append({"modality": modality, "minutes": minutes, **peak(parts[minutes].path, model, modality)})
    return report


def tables(report: dict[str, Any]) -> list[Table]:
    columns = {
        "recordings": ("modality", "setting", "segments", "utterances", "wer_one_by_one", "wer_long", "difference", "real_time_factor"),
        "memory": ("modality", "minutes", "loaded_mb", "peak_mb"),
        "live": ("modality", "wer", "words", "latency_mean", "latency_95", "real_time_factor"),
    }
    found = []
    for part, names in columns.items():
        table = Table(*names, title=part, title_justify="left")
        for line in report[part]:
            table.add_row(*(str(line[name]) for name in names))
        found.append(table)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_recordings", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, metavar="DIR")
    corpus = "runs/quickstart/corpus/manifest.jsonl"
    parser.add_argument("--manifest", default=corpus, metavar="FILE", help=f"clips with sound and transcripts (default: {corpus})")
    parser.add_argument("--split", default="test")
    parser.add_argument("--minutes", type=float, default=10, help="default: 10")
    parser.add_argument("--modality", nargs="+", choices=("a", "av", "v"), default=["a", "av"])
    parser.add_argument(
        "--pauses", type=float, nargs=2, default=(0.5, 1.5), metavar="SECONDS", help="drawn between these (default: 0.5 1.5)"
    )
    parser.add_argument("--dense-window", type=float, default=4.0, metavar="SECONDS", help="window where there are no pauses (default: 4)")
    gap = "pauses from this length on divide it in a further run (default: 0.16)"
    parser.add_argument("--gap", type=float, default=0.16, metavar="SECONDS", help=gap)
    parser.add_argument("--noise", type=float, default=-60.0, metavar="DB", help="of full scale (default: -60)")
    parser.add_argument("--vad", nargs="*", default=[], choices=("silero",), help="other detectors of speech to compare, on sound alone")
    parser.add_argument("--live-minutes", type=float, default=2, help="how much of it gets live captions (default: 2)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--one", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.one is not None:
        transcribe_one(options.one, str(options.model), options.modality[0])
        return 0
    console = Console()
    report = measure(options, console)
    for table in tables(report):
        console.print(table)
    if options.json is not None:
        given = {"minutes": options.minutes, "noise_db": options.noise, "pauses": list(options.pauses), "seed": options.seed}
        head = {"machine": machine(), "threads": options.threads, "split": options.split, **given}
        write_text(options.json, json.dumps({**head, **report}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

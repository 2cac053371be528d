"""Synthetic talking heads: an audio-visual corpus that is drawn and voiced on the spot, with exact transcripts and phoneme times.

    python -m preprocess.corpora.talking_heads --out DIR [--size smoke|default|long] [--seed N]

Nobody is shown and nothing is downloaded: faces are drawn, speech comes from eSpeak NG, and the phonemes one hears drive the mouth that
is seen. Videos are real .mp4 files (H.264 at 25 fps, AAC at 16 kHz), so everything behind this script treats them like any other corpus.
Beside the audio-visual part there are utterances without picture (``audio_only/``) and timed phonemes without either (``text_only/``).

Rules against leakage: every sentence of the corpus is different; speakers of valid and test have other voices (variants of eSpeak NG) and
other faces than those of train; voice, face and sentences come from separate generators, so that changing one leaves the others alone. The
same seed gives the same files on any number of workers.
"""

import argparse
import dataclasses
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from avtlm.data.media import write_clip, write_wav
from avtlm.data.seeds import seed_for
from avtlm.errors import MissingExtra
from avtlm.files import atomic_path
from avtlm.training.progress import bar
from preprocess.corpora.recipe import claim
from preprocess.pool import Crash, run_tasks
from preprocess.synthesis import espeak
from preprocess.synthesis.espeak import SAMPLE_RATE, Speech, Voice, speak
from preprocess.synthesis.sentences import KINDS, Kind, distinct, spoken
from preprocess.synthesis.voices import draw_voices

FACES = ("drawn", "photo")
SAMPLES_PER_FRAME = 640
# Goes up when the same seed gives other files, so that no folder mixes the two.
VERSION = 3


@dataclass(frozen=True)
class Size:
    """Speakers and clips of each of them in each split, utterances of the other parts, and what is said if nothing else is asked for."""

    train: tuple[int, int]
    valid: tuple[int, int]
    test: tuple[int, int]
    audio_only: int
    text_only: int
    kind: Kind = "command"

    @property
    def splits(self) -> dict[str, tuple[int, int]]:
        return {"train": self.train, "valid": self.valid, "test": self.test}


SIZES = {
    "smoke": Size((3, 4), (1, 4), (2, 4), 24, 24),
    "default": Size((40, 30), (5, 20), (10, 20), 1000, 1000),
    "long": Size((44, 120), (8, 40), (12, 40), 8000, 8000, "mixed"),
}


@dataclass(frozen=True)
class Clip:
    """One utterance to be made."""

    id: str
    speaker: str
    split: str
    text: str


@dataclass(frozen=True)
class Speaker:
    """All that is to be made of one speaker."""

    name: str
    voice: Voice
    clips: tuple[Clip, ...]
    out: Path
    seed: int
    faces: str
    parts: str


def generate(
    out: str | Path, size: str = "default", seed: int = 1, workers: int | None = None, kind: Kind | None = None, faces: str = "drawn"
) -> Path:
    """Make the corpus, or what is missing of it.

    Args:
        out: folder for ``video/``, ``controls/`` (what drove the mouths, float32 (frames, 5)), ``manifest.jsonl``, ``audio_only/``,
            ``text_only/`` and ``corpus.json`` (how it was made).
        size: ``smoke`` (24 clips), ``default`` (1,500 clips) or ``long`` (6,080 clips).
        workers: processes; default: one for each core. 0 works in this process.
        kind: ``command`` (GRID grammar), ``digits``, ``words`` or ``mixed``; default: ``mixed`` for the size ``long``, else ``command``.
        faces: ``drawn``, or ``photo`` (two photographs from the packages scikit-image and matplotlib).

    Returns:
        Path of the audio-visual manifest.

    Raises:
        MissingExtra: a package is not installed.
        ValueError: unknown size, kind or faces; or the folder holds a corpus that was made in another way.
        RuntimeError: a worker died.
    """
    if size not in SIZES:
        raise ValueError(f"size: {size!r} is unknown; choose one of {', '.join(SIZES)}.")
    kind = SIZES[size].kind if kind is None else kind
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is unknown; choose one of {', '.join(KINDS)}.")
    if faces not in FACES:
        raise ValueError(f"faces: {faces!r} is unknown; choose {' or '.join(FACES)}.")
    _require_packages(faces)
    folder = Path(out)
    claim(folder, {"size": size, "seed": seed, "kind": kind, "faces": faces, "version": VERSION}, ("video", "manifest.jsonl"))
    speakers = plan(folder, SIZES[size], seed, kind, faces)
    rows: list[Utterance] = []
    total = sum(len(speaker.clips) for speaker in speakers)
    count = (os.cpu_count() or 1) if workers is None else workers
    with bar("talking heads", total) as progress:
        for index, made in run_tasks(_make_speaker, speakers, _prepare, count):
            if isinstance(made, Crash):
                raise RuntimeError(f"{folder}: making speaker {speakers[index].name} failed: {made.reason}.")
            rows += made
            progress.advance(len(made))
    for part, place in (("av", folder), ("audio", folder / "audio_only"), ("text", folder / "text_only")):
        chosen = sorted((row for row in rows if row.extra["part"] == part), key=lambda row: row.id)
        write_manifest(place / "manifest.jsonl", Manifest(place, tuple(chosen)))
    return folder / "manifest.jsonl"


def _require_packages(faces: str) -> None:
    """Say what is missing before anything is written."""
    espeak.require()
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise MissingExtra("lips", "opencv-contrib-python", "drawing talking heads") from error
    if faces == "photo":
        from preprocess.synthesis import photo

        photo.require()


def plan(out: Path, size: Size, seed: int, kind: Kind, faces: str) -> list[Speaker]:
    """Who says what: speakers with their voices and clips, in a fixed order."""
    counts = {split: speakers * clips for split, (speakers, clips) in size.splits.items()}
    total = sum(counts.values()) + size.audio_only + size.text_only
    texts = iter(distinct(kind, total, np.random.default_rng(seed_for(seed, "sentences", kind))))
    held_out = size.valid[0] + size.test[0]
    aside, training = draw_voices(held_out, size.train[0], np.random.default_rng(seed_for(seed, "voices")))
    voices = {"train": training, "valid": aside[: size.valid[0]], "test": aside[size.valid[0] :]}
    speakers = []
    for split, (_, clips) in size.splits.items():
        for number, voice in enumerate(voices[split]):
            name = f"{split}{number:02d}"
            made = tuple(Clip(f"{name}_{i:03d}", name, split, next(texts)) for i in range(clips))
            speakers.append(Speaker(name, voice, made, out, seed, faces, "av"))
    for part, amount in (("audio", size.audio_only), ("text", size.text_only)):
        for number, voice in enumerate(training):
            name = f"train{number:02d}"
            share = range(number, amount, len(training))
            made = tuple(Clip(f"{part}_{name}_{i:05d}", name, "train", next(texts)) for i in share)
            if made:
                speakers.append(Speaker(name, voice, made, out, seed, faces, part))
    return speakers


def say(clip: Clip, voice: Voice, seed: int) -> Speech:
    """The speech of a clip: its speaker's voice, a little faster or slower, higher or lower, after a short silence of its own."""
    rng = np.random.default_rng(seed_for(seed, "speech", clip.id))
    own = dataclasses.replace(
        voice, rate=round(voice.rate * rng.uniform(0.94, 1.06)), pitch=int(np.clip(voice.pitch + rng.integers(-6, 7), 0, 99))
    )
    return speak(spoken(clip.text), own, lead=rng.uniform(0.04, 0.2), seed=int(rng.integers(2**31)))


def _prepare() -> None:
    import cv2

    cv2.setNumThreads(1)


def _make_speaker(_: None, speaker: Speaker) -> list[Utterance]:
    return {"av": _make_videos, "audio": _make_sounds, "text": _make_texts}[speaker.parts](speaker)


def _make_videos(speaker: Speaker) -> list[Utterance]:
    from preprocess.synthesis.mouth import Camera, Mouth, animate, blinks, controls, head_motion
    from preprocess.synthesis.portrait import draw

    face = np.random.default_rng(seed_for(speaker.seed, "face", speaker.name))
    if speaker.faces == "photo":
        from preprocess.synthesis.photo import draw_from_photo

        portrait = draw_from_photo(face)
    else:
        portrait = draw(face)
    mouth, gains = Mouth(portrait), face.uniform(0.75, 1.2, 5)
    rows = []
    for clip in speaker.clips:
        speech = say(clip, speaker.voice, speaker.seed)
        frames = math.ceil(len(speech.wave) / SAMPLES_PER_FRAME)
        video, track_file = f"video/{speaker.name}/{clip.id}.mp4", f"controls/{speaker.name}/{clip.id}.npy"
        if not (speaker.out / video).exists() or not (speaker.out / track_file).exists():
            rng = np.random.default_rng(seed_for(speaker.seed, "motion", clip.id))
            track = controls(speech.phones, frames, rng, gains)
            with atomic_path(speaker.out / track_file) as temporary:
                np.save(temporary, track)
            motion, lids, camera = head_motion(frames, rng), blinks(frames, rng), Camera.draw(frames, rng)
            write_clip(speaker.out / video, animate(mouth, track, motion, lids, camera), speech.wave)
        extra = {"controls": track_file}
        rows.append(_row(clip, speech, "av", extra, video=video, video_frames=frames, audio_samples=frames * SAMPLES_PER_FRAME))
    return rows


def _make_sounds(speaker: Speaker) -> list[Utterance]:
    rows = []
    for clip in speaker.clips:
        speech = say(clip, speaker.voice, speaker.seed)
        name = f"audio/{speaker.name}/{clip.id}.wav"
        if not (speaker.out / "audio_only" / name).exists():
            write_wav(speaker.out / "audio_only" / name, speech.wave)
        rows.append(_row(clip, speech, "audio", {}, audio=name, audio_samples=len(speech.wave)))
    return rows


def _make_texts(speaker: Speaker) -> list[Utterance]:
    """Sentences whose phones were timed by speaking them; the speech is not kept."""
    rows = []
    for clip in speaker.clips:
        speech = say(clip, speaker.voice, speaker.seed)
        rows.append(_row(clip, speech, "text", {"seconds": round(len(speech.wave) / SAMPLE_RATE, 3)}))
    return rows


def _row(clip: Clip, speech: Speech, part: str, extra: dict[str, Any], **media: Any) -> Utterance:
    phones = " ".join(f"{phone.symbol}:{phone.start:.4f}:{phone.end:.4f}" for phone in speech.phones)
    return Utterance(
        clip.id, transcript=clip.text, speaker=clip.speaker, split=clip.split, phones=phones, extra={"part": part, **extra}, **media
    )


def contact_sheet(manifest: str | Path, path: str | Path, people: int = 8, pictures: int = 6) -> None:
    """A PNG with a row for each of some speakers: frames spread over one clip."""
    import cv2

    from avtlm.data.media import read_clip

    corpus = read_manifest(manifest)
    first = list({row.speaker: row for row in reversed(corpus.utterances)}.values())
    rows = []
    for row in sorted(first, key=lambda row: row.id)[:: max(1, len(first) // people)][:people]:
        video = corpus.path(row.video)
        assert video is not None
        frames = read_clip(video, audio=False, colour=True).frames
        assert frames is not None
        rows.append(np.hstack([frames[int(i)] for i in np.linspace(0, len(frames) - 1, pictures)]))
    with atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), np.vstack(rows)[..., ::-1])


def main(arguments: list[str] | None = None) -> int:
    """The command ``avtlm-talking-heads``."""
    parser = argparse.ArgumentParser(prog="avtlm-talking-heads", description="Draw and voice a synthetic audio-visual corpus.")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the corpus")
    parser.add_argument("--size", choices=list(SIZES), default="default", help="24, 1,500 or 6,080 clips (default: default)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, help="what is said (default: commands; for the long size mixed)")
    parser.add_argument("--faces", choices=FACES, default="drawn", help="who is seen (default: drawn people)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--contact-sheet", metavar="PNG", help="also write a picture of some speakers")
    options = parser.parse_args(arguments)
    try:
        manifest = generate(options.out, options.size, options.seed, options.workers, options.kind, options.faces)
        if options.contact_sheet:
            contact_sheet(manifest, options.contact_sheet)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"avtlm-talking-heads: {error}", file=sys.stderr)
        return 1
    print(manifest)
    return 0


if __name__ == "__main__":
    sys.exit(main())

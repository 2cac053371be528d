"""What a model folder, a manifest or a media file holds, without decoding media or building models."""

from collections import Counter
from pathlib import Path
from typing import Any

from avtlm import checkpoint
from avtlm.data.manifest import VIDEO_FPS, Manifest, read_manifest, validate
from avtlm.export.folder import describe, is_exported


def info(path: str | Path) -> dict[str, Any]:
    """Describe a model folder, an exported one, a manifest (.jsonl, .tsv, or the folder of a manifest.jsonl) or a media file.

    Returns:
        A dictionary for display or JSON; its key ``kind`` is ``model``, ``export``, ``manifest`` or ``media``.

    Raises:
        CheckpointError, ManifestError, MediaError: the thing is missing or damaged.
    """
    path = Path(path)
    if path.suffix in (".jsonl", ".tsv") or (path / "manifest.jsonl").is_file():
        return _manifest_info(read_manifest(path))
    if path.is_dir() and is_exported(path):
        return _export_info(path)
    return _model_info(path) if path.is_dir() else _media_info(path)


def _model_info(folder: Path) -> dict[str, Any]:
    config, weights = checkpoint.load_config(folder), checkpoint.load_weights(folder)
    distinct = {tensor.data_ptr(): tensor.numel() for tensor in weights.values()}
    return {
        "kind": "model",
        "folder": str(folder),
        "system": config["system"],
        "parameters": sum(distinct.values()),
        "types": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()}),
        "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()},
        "decoding": checkpoint.load_decoding(folder),
        "config": config,
    }


def _export_info(folder: Path) -> dict[str, Any]:
    about = describe(folder)
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    said = {key: about.get(key) for key in ("system", "format", "opset", "weights")}
    return {"kind": "export", "folder": str(folder), **said, "files": files}


def _manifest_info(manifest: Manifest) -> dict[str, Any]:
    problems = validate(manifest)
    splits: dict[str, dict[str, Any]] = {}
    for name in sorted({utterance.split or "(none)" for utterance in manifest}):
        part = [utterance for utterance in manifest if (utterance.split or "(none)") == name]
        speakers = {utterance.speaker for utterance in part if utterance.speaker is not None}
        splits[name] = {
            "utterances": len(part),
            "hours": round(sum(utterance.duration for utterance in part) / 3600, 4),
            "speakers": len(speakers),
            "with video": sum(utterance.video is not None for utterance in part),
            "with audio": sum(utterance.audio is not None for utterance in part),
            "with transcript": sum(bool(utterance.transcript) for utterance in part),
            "words": sum(len((utterance.transcript or "").split()) for utterance in part),
        }
    return {
        "kind": "manifest",
        "file": str(manifest.source),
        "root": str(manifest.root),
        "utterances": len(manifest),
        "sample rates": dict(Counter(utterance.sample_rate for utterance in manifest if utterance.audio is not None)),
        "splits": splits,
        "problems": [str(problem) for problem in problems[:20]],
        "number of problems": len(problems),
    }


def _media_info(path: Path) -> dict[str, Any]:
    from avtlm.data.container import open_media, video_stream

    found: dict[str, Any] = {"kind": "media", "file": str(path)}
    with open_media(path) as container:
        found["container"] = container.format.long_name
        found["seconds"] = round(container.duration / 1e6, 3) if container.duration else None
        stream = video_stream(container)
        if stream is not None:
            rate = float(stream.average_rate) if stream.average_rate else None
            picture = {"codec": stream.codec_context.name, "width": stream.width, "height": stream.height}
            found["video"] = picture | {"fps": rate and round(rate, 3), "resampled": rate is None or abs(rate - VIDEO_FPS) > 0.01}
        found["audio"] = [
            {"codec": sound.codec_context.name, "sample_rate": sound.codec_context.sample_rate, "channels": sound.codec_context.channels}
            for sound in container.streams.audio
        ]
    return found

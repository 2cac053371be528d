"""Cases of lip alignment, crops and auto_avsr's transforms."""

import re
from typing import Any

import numpy as np
import torch

from avtlm.lips import transforms
from avtlm.lips.align import CROP, AlignmentError, auto_avsr_corner, avhubert_corner, cut, interpolate_missing, mean_face, plan_crops
from benchmarks.replay.case import Case, CaseError, Check

INTERPOLATION = 1e-9
OURS = "cv2.warpAffine on float images + truncation"  # the row of AV-HuBERT's tolerances that speaks of our kind of warp


def crops(frames: np.ndarray, plan: Any) -> torch.Tensor:
    return torch.from_numpy(np.stack([cut(*each, plan.truncate) for each in zip(frames, plan.matrices, plan.corners, strict=True)]))


def pictures(case: Case, check: Check, name: str, ours: torch.Tensor, largest: float) -> None:
    """Grey levels within ``largest``, and a share of pixels equal."""
    share = case.description["tolerance"]["share_of_equal_pixels"]
    share = float(share[OURS] if isinstance(share, dict) else share)
    check.close(name, ours, largest)
    expected = case.outputs[name]
    different = float((ours != expected).double().mean()) if ours.shape == expected.shape else 1.0
    check.value(f"{name}: share of pixels that differ", different, 0.0, 1.0 - share)


def check_mean_face(case: Case) -> None:
    if not np.array_equal(mean_face(), case.inputs["mean_face"].numpy()):
        raise CaseError("inputs.safetensors: mean_face is not the published one.")


def clips(case: Case) -> list[str]:
    return sorted(name.removeprefix("landmarks") for name in case.inputs if name.startswith("landmarks"))


def avhubert_case(case: Case, check: Check) -> None:
    check_mean_face(case)
    for clip in clips(case):
        points = interpolate_missing(case.inputs[f"landmarks{clip}"].numpy())
        check.close(f"interpolated{clip}", torch.from_numpy(points), INTERPOLATION)
        plan = plan_crops(points, "avhubert")
        official = case.outputs[f"similarity{clip}"]
        ours = torch.from_numpy(plan.matrices[: len(official)])
        last_row = torch.tensor([0.0, 0.0, 1.0], dtype=ours.dtype).expand(len(ours), 1, 3)
        check.close(f"similarity{clip}", torch.cat([ours, last_row], 1), case.bound("similarity_abs"))
        colour = crops(case.inputs[f"frames{clip}"].numpy(), plan)
        pictures(case, check, f"crops{clip}", colour, case.bound("crop_max_abs_uint8"))
        grey = torch.from_numpy(np.stack([_grey(frame, "BGR") for frame in colour.numpy()]))
        pictures(case, check, f"crops_grey{clip}", grey, case.bound("crop_max_abs_uint8"))


def auto_avsr_case(case: Case, check: Check) -> None:
    check_mean_face(case)
    mediapipe = "mediapipe" in case.source
    for clip in clips(case):
        points = interpolate_missing(case.inputs[f"landmarks{clip}"].numpy())
        dropped = f"dropped{clip}" in case.outputs
        try:
            plan = plan_crops(points, "auto_avsr_mediapipe" if mediapipe else "auto_avsr", minimum_frames=1 if mediapipe else 12)
        except AlignmentError:
            check.equal(f"dropped{clip}", 1)
            continue
        if dropped:
            check.equal(f"dropped{clip}", 0)
            continue
        check.close(f"interpolated{clip}", torch.from_numpy(points), INTERPOLATION)
        check.close(f"affine{clip}", torch.from_numpy(plan.matrices), case.bound("affine_abs"))
        frames = case.inputs[f"frames{clip}"].numpy()
        for name, shown in ((f"crops{clip}_rgb", frames), (f"crops{clip}_grey", np.stack([_grey(frame, "RGB") for frame in frames]))):
            if name in case.outputs:
                pictures(case, check, name, crops(shown, plan), case.bound("crop_abs_uint8"))


def _grey(picture: np.ndarray, order: str) -> np.ndarray:
    import cv2

    grey: np.ndarray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY if order == "BGR" else cv2.COLOR_RGB2GRAY)
    return grey


def transforms_case(case: Case, check: Check) -> None:
    bound, config = case.bound("abs"), case.config
    video = transforms.evaluation_video(case.inputs["frames_rgb"].numpy())
    check.close("video_test", torch.from_numpy(video)[:, None], bound)
    check.equal("n_mask", transforms.mask_count(len(video), config["stride"]))
    starts = iter(config["starts"])
    # A pair that reaches over the whole clip takes no start.
    stretches = [transforms.place_stretch(len(video), reach, width, next(starts)) for reach, width in config["ts"] if reach < len(video)]
    masked = transforms.mask_stretches(video.copy(), [stretch for stretch in stretches if stretch])
    check.close("time_mask_video", torch.from_numpy(masked)[:, None], bound)
    wave, noise = case.inputs["wave"].numpy(), case.inputs["noise"].numpy()
    check.close("audio_test", torch.from_numpy(transforms.normalise_audio(wave)), bound)
    for name in case.outputs:
        match = re.fullmatch(r"noisy_snr(-?[\d.]+)", name)
        if match is not None:
            check.close(name, torch.from_numpy(transforms.add_noise(wave, noise.T, float(match[1]))), bound)


def windows_case(case: Case, check: Check) -> None:
    """Where the crop lies around a given mouth."""
    for number, (x, y) in enumerate(case.inputs["centres"].tolist()):
        for system, corner in (("avhubert", avhubert_corner), ("autoavsr", auto_avsr_corner)):
            refused = f"{system}.error{number}"
            try:
                left, top = corner(x, y)
            except AlignmentError:
                check.equal(refused, 1)
                continue
            if refused in case.outputs:
                check.equal(refused, 0)
            check.equal(f"{system}.patch{number}", case.inputs["image"][top : top + CROP, left : left + CROP])


ADAPTERS = [
    (lambda case: case.official.startswith("landmarks_interpolate, crop_patch"), avhubert_case),
    (lambda case: case.official == "VideoProcess" and "auto_avsr" in case.source, auto_avsr_case),
    (lambda case: case.official.startswith("VideoTransform('test')"), transforms_case),
    (lambda case: case.official.startswith("cut_patch"), windows_case),
]

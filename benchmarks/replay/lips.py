"""Cases of lip alignment, crops and auto_avsr's transforms."""

import re

import numpy as np
import torch

from avtlm.lips import transforms
from avtlm.lips.align import CROP, WINDOW, AlignmentError, CropPlan, auto_avsr_corner, avhubert_corner, cut, interpolate_missing, plan_crops
from benchmarks.replay.case import Case, CaseError, Check

INTERPOLATION = 1e-9
OURS = "exact bilinear in float + truncation"  # the row of AV-HuBERT's tolerances that speaks of our kind of warp
KNOWN = {"clips", "centres", "window_margin", "crop", "crop_height", "crop_width"}  # "clips" tells how the pictures were drawn


def settings(case: Case) -> tuple[int, int]:
    """Side of the crop and frames of the smoothing window.

    Raises:
        CaseError: an option that is not one of these.
    """
    config = case.config
    if set(config) - KNOWN:
        raise CaseError(f"case.json: config: options that avtlm does not know: {', '.join(sorted(set(config) - KNOWN))}.")
    stored = next((tensor for name, tensor in case.outputs.items() if re.fullmatch(r"crops\d+.*|.*\.patch\d+", name)), None)
    sides = {config[key] for key in ("crop", "crop_height", "crop_width") if key in config}
    sides |= set() if stored is None or sides else {*stored.shape[stored.dim() - 2 :]} if stored.dim() == 2 else {*stored.shape[1:3]}
    if len(sides) > 1:
        raise CaseError(f"case.json: crops of {' x '.join(map(str, sides))} pixels; avtlm cuts squares.")
    return sides.pop() if sides else CROP, config.get("window_margin", WINDOW)


def crops(frames: np.ndarray, plan: CropPlan) -> torch.Tensor:
    planned = zip(frames, plan.matrices, plan.corners, strict=True)
    return torch.from_numpy(np.stack([cut(*each, plan.truncate, plan.size) for each in planned]))


def pictures(case: Case, check: Check, name: str, ours: torch.Tensor, largest: float) -> None:
    """Grey levels within ``largest``, and a share of pixels equal."""
    share = case.description["tolerance"]["share_of_equal_pixels"]
    share = float(share[OURS] if isinstance(share, dict) else share)
    check.close(name, ours, largest)
    expected = case.outputs[name]
    different = float((ours != expected).double().mean()) if ours.shape == expected.shape else 1.0
    check.value(f"{name}: share of pixels that differ", different, 0.0, 1.0 - share)


def clips(case: Case) -> list[str]:
    return sorted(name.removeprefix("landmarks") for name in case.inputs if name.startswith("landmarks"))


def dropped(case: Case, check: Check, clip: str, ours: bool) -> bool:
    """Whether no crops are compared, because the official code or we have none; that both have none is a comparison."""
    official = f"dropped{clip}" in case.outputs and bool(case.outputs[f"dropped{clip}"])
    if official or ours:
        check.value(f"dropped{clip}", ours, official, 0.0)
    return official or ours


def avhubert_case(case: Case, check: Check) -> None:
    size, window = settings(case)
    for clip in clips(case):
        try:
            points = interpolate_missing(case.inputs[f"landmarks{clip}"].numpy())
        except AlignmentError:
            if f"crops{clip}" not in case.outputs:
                dropped(case, check, clip, True)
            for name in (f"crops{clip}", f"crops_grey{clip}"):
                check.skip(name, "no face in any frame: the official script writes whole frames, avtlm refuses the clip.")
            continue
        check.close(f"interpolated{clip}", torch.from_numpy(points), INTERPOLATION)
        plan = plan_crops(points, "avhubert", size=size, window=window, reference=case.inputs["mean_face"].numpy())
        official = case.outputs[f"similarity{clip}"]
        ours = torch.from_numpy(plan.matrices[: len(official)])
        last_row = torch.tensor([0.0, 0.0, 1.0], dtype=ours.dtype).expand(len(ours), 1, 3)
        check.close(f"similarity{clip}", torch.cat([ours, last_row], 1), case.bound("similarity_abs"))
        colour = crops(case.inputs[f"frames{clip}"].numpy(), plan)
        pictures(case, check, f"crops{clip}", colour, case.bound("crop_max_abs_uint8"))
        grey = torch.from_numpy(np.stack([_grey(frame, "BGR") for frame in colour.numpy()]))
        pictures(case, check, f"crops_grey{clip}", grey, case.bound("crop_max_abs_uint8"))


def auto_avsr_case(case: Case, check: Check) -> None:
    size, window = settings(case)
    mediapipe = "mediapipe" in case.source
    geometry, least = ("auto_avsr_mediapipe", 1) if mediapipe else ("auto_avsr", window)
    for clip in clips(case):
        try:
            points = interpolate_missing(case.inputs[f"landmarks{clip}"].numpy())
            plan = plan_crops(points, geometry, least, size=size, window=window, reference=case.inputs["mean_face"].numpy())
        except AlignmentError:
            dropped(case, check, clip, True)
            continue
        # Where we move a window, the official code gives up the whole clip.
        if dropped(case, check, clip, plan.shifted > 0):
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
    video = transforms.evaluation_video(case.inputs["frames_rgb"].numpy(), "auto_avsr")
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
    size, image = settings(case)[0], case.inputs["image"]
    frame = (image.shape[1], image.shape[0])
    for number, (x, y) in enumerate(case.inputs["centres"].tolist()):
        for system, corner in (("avhubert", avhubert_corner), ("autoavsr", auto_avsr_corner)):
            refused = f"{system}.error{number}"
            try:
                left, top = corner(x, y, size, frame)
            except AlignmentError:
                check.value(refused, 1, refused in case.outputs, 0.0)
                continue
            if refused in case.outputs:
                check.equal(refused, 0)
            check.equal(f"{system}.patch{number}", image[top : top + size, left : left + size])


ADAPTERS = [
    (lambda case: case.official.startswith("landmarks_interpolate, crop_patch"), avhubert_case),
    (lambda case: case.official == "VideoProcess" and "auto_avsr" in case.source, auto_avsr_case),
    (lambda case: case.official.startswith("VideoTransform('test')"), transforms_case),
    (lambda case: case.official.startswith("cut_patch"), windows_case),
]

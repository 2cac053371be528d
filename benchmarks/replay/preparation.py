"""Cases of AV-HuBERT's data code: audio features, noise, masks, batches, lip crops."""

import re

import numpy as np
import torch

from avtlm.convert.options import Options
from avtlm.convert.options.wav2vec2 import LENGTHS
from avtlm.data.dataset import Item, collate, cut
from avtlm.data.inputs import CROP, InputFormat
from avtlm.data.noise import mean_noise, mix_at_snr
from avtlm.frontends.filterbank import FRAME_RATE, STACK, audio_features, log_filterbank, match_length, normalise_frames, stack_frames
from avtlm.frontends.lips import GREY_MEAN, GREY_STD, normalise_grey
from avtlm.lips.transforms import cut_window, normalise
from avtlm.objectives.masking import SpanMaskConfig, runs, span_mask
from avtlm.objectives.seq2seq import shift_right
from avtlm.text.vocabulary import EOS, PAD
from avtlm.units.features import mfcc
from benchmarks.replay.case import Case, CaseError, Check

FIRST_SEED, DRAWS = 10000, 400  # of the draws whose mean the cases hold


def known_options(case: Case, *names: str) -> None:
    """Refuse options that an adapter does not heed.

    Raises:
        CaseError: such options.
    """
    unknown = set(case.config) - {*names, "seed"}
    if unknown:
        raise CaseError(f"case.json: config: options that avtlm does not know: {', '.join(sorted(unknown))}.")


def audio_case(case: Case, check: Check) -> None:
    known_options(case, "lengths", "video_frames", "stack_order_audio", "normalize", "kinds")
    stack = case.config.get("stack_order_audio", STACK)
    for name in case.outputs:
        match = re.fullmatch(r"(logfbank|stacked|mfcc39_|aligned|normalized)(\d+)(?:_video(\d+))?", name)
        if match is None:
            continue
        kind, number, frames = match.groups()
        wave = case.inputs[f"wav{number}"]
        bound = case.bound("normalized_abs" if kind == "normalized" else "logfbank_abs")
        if kind == "logfbank":
            check.close(name, log_filterbank(wave), bound)
        elif kind == "stacked":
            check.close(name, stack_frames(log_filterbank(wave), stack), bound)
        elif kind == "mfcc39_":
            check.close(name, mfcc(wave.numpy()), bound)
        elif stack == STACK:
            check.close(name, audio_features(wave, int(frames), "frame" if kind == "normalized" else "none"), bound)
        else:  # models take frames of four
            features = match_length(stack_frames(log_filterbank(wave), stack), int(frames))
            check.close(name, normalise_frames(features) if kind == "normalized" else features, bound)


def noise_case(case: Case, check: Check) -> None:
    known_options(case, "items", "snrs", "noise_amp")
    bound = case.bound("int16_lsb")
    for name in case.outputs:
        match = re.fullmatch(r"mixed(\d+)_snr(-?[\d.]+)", name)
        if match is not None:
            clean, noise = (case.inputs[f"{part}{match[1]}"].numpy() for part in ("clean", "noise"))
            check.close(name, torch.from_numpy(mix_at_snr(clean, noise, float(match[2]))), bound)
    for stem in (name.removesuffix("_mean") for name in case.outputs if name.endswith("_mean")):
        several = [case.inputs[name].numpy() for name in sorted(case.inputs) if re.fullmatch(rf"{stem}_\w", name)]
        if several:
            check.equal(f"{stem}_mean", torch.from_numpy(mean_noise(several)))


class LegacyDraws:
    """Random numbers as the official code takes them from numpy's global generator after ``np.random.seed``.

    Its first draw is one number of spans for all rows, which counts only without a padding mask.
    """

    def __init__(self, seed: int, per_row: bool) -> None:
        self.state = np.random.RandomState(seed)
        self.shared = self.state.rand()
        self.per_row = per_row

    def uniform(self) -> float:
        return float(self.state.rand()) if self.per_row else self.shared

    def choose(self, below: int, count: int) -> list[int]:
        return [int(place) for place in self.state.permutation(below)[:count]]

    def integers(self, low: int, high: int, count: int) -> list[int]:
        # Starts are drawn one by one there, which takes other numbers from the generator than an array of one does.
        return [int(self.state.randint(low, high))] if count == 1 else [int(n) for n in self.state.randint(low, high, size=count)]

    def normal(self, mean: float, deviation: float, count: int) -> list[float]:
        return [float(number) for number in self.state.normal(mean, deviation, size=count)]

    def poisson(self, mean: float, count: int) -> list[int]:
        return [int(number) for number in self.state.poisson(mean, size=count)]

    def weighted(self, weights: list[int]) -> int:
        return int(self.state.choice(len(weights), p=np.array(weights) / sum(weights)))


def mask_case(case: Case, check: Check) -> None:
    """Masks from the official generator are equal; masks from ours hide the same share on average."""
    share = re.search(r"within ([\d.]+)", str(case.description.get("tolerance")))
    for index, setting in enumerate(case.config["settings"]):
        known = {"lens", "prob", "length", "np_seed", "use_padding", "type", "other", "min_masks", "no_overlap", "min_space"}
        if set(setting) - known:
            raise CaseError(f"case.json: setting {index} holds options that this adapter does not know: {sorted(set(setting) - known)}.")
        config = SpanMaskConfig(
            setting["prob"],
            setting["length"],
            setting.get("min_masks", 2),
            setting.get("type", "static"),
            float(setting.get("other", 0.0)),
            not setting.get("no_overlap", False),
            setting.get("min_space", 0),
        )
        frames = case.outputs[f"mask{index}"].shape[1]
        padded = setting.get("use_padding", True)
        lengths = torch.tensor(setting["lens"]) if padded else torch.full((len(setting["lens"]),), frames)
        mask = span_mask(lengths, frames, config, LegacyDraws(setting["np_seed"], padded))
        check.equal(f"mask{index}", mask)
        found = [(row, *run) for row in range(len(mask)) for run in runs(mask[row])]
        for place, name in enumerate(("batch_idx", "starts", "ends")):
            check.equal(f"{name}{index}", torch.tensor([run[place] for run in found]))
        whole, name, bound = torch.tensor(setting["lens"]), f"mean_masked_fraction{index}", float(share[1]) if share else 0.02
        official = [span_mask(lengths, frames, config, LegacyDraws(seed, padded)).sum(1) for seed in range(FIRST_SEED, FIRST_SEED + DRAWS)]
        check.close(name, torch.stack(official).double().mean(0) / whole, bound)
        if name in case.outputs:
            # Two means of draws of short clips differ by chance alone; six of their standard errors they do not.
            own = [span_mask(lengths, frames, config, torch.Generator().manual_seed(seed)).sum(1) for seed in range(DRAWS)]
            drawn = torch.stack(own).double() / whole
            largest = (drawn.mean(0) - case.outputs[name]).abs() / (6 * drawn.std(0) * (2 / DRAWS) ** 0.5).clamp(min=bound)
            check.value(f"{name}: by our own generator, in units of what chance allows", float(largest.max()), 0.0, 1.0)


class GeneratorDraws:
    """Random numbers as fairseq takes them from a numpy generator of each row."""

    def __init__(self, seed: int, epoch: int, index: int) -> None:
        self.generator = np.random.default_rng(int(hash((seed, epoch, index)) % 1e6))

    def uniform(self) -> float:
        return self.generator.random()

    def choose(self, below: int, count: int) -> list[int]:
        return [int(place) for place in self.generator.choice(below, count, replace=False)]

    def integers(self, low: int, high: int, count: int) -> list[int]:
        return [int(number) for number in self.generator.integers(low, high, size=count)]

    def normal(self, mean: float, deviation: float, count: int) -> list[float]:
        return [float(number) for number in self.generator.normal(mean, deviation, size=count)]

    def poisson(self, mean: float, count: int) -> list[int]:
        return [int(number) for number in self.generator.poisson(mean, size=count)]

    def weighted(self, weights: list[int]) -> int:
        return int(self.generator.choice(len(weights), p=np.array(weights) / sum(weights)))


def generator_mask_case(case: Case, check: Check) -> None:
    """Masks from the official generators are equal."""
    if case.bound("masks") != 0:
        raise CaseError("case.json: masks are compared exactly here.")
    for number, setting in enumerate(case.config["cases"]):
        where = f"cases.{number}"
        options = Options({**setting, **setting.get("kw", {})}, f"case.json: config.{where}", {"seed"})
        options.take("kw", {})
        rows, frames = options.take("shape")
        lengths = setting.get("lens") or [frames] * rows
        options.require("num_mask_ver", 2)
        same = options.take("require_same_masks", True)
        spans = SpanMaskConfig(
            prob=options.take("mask_prob"),
            length=options.take("mask_length"),
            min_spans=options.take("min_masks", 0),
            lengths=options.choose("mask_type", "static", LENGTHS),  # type: ignore[arg-type]
            spread=float(options.take("mask_other", 0.0)),
            overlap=not options.take("no_overlap", False),
            min_space=options.take("min_space", 0),
            starts="inside" if options.take("idc_select_ver", 1) == 1 else "anywhere",
            equal_by="filling" if options.take("add_masks", False) else "thinning",
            dropout=options.take("mask_dropout", 0.0),
        )
        for key in ("lens", "epoch", "indices"):
            options.take(key, [])
        options.finish()
        draws = [GeneratorDraws(setting["seed"], setting["epoch"], index) for index in setting["indices"]]
        check.equal(f"mask_{number}", span_mask(torch.tensor(lengths), frames, spans, draws, same))


def collate_case(case: Case, check: Check) -> None:
    known_options(case, "lens", "tl", "hw", "label_rate", "modes", "crop_starts")
    rate, inputs = float(case.config.get("label_rate", FRAME_RATE)), case.inputs
    rows = range(len(case.config["lens"]))
    for mode, padded, longest, random in case.config["modes"]:
        items = [
            Item(
                f"row {row}", inputs[f"audio{row}"], inputs[f"video{row}"][..., 0], units=inputs[f"label{row}"], tokens=inputs[f"text{row}"]
            )
            for row in rows
        ]
        lengths = [len(inputs[f"audio{row}"]) for row in rows]
        size = min(longest, max(lengths) if padded else min(lengths))
        draws = iter(case.config["crop_starts"])
        starts = [next(draws) % (length - size + 1) if random and length > size else 0 for length in lengths]
        batch = collate(cut(items, size, starts, rate), "audio_video")
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        assert batch.video is not None
        padding = torch.arange(batch.audio.shape[1]) >= batch.audio_lengths[:, None]
        units, counts = batch.targets["units"], batch.target_lengths["units"]
        if not padded:  # the official code cuts the labels of all rows to the fewest; ours leaves frames without labels out of the loss
            units, counts = units[:, : int(counts.min())], counts.clamp(max=int(counts.min()))
        check.equal(f"{mode}.audio", batch.audio.transpose(1, 2))
        check.equal(f"{mode}.video", batch.video[:, None])
        check.equal(f"{mode}.padding_mask", padding)
        check.equal(f"{mode}.target", units.masked_fill(units < 0, PAD))
        check.equal(f"{mode}.target_lengths", counts)
    whole = collate(
        [Item(f"row {row}", inputs[f"audio{row}"], tokens=inputs[f"text{row}"]) for row in rows if f"text{row}" in inputs], "recognition"
    )
    assert whole.audio_lengths is not None
    target = whole.targets["tokens"]
    check.equal("s2s.target", target)
    check.equal("s2s.prev_output_tokens", shift_right(target, EOS, PAD))
    check.equal("s2s.target_lengths", whole.target_lengths["tokens"])
    check.equal("s2s.padding_mask", torch.arange(int(whole.audio_lengths.max())) >= whole.audio_lengths[:, None])


def video_case(case: Case, check: Check) -> None:
    known_options(case, "T", "hw", "crop", "draws", "image_mean", "image_std")
    frames, bound, config = case.inputs["frames"].numpy(), case.bound("abs"), case.config
    side, mean, deviation = (config.get(*each) for each in (("crop", CROP), ("image_mean", GREY_MEAN), ("image_std", GREY_STD)))
    if frames.dtype != np.uint8:
        raise CaseError(f"inputs.safetensors: frames of {frames.dtype}; lip crops are uint8.")
    for name in case.outputs:
        match = re.fullmatch(r"train_dw(\d+)_dh(\d+)_flip([01])", name)
        if match is None and name != "test":
            continue
        offset, mirror = (None, False) if match is None else ((int(match[2]), int(match[1])), match[3] == "1")
        if (side, mean, deviation) == (CROP, GREY_MEAN, GREY_STD):
            video = normalise_grey(InputFormat().video(frames, offset, mirror))
        else:  # models take crops of one size and one normalisation
            top, left = offset or ((frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2)
            window = cut_window(frames, left, top, side)
            video = torch.from_numpy(normalise(window[..., ::-1] if mirror else window, mean, deviation))
        check.close(name, video, bound)


ADAPTERS = [
    (lambda case: case.official.startswith("fairseq.data.data_utils.compute_mask_indices"), generator_mask_case),
    (lambda case: case.official.startswith("AVHubertDataset.load_feature"), audio_case),
    (lambda case: case.official.startswith("AVHubertDataset.add_noise / select_noise"), noise_case),
    (lambda case: case.official == "compute_mask_indices" and "avhubert" in case.source, mask_case),
    (lambda case: case.official == "AVHubertDataset.collater", collate_case),
    (lambda case: case.official.startswith("Compose(Normalize, CenterCrop"), video_case),
]

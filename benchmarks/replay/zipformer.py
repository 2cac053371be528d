"""Cases of the Zipformer: the encoder whole, causal and streamed, the parts that training alone has, and its optimiser."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.convert.mt2kd import one_or_each
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.transformer import find_name
from avtlm.convert.names.zipformer import UNUSED, zipformer_names
from avtlm.nn.gradient import ScaleGradient
from avtlm.nn.zipformer import Zipformer, ZipformerConfig, ZipformerStream
from avtlm.nn.zipformer.activations import SWOOSH_L, SWOOSH_R
from avtlm.nn.zipformer.balancing import Balancer, Whitener, bound, whiteness
from avtlm.nn.zipformer.encoder import chunks_before
from avtlm.nn.zipformer.layer import ZipformerLayer
from avtlm.nn.zipformer.norm import BiasNorm
from avtlm.nn.zipformer.positions import distance_vectors
from avtlm.nn.zipformer.schedules import Schedule
from avtlm.nn.zipformer.stack import Stack, beyond_chunks, downsampled
from avtlm.nn.zipformer.subsampling import frames_of
from avtlm.training.optim import OptimConfig, make_optimizer, schedule, set_lr
from avtlm.training.scaled_adam import ScaledAdam
from benchmarks.replay.case import Case, CaseError, Check
from benchmarks.replay.speech_encoders import load

# Options of a case, and ours; those that have a value for every stack come first.
STACKS = {
    "num_encoder_layers": "layers",
    "downsampling_factor": "downsampling",
    "encoder_dim": "dims",
    "feedforward_dim": "feed_forward",
    "num_heads": "heads",
    "cnn_module_kernel": "kernels",
    "encoder_unmasked_dim": "unmasked_dims",
}
SHARED = {
    "query_head_dim": "query_head_dim",
    "value_head_dim": "value_head_dim",
    "pos_head_dim": "position_head_dim",
    "pos_dim": "position_dim",
    "output_downsampling_factor": "output_downsampling",
    "causal": "causal",
}
DRAWN = {"chunk_size": "chunk_sizes", "left_context_frames": "left_context"}
# What official models have where a case does not say, and what has no effect outside of training.
OFFICIAL = {
    "output_downsampling_factor": 2,
    "num_encoder_layers": 4,
    "query_head_dim": 24,
    "value_head_dim": 12,
    "pos_head_dim": 4,
    "num_heads": 8,
    "feedforward_dim": 1536,
    "cnn_module_kernel": 31,
    "pos_dim": 192,
    "causal": False,
    "chunk_size": [-1],
    "left_context_frames": [-1],
}
WITHOUT_EFFECT = ("dropout", "warmup_batches")
# Our parts of a layer, by the names of the official ones whose outputs cases hold; with what is first in a pair.
PARTS = {
    "feed_forward1": "feed_forward1",
    "nonlin_attention": "nonlinear_attention",
    "self_attn1": "attention1",
    "conv_module1": "convolution1",
    "feed_forward2": "feed_forward2",
    "bypass_mid": "middle_bypass",
    "self_attn2": "attention2",
    "conv_module2": "convolution2",
    "feed_forward3": "feed_forward3",
    "norm": "norm",
    "bypass": "bypass",
}


def config_of(case: Case) -> ZipformerConfig:
    """Our configuration of a case's model, with the official treatment of padding.

    Raises:
        CaseError: an option that we do not know.
    """
    options: dict[str, Any] = {name: value for name, value in (OFFICIAL | case.config["encoder"]).items() if name not in WITHOUT_EFFECT}
    stacks = len(options["downsampling_factor"])
    settings: dict[str, Any] = {"features": case.config["feature_dim"], "compute_padding": True}
    for theirs, ours in STACKS.items():
        values = options.pop(theirs)
        values = [values] if isinstance(values, int) else values
        settings[ours] = tuple(values * stacks if len(values) == 1 else values)
    for theirs, ours in SHARED.items():
        value = options.pop(theirs)
        settings[ours] = one_or_each(value) if isinstance(value, list) else value
    settings |= {ours: tuple(options.pop(theirs)) for theirs, ours in DRAWN.items()}
    if options:
        raise CaseError(f"case.json: config.encoder has {', '.join(sorted(options))}, which are not known here.")
    return ZipformerConfig(**settings)


def seen_at_once(config: ZipformerConfig) -> tuple[int, int]:
    """Frames of a chunk and of the left context, where a causal model has but one choice; -1 for all."""
    chunk, left = ({*choices} if config.causal else {-1} for choices in (config.chunk_sizes, config.left_context))
    if len(chunk) > 1 or len(left) > 1:
        raise CaseError("case.json: config.encoder has several values of chunk_size or left_context_frames, one of which was drawn.")
    return chunk.pop(), left.pop()


def model_of(case: Case, config: ZipformerConfig) -> Zipformer:
    """The case's model, in evaluation."""
    model = Zipformer(config).eval()
    rules = zipformer_names(config)
    load(model, {find_name(rules, key, "the Zipformer"): value for key, value in case.state.items() if not UNUSED.fullmatch(key)})
    return model


def frames_first(x: Tensor) -> Tensor:
    """(batch, frames, ...) -> (frames, batch, ...), as the official code has it."""
    return x.transpose(0, 1)


def watch(check: Check, model: Zipformer) -> list[Any]:
    """Compare what parts give as soon as they have given it; the handles of the hooks."""

    def compare(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            check.forward(name, frames_first(output[0] if isinstance(output, tuple) else output))

        return hook

    def weights(name: str) -> Any:
        return lambda module, inputs, output: check.forward(name, output.weights)

    def convolved(module: nn.Module, inputs: Any, output: Any) -> None:
        # The official convolutions have channels before frames and bands.
        for name, x in (("embed.conv", inputs[0]), ("embed.convnext", output)):
            expected = check.case.outputs.get(name)
            check.forward(name, x.permute(0, 3, 1, 2)[:, :, : 0 if expected is None else expected.shape[2]])

    handles = [model.embed.block.register_forward_hook(convolved)]
    for number, stack in enumerate(model.stacks):
        assert isinstance(stack, Stack)
        handles.append(stack.register_forward_hook(compare(f"stack{number}.out")))
        layer = stack.layers[0]
        assert isinstance(layer, ZipformerLayer)
        start = f"stack{number}.layer0"
        handles.append(layer.register_forward_hook(compare(f"{start}.out")))
        handles.append(layer.attention_weights.register_forward_hook(weights(f"{start}.self_attn_weights")))
        for theirs, ours in PARTS.items():
            handles.append(layer.get_submodule(ours).register_forward_hook(compare(f"{start}.{theirs}")))
    return handles


def encoder_case(case: Case, check: Check) -> None:
    config = config_of(case)
    model = model_of(case, config)
    features, lengths, probe = case.inputs["x"], case.inputs["x_lens"], case.inputs["w"]
    embedded, embedded_lengths = model.embed(features, lengths)
    check.forward("embed.out", embedded)
    check.equal("embed.lens", embedded_lengths)
    frames = downsampled(embedded.shape[1], config.downsampling[0])
    check.forward("pos_emb_stack0", distance_vectors(frames, frames, config.position_dim)[None])
    handles = watch(check, model)
    chunk, left = seen_at_once(config)
    out = model(features, lengths, chunk, left)
    for handle in handles:
        handle.remove()
    check.forward("encoder_out", out.frames)
    check.equal("encoder_out_lens", out.lengths)
    there = torch.arange(out.frames.shape[1]) < out.lengths[:, None]
    loss = (out.frames * probe * there[..., None]).sum()
    check.loss("probe_loss", loss)
    loss.backward()  # type: ignore[no-untyped-call]
    rules = zipformer_names(config)
    for name, parameter in model.named_parameters():
        check.gradient(f"grad.{find_key(rules, name)}", parameter.grad)
    # A clip that fills the batch has nothing to do with padding.
    full = frames_of(lengths) == embedded.shape[1]
    alone = Zipformer(ZipformerConfig(**{**config.__dict__, "compute_padding": False})).eval()
    alone.load_state_dict(model.state_dict())
    with torch.no_grad():
        same = alone(features, lengths, chunk, left).frames[full]
    check.value("encoder_out without padding", float((same - case.outputs["encoder_out"][full]).abs().max()), 0.0, case.bound("forward"))


@torch.no_grad()
def causal_case(case: Case, check: Check) -> None:
    config = config_of(case)
    model = model_of(case, config)
    chunk, left = case.config["chunk"], case.config["left"]
    features, lengths = case.inputs["x"], case.inputs["x_lens"]
    chunked = model(features, lengths, chunk, left)
    check.forward("chunked.encoder_out", chunked.frames)
    check.equal("chunked.lens", chunked.lengths)
    check.equal("attn_mask", beyond_chunks(int(frames_of(torch.tensor(features.shape[1]))), 1, chunk, chunks_before(chunk, left)))
    check.forward("full.encoder_out", model(features, lengths, -1).frames)
    given = case.inputs["x_stream"]
    if left < 0:
        return  # officially a stream keeps as many frames as it is told
    stream = ZipformerStream(model, chunk, left, len(given))
    stream.left_context = left  # which need not be whole chunks there
    found = stream.accept(given)
    check.forward("stream.encoder_out", found)
    check.equal("stream.n_chunks", found.shape[1] * config.output_downsampling // chunk)
    memory = stream.memories[0][0]
    for place, kept in enumerate((memory.keys, memory.nonlinear, memory.values1, memory.values2)):
        kept = F.pad(kept, (0, 0, left // config.downsampling[0] - kept.shape[1], 0))  # what was never there is zeros
        check.forward(f"stream.final_state_{place}", kept[None] if place == 1 else frames_first(kept))
    for place, kept in ((4, memory.convolution1), (5, memory.convolution2)):
        check.forward(f"stream.final_state_{place}", kept.transpose(1, 2))
    check.forward("stream.final_embed_pad", stream.past.permute(0, 3, 1, 2))


def training_parts_case(case: Case, check: Check) -> None:
    config, incoming = case.config, case.inputs["gy"]

    def gradient(name: str, x: Tensor, out: Tensor) -> None:
        (found,) = torch.autograd.grad(out, x, incoming)
        check.gradient(name, found)

    def fresh() -> Tensor:
        return case.inputs["x"].clone().requires_grad_()

    stated = config["balancer"]
    balancer = Balancer(stated["min_positive"], stated["max_positive"], stated["min_abs"], stated["max_abs"], strength=stated["grad_scale"])
    x = fresh()
    gradient("balancer.grad_x", x, balancer.applied(x))
    stated, x = config["whiten"], fresh()
    gradient("whiten.grad_x", x, Whitener(stated["limit"], stated["num_groups"], stated["grad_scale"]).applied(x))
    check.forward("whiten.metric", whiteness(x.detach(), stated["num_groups"]))
    norm, x = BiasNorm(x.shape[-1]), fresh()
    norm.load_state_dict({"bias": case.inputs["bias"], "log_scale": torch.zeros(())})
    # The scale is not among the inputs; one number of the output tells it.
    told = case.outputs["biasnorm.y"].flatten()[0] / norm(x).detach().flatten()[0]
    norm.load_state_dict({"bias": case.inputs["bias"], "log_scale": told.log()})
    out = norm(x)
    check.forward("biasnorm.y", out)
    for name, found in zip(
        ("grad_x", "grad_bias", "grad_log_scale"), torch.autograd.grad(out, (x, norm.bias, norm.log_scale), incoming), strict=True
    ):
        check.gradient(f"biasnorm.{name}", found)
    limited = case.inputs["bias"].clone().requires_grad_()
    (found,) = torch.autograd.grad(bound(limited, -0.1, 0.1), limited, torch.ones_like(limited))
    check.gradient("limit_param.grad", found)
    places = torch.linspace(-30.0, 30.0, 121)
    check.forward("swoosh_l", SWOOSH_L(places))
    check.forward("swoosh_r", SWOOSH_R(places))
    points = tuple((float(batches), float(value)) for batches, value in config["schedule"])
    value = Schedule(points, config["default"])
    check.forward("scheduled_float", torch.tensor([value(batches) for batches in (*config["batch_counts"], None)]))
    x = fresh()
    gradient("scale_grad.grad_x", x, ScaleGradient.apply(x, scale_of_gradient(case)))


def scale_of_gradient(case: Case) -> float:
    """The factor of ScaleGrad, which the case's description does not name: that of the released front-end, where nothing else is stated."""
    return float(case.config.get("scale_grad", 0.2))


def optimizer_case(case: Case, check: Check) -> None:
    config, bound_of_case = case.config, case.bound("parameters")
    names = [f"p{number}" for number in range(config["n_params"])]
    parameters = {name: nn.Parameter(case.inputs[f"{name}_init"].clone()) for name in names}
    steps = config["steps"]
    whole = max(steps, 2 * config["warmup_batches"])  # a case may end before the warm-up does
    settings = OptimConfig(
        optimizer="scaled_adam",
        lr=config["lr"],
        eps=1e-8,
        weight_decay=0.0,
        clip_norm=None,
        clipping_scale=config["clipping_scale"],
        clipping_period=config["clipping_update_period"],
        schedule="eden",
        warmup=config["warmup_batches"] / whole,
        lr_batches=config["lr_batches"],
        lr_epochs=config["lr_epochs"],
    )
    optimizer = make_optimizer(settings, parameters.items())
    if config.get("groups"):
        groups = [group_of(group, list(parameters.values()), config["lr"]) for group in config["groups"]]
        optimizer = ScaledAdam(groups, settings.lr, settings.betas, settings.eps, settings.clipping_scale, settings.clipping_period)
    rates = []
    for step in range(steps):
        # The case asks the schedule after its first step only; the released recipe does so before it.
        set_lr(optimizer, schedule(settings, step, whole, step // config["epoch_every"]) if step else 1.0)
        rates.append(optimizer.param_groups[0]["lr"])
        for number, parameter in enumerate(parameters.values()):
            parameter.grad = case.inputs[f"g{number}"][step] + config["pull"] * parameter.detach()
        optimizer.step()
        for name in names if step + 1 in config["record"] else ():
            check.close(f"step{step + 1}.{name}", parameters[name].detach(), bound_of_case)
    check.close("lrs", torch.tensor(rates), bound_of_case)


def group_of(group: list[int] | dict[str, Any], parameters: list[nn.Parameter], lr: float) -> dict[str, Any]:
    """A group of parameters by their numbers, alone or beside a learning rate of their own."""
    numbers, own = (group["params"], group.get("lr", lr)) if isinstance(group, dict) else (group, lr)
    return {"params": [parameters[number] for number in numbers], "lr": own, "base_lr": own}


ADAPTERS = [
    (lambda case: "Zipformer2" in case.official and "chunk" not in case.config, encoder_case),
    (lambda case: "Zipformer2" in case.official and "chunk" in case.config, causal_case),
    (lambda case: "Balancer, Whiten" in case.official, training_parts_case),
    (lambda case: "ScaledAdam" in case.official, optimizer_case),
]

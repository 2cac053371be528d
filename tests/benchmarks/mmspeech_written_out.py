"""MMSpeech's official code written out plainly over tensors under official names, and cases made with it, for every option of the model."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

DIM, FFN, DECODER_FFN, LAYERS, DECODER_LAYERS, FIRST_SHARED = 16, 24, 20, 8, 2, 6
DICTS = {"n_text": 20, "n_audio": 8, "n_phone": 9, "n_disamb": 2}
TEXT, PHONES = 4 + DICTS["n_text"] + 2, 4 + DICTS["n_phone"]  # ends of symbols of text, and of phonemes
TOKENS = TEXT + DICTS["n_audio"]
MODEL: dict[str, Any] = {
    "encoder_layers": LAYERS,
    "encoder_embed_dim": DIM,
    "encoder_ffn_embed_dim": FFN,
    "encoder_attention_heads": 2,
    "encoder_layerdrop": 0.0,
    "layer_norm_first": True,
    "layer_type": "transformer",
    "conv_pos": 15,
    "conv_pos_groups": 4,
    "pos_conv_depth": 5,
    "decoder_layers": DECODER_LAYERS,
    "decoder_embed_dim": DIM,
    "decoder_ffn_embed_dim": DECODER_FFN,
    "decoder_attention_heads": 4,
    "decoder_output_dim": DIM,
    "decoder_input_dim": 768,
    "decoder_normalize_before": True,
    "share_decoder_input_output_embed": True,
    "layernorm_embedding": True,
    "scale_attn": True,
    "scale_fc": True,
    "scale_heads": True,
    "disable_entangle": False,
    "no_scale_embedding": False,
    "attn_scale_factor": 2,
    "token_bucket_size": 4,
    "max_target_positions": 40,
    "phone_dict_size": None,
    "activation_fn": "gelu",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
LEARNED = (  # whose gradients a case holds, zeros where there is none
    "decoder.cross_pos_k_linear.weight",
    "decoder.embed_tokens.weight",
    "decoder.layers.0.encoder_attn.q_proj.weight",
    "decoder.token_rel_pos_table_list.0.weight",
    "encoder.encoder.layers.0.fc1.weight",
    "encoder.encoder.layers.7.self_attn.k_proj.weight",
    "encoder.encoder.layer_norm.weight",
    "encoder.final_proj.weight",
    "encoder.mask_emb",
    "encoder.phone_item_embedding.weight",
    "encoder.subsample.conv.0.weight",
)
State = dict[str, Tensor]


def made_state(model: Mapping[str, Any], generator: torch.Generator) -> State:
    """Random weights under official names, those that speech never touches among them."""
    state: State = {}

    def add(name: str, *shape: int, around: float = 0.0, spread: float = 0.2) -> None:
        state[name] = around + spread * torch.randn(shape, generator=generator)

    def linear(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", rows, columns, spread=0.5 * columns**-0.5)
        add(f"{name}.bias", rows)

    def norm(name: str, width: int = DIM) -> None:
        add(f"{name}.weight", width, around=1.0)
        add(f"{name}.bias", width)

    def attention(name: str, heads: int = 0) -> None:
        for part in ("q", "k", "v", "out"):
            linear(f"{name}.{part}_proj", DIM, DIM)
        if heads:
            add(f"{name}.c_attn", heads, around=1.0)

    add("encoder.mask_emb", DIM, spread=1.0)
    for place, channels in ((0, 1), (2, DIM)):
        add(f"encoder.subsample.conv.{place}.weight", DIM, channels, 3, 3, spread=(9 * channels) ** -0.5)
        add(f"encoder.subsample.conv.{place}.bias", DIM)
    linear("encoder.subsample.out.0", DIM, DIM * 19)
    for name in ("post_subsample_proj", "final_proj"):
        linear(f"encoder.{name}", DIM, DIM)
    add("encoder.phone_item_embedding.weight", PHONES + 1 + DICTS["n_disamb"], DIM)
    groups, blocks = DIM // model["conv_pos_groups"], model["pos_conv_depth"]
    for name in ("encoder.encoder.pos_conv", "encoder.encoder.phone_pos_conv"):
        if blocks == 1:
            add(f"{name}.0.weight_g", 1, 1, model["conv_pos"], around=1.0)
            add(f"{name}.0.weight_v", DIM, groups, model["conv_pos"])
            add(f"{name}.0.bias", DIM)
        for block in range(blocks if blocks > 1 else 0):
            add(f"{name}.{block}.0.weight", DIM, groups, max(3, model["conv_pos"] // blocks), spread=0.3)
            add(f"{name}.{block}.0.bias", DIM)
    for name in ("layer_norm", "phone_layer_norm"):
        norm(f"encoder.encoder.{name}")
    layers = [(f"encoder.encoder.layers.{number}", FFN) for number in range(LAYERS)]
    for layer, width in [*layers, *((f"decoder.layers.{number}", DECODER_FFN) for number in range(DECODER_LAYERS))]:
        decodes, heads = layer.startswith("decoder"), model["decoder_attention_heads"]
        for part in ("self_attn", "encoder_attn") if decodes else ("self_attn",):
            attention(f"{layer}.{part}", heads if decodes and model["scale_heads"] else 0)
            norm(f"{layer}.{part}_layer_norm")
        norm(f"{layer}.final_layer_norm")
        linear(f"{layer}.fc1", width, DIM)
        linear(f"{layer}.fc2", DIM, width)
        for name in ("self_attn_ln", "cross_attn_ln") if decodes and model["scale_attn"] else ():
            norm(f"{layer}.{name}")
        if decodes and model["scale_fc"]:
            norm(f"{layer}.ffn_layernorm", width)
        if decodes and model.get("scale_resids"):
            add(f"{layer}.w_resid", DIM, around=1.0)
        if decodes and model.get("adapter"):
            linear(f"{layer}.adapter.down_proj", model["adapter_dim"], DIM)
            linear(f"{layer}.adapter.up_proj", DIM, model["adapter_dim"])
    for number in range(DECODER_LAYERS):
        add(f"decoder.token_rel_pos_table_list.{number}.weight", 2 * model["token_bucket_size"] - 1, model["decoder_attention_heads"])
    add("decoder.embed_tokens.weight", TOKENS, DIM)
    add("decoder.embed_positions.weight", model["max_target_positions"] + 2, DIM)
    for name in ("self_pos_q", "self_pos_k", "cross_pos_q", "cross_pos_k"):
        linear(f"decoder.{name}_linear", DIM, DIM)
    optional = {"layernorm_embedding": "layernorm_embedding", "layer_norm": "decoder_normalize_before"}
    for name in ("pos_ln", "image_pos_ln", "code_layernorm_embedding", *(name for name, option in optional.items() if model[option])):
        norm(f"decoder.{name}")
    if not model["share_decoder_input_output_embed"]:
        add("decoder.output_projection.weight", TOKENS, DIM)
    return state


class WrittenOut:
    """The official forward passes over weights under official names; ``found`` gathers what a case holds."""

    def __init__(self, model: Mapping[str, Any], state: State) -> None:
        self.model, self.state, self.found = model, state, State()
        self.output = state.get("decoder.output_projection.weight", state["decoder.embed_tokens.weight"])

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Normed, or as it is where there is no such norm."""
        key = f"{name}.weight"
        return F.layer_norm(x, x.shape[-1:], self.state[key], self.state[f"{name}.bias"]) if key in self.state else x

    def feed_forward(self, layer: str, x: Tensor) -> Tensor:
        inner = ACTIVATIONS[self.model["activation_fn"]](self.linear(f"{layer}.fc1", x))
        return self.linear(f"{layer}.fc2", self.norm(f"{layer}.ffn_layernorm", inner))

    def attend(self, name: str, x: Tensor, memory: Tensor, heads: int, scale: float, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        """Attention with a bias that is added to scores; padding is True at keys that nobody sees."""
        query, key, value = (
            self.linear(f"{name}.{part}_proj", each).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, each in (("q", x), ("k", memory), ("v", memory))
        )
        scores = scale * query @ key.transpose(2, 3)
        scores = scores if bias is None else scores + bias
        scores = scores if padding is None else scores.masked_fill(padding[:, None, None], -math.inf)
        seen = scores.softmax(-1) @ value
        if f"{name}.c_attn" in self.state:
            seen = seen * self.state[f"{name}.c_attn"][:, None, None]
        return self.linear(f"{name}.out_proj", seen.transpose(1, 2).flatten(2))

    def places(self, name: str, x: Tensor) -> Tensor:
        """What a positional convolution puts out; an even kernel's last frame is dropped."""
        frames, x = x.shape[1], x.transpose(1, 2)
        blocks, groups = self.model["pos_conv_depth"], self.model["conv_pos_groups"]
        for block in range(blocks):
            key = f"encoder.encoder.{name}.{block}.0" if blocks > 1 else f"encoder.encoder.{name}.0"
            if blocks > 1:
                weight = self.state[f"{key}.weight"]
            else:
                long = self.state[f"{key}.weight_v"]
                weight = self.state[f"{key}.weight_g"] * long / long.norm(dim=(0, 1), keepdim=True)
            x = F.conv1d(x, weight, self.state[f"{key}.bias"], padding=weight.shape[2] // 2, groups=groups)[..., :frames]
            x = F.gelu(F.layer_norm(x.transpose(1, 2), (DIM,)).transpose(1, 2) if blocks > 1 else x)
        return x.transpose(1, 2)

    def encoder(
        self, x: Tensor, padding: Tensor, phones: Tensor, phone_padding: Tensor, prefix: str | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Both streams without the last norm of a pre-norm encoder, their positions, and their padding."""
        first, streams, placed = self.model["layer_norm_first"], [], []
        for name, stream, there in (("pos_conv", x, padding), ("phone_pos_conv", phones, phone_padding)):
            stream = stream.masked_fill(there[..., None], 0.0)
            placed.append(self.places(name, stream))
            stream = stream + placed[-1]
            streams.append(stream if first else self.norm("encoder.encoder.layer_norm", stream))
            if prefix is not None:
                self.found[f"{prefix}.enc.{name}"] = placed[-1]
        x, heads = streams[0], self.model["encoder_attention_heads"]
        for number in range(LAYERS):
            if number < FIRST_SHARED and bool(padding.all()):
                continue
            if number == FIRST_SHARED:
                x, padding = torch.cat([x, streams[1]], 1), torch.cat([padding, phone_padding], 1)
            layer = f"encoder.encoder.layers.{number}"
            y = self.norm(f"{layer}.self_attn_layer_norm", x) if first else x
            x = x + self.attend(f"{layer}.self_attn", y, y, heads, (DIM / heads) ** -0.5, None, padding)
            x = x if first else self.norm(f"{layer}.self_attn_layer_norm", x)
            x = x + self.feed_forward(layer, self.norm(f"{layer}.final_layer_norm", x) if first else x)
            x = x if first else self.norm(f"{layer}.final_layer_norm", x)
            if prefix is not None:
                self.found[f"{prefix}.enc.layer{number}"] = x
        return x, torch.cat(placed, 1), padding

    def encode(self, prefix: str, inputs: Mapping[str, Tensor], agree: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """States, positions, padding, logits of phonemes, and the divergence of masked frames if ``agree``."""
        x = inputs["fbank"][:, None]
        for place in (0, 2):
            key = f"encoder.subsample.conv.{place}"
            x = F.conv2d(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"], stride=2).relu()
        x = self.found[f"{prefix}.enc.subsample.features"] = self.linear("encoder.subsample.out.0", x.transpose(1, 2).flatten(2))
        x = clean = self.found[f"{prefix}.enc.post_subsample_proj"] = self.linear("encoder.post_subsample_proj", x)
        counts = inputs["fbank_length"]
        for _ in range(2):
            counts = (counts - 1) // 2 + 1
        padding = (torch.arange(x.shape[1]) >= counts[:, None]) | ~inputs["fbank_masks"][:, None]
        if "mask_indices" in inputs:
            x = torch.where(inputs["mask_indices"][..., None], self.state["encoder.mask_emb"], x)
        table = self.state["encoder.phone_item_embedding.weight"]
        phones = F.embedding(inputs["phone_items"], table, padding_idx=1)
        phone_padding = (inputs["phone_items"] == 1) | ~inputs["phone_masks"][:, None]
        states, placed, there = self.encoder(x, padding, phones, phone_padding, prefix)
        if self.model["layer_norm_first"]:
            states = self.norm("encoder.encoder.layer_norm", states)
        classes = table[3 : self.model["phone_dict_size"] or PHONES]
        logits = states @ (classes.detach() if agree else classes).t()
        self.found |= {f"{prefix}.encoder_out": states, f"{prefix}.phone_distribution": logits}
        self.found |= {f"{prefix}.position_embeddings": placed, f"{prefix}.encoder_padding_mask": there}
        divergence = torch.zeros(())
        if agree:
            with torch.no_grad():
                teacher = self.encoder(clean, padding, phones, phone_padding, None)[0] @ classes.t()
            hidden = F.pad(inputs["mask_indices"], (0, phones.shape[1]))
            divergence = F.kl_div(logits[hidden].log_softmax(-1), teacher[hidden].softmax(-1), reduction="sum")
        return states, placed, there, logits, divergence

    def bucket(self, length: int) -> Tensor:
        size = self.model["token_bucket_size"]
        place, half = torch.arange(length), size // 2
        away = place[:, None] - place
        near = torch.where((away < half) & (away > -half), half - 1, away.abs())
        far = (torch.ceil(torch.log(near / half) / math.log(1023 / half) * (half - 1)) + half).int()
        return torch.where(near <= half, away, far * away.sign()).long() + size - 1

    def decode(self, prefix: str, tokens: Tensor, states: Tensor, placed: Tensor, there: Tensor) -> Tensor:
        """Logits of the next tokens."""
        heads, length, first = self.model["decoder_attention_heads"], tokens.shape[1], self.model["decoder_normalize_before"]
        scale = (DIM / heads * self.model["attn_scale_factor"]) ** -0.5

        def look(name: str, x: Tensor) -> Tensor:
            return self.linear(f"decoder.{name}_linear", x).unflatten(-1, (heads, -1)).transpose(-3, -2)

        place = self.state["decoder.embed_positions.weight"][:length]
        normed = self.norm("decoder.pos_ln", place)
        own = scale * look("self_pos_q", normed) @ look("self_pos_k", normed).transpose(-1, -2)
        cross = scale * look("cross_pos_q", normed) @ look("cross_pos_k", placed).transpose(-1, -2)
        x = F.embedding(tokens, self.state["decoder.embed_tokens.weight"], padding_idx=1)
        x = x * (1.0 if self.model["no_scale_embedding"] else DIM**0.5) + (0.0 if self.model["disable_entangle"] else place)
        x = self.found[f"{prefix}.dec.inner0"] = self.norm("decoder.layernorm_embedding", x)
        later = torch.full((length, length), -math.inf).triu(1)
        for number in range(DECODER_LAYERS):
            layer = f"decoder.layers.{number}"
            table = self.state[f"decoder.token_rel_pos_table_list.{number}.weight"]
            bias = own + table[self.bucket(length)].permute(2, 0, 1) + later
            for part, behind in (("self_attn", "self_attn_ln"), ("encoder_attn", "cross_attn_ln")):
                y = self.norm(f"{layer}.{part}_layer_norm", x) if first else x
                if part == "self_attn":
                    y = self.attend(f"{layer}.{part}", y, y, heads, scale, bias, tokens == 1)
                else:
                    y = self.attend(f"{layer}.{part}", y, states, heads, scale, cross, there)
                x = x + self.norm(f"{layer}.{behind}", y)
                x = x if first else self.norm(f"{layer}.{part}_layer_norm", x)
            y = self.feed_forward(layer, self.norm(f"{layer}.final_layer_norm", x) if first else x)
            if f"{layer}.adapter.up_proj.weight" in self.state:
                y = y + self.linear(f"{layer}.adapter.up_proj", self.linear(f"{layer}.adapter.down_proj", y).relu())
            x = x * self.state.get(f"{layer}.w_resid", torch.ones(())) + y
            x = x if first else self.norm(f"{layer}.final_layer_norm", x)
            self.found |= {f"{prefix}.dec.inner{number + 1}": x, f"{prefix}.dec.layer{number}": x}
        logits = self.found[f"{prefix}.logits"] = (self.norm("decoder.layer_norm", x) if first else x) @ self.output.t()
        return logits

    def loss(self, prefix: str, inputs: Mapping[str, Tensor], kind: str) -> Tensor:
        """That of a mini-batch of ``pairs``, ``text`` or ``speech``."""
        states, placed, there, phones, divergence = self.encode(prefix, inputs, kind == "speech")
        logits = self.decode(prefix, inputs["prev_output_tokens"], states, placed, there)
        if "constraint_masks" in inputs:
            logits = self.found[f"{prefix}.logits_constrained"] = logits.masked_fill(~inputs["constraint_masks"], -math.inf)
        target, ctc = inputs["target"], torch.zeros(())
        written = F.cross_entropy(logits[target != 1], target[target != 1], reduction="sum")
        if kind == "pairs":
            counts, length = inputs["phone_lengths"], (~there).sum(1)
            said = torch.cat([row[:count] for row, count in zip(inputs["phone_items"], counts.tolist(), strict=True)])
            ctc = F.ctc_loss(phones.transpose(0, 1).log_softmax(-1), said, length, counts, reduction="sum", zero_infinity=True)
        self.found |= {f"{prefix}.nll_loss": written, f"{prefix}.ctc_loss": ctc, f"{prefix}.kl_loss": divergence}
        total = self.found[f"{prefix}.loss"] = written + ctc + divergence
        return total


def made_inputs(kind: str, constrained: bool, generator: torch.Generator) -> State:
    """A mini-batch of three rows of different lengths."""

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    rows, tokens = 3, torch.tensor([5, 3, 4])
    drawn = draw(TEXT, TOKENS, rows, 5) if kind == "speech" else draw(4, TEXT - 2, rows, 5)
    target = F.pad(drawn, (0, 1), value=1).masked_fill(torch.arange(6) >= tokens[:, None], 1).scatter(1, tokens[:, None], 2)
    before = F.pad(target[:, :-1], (1, 0), value=0)
    inputs = {"target": target, "prev_output_tokens": before.masked_fill(torch.arange(6) > tokens[:, None], 1)}
    there = torch.ones(rows, dtype=torch.bool)
    inputs |= {
        "audio_code_masks": there & (kind == "speech"),
        "fbank_masks": there & (kind != "text"),
        "phone_masks": there & (kind == "text"),
    }
    if kind == "text":
        lengths, high = torch.tensor([7, 4, 6]), PHONES + 1
        inputs |= {"fbank": torch.zeros(rows, 8, 80), "fbank_length": torch.full((rows,), 8)}
    else:
        frames, lengths, high = torch.tensor([67, 53, 60]), torch.tensor([4, 3, 2]), PHONES - 3
        bank = torch.randn(rows, 67, 80, generator=generator).masked_fill((torch.arange(67) >= frames[:, None])[..., None], 0.0)
        start, place = draw(0, 9, rows, 1), torch.arange(16)
        inputs |= {"fbank": bank, "fbank_length": frames, "mask_indices": (place >= start) & (place < start + 3)}
    items = draw(4 if kind == "text" else 1, high, rows, int(lengths.max())).masked_fill(
        torch.arange(int(lengths.max())) >= lengths[:, None], 1
    )
    inputs |= {"phone_items": torch.full((rows, 3), 6) if kind == "speech" else items, "phone_lengths": lengths}
    if constrained and kind != "speech":
        inputs["constraint_masks"] = (target != 1)[..., None] & (torch.arange(TOKENS) < TEXT)
    return inputs


def made_case(folder: Path, stage: int = 2, constrained: bool = True, **options: Any) -> Path:
    """A case of all mini-batches of a stage of training, with options of the model that differ from MODEL."""
    generator, model = torch.Generator().manual_seed(0), MODEL | options
    state = {name: tensor.requires_grad_() for name, tensor in made_state(model, generator).items()}
    official, inputs, losses = WrittenOut(model, state), State(), State()
    for number, kind in enumerate({1: ("text",), 2: ("pairs", "text", "speech"), 3: ("pairs", "text")}[stage], 1):
        batch = made_inputs(kind, constrained, generator)
        losses[f"v{number}"] = official.loss(f"v{number}", batch, kind)
        inputs |= {f"v{number}.{name}": tensor for name, tensor in batch.items()}
    found = official.found
    sizes = torch.tensor([3] * len(losses))
    found |= {"combined.sample_sizes": sizes} | {f"combined.loss_{prefix}": loss for prefix, loss in losses.items()}
    # The first stage leaves the division to the optimiser.
    losses["combined"] = found["combined.loss"] = torch.stack(list(losses.values())).sum() / (1 if stage == 1 else sizes.sum())
    for prefix, loss in losses.items():
        learned = [state[name] for name in LEARNED]
        gradients = torch.autograd.grad(loss, learned, retain_graph=True, allow_unused=True, materialize_grads=True)
        found |= {f"{prefix}.grad.{name}": each for name, each in zip(LEARNED, gradients, strict=True)}
    folder.mkdir()
    weights = {**state, "decoder.output_projection.weight": official.output}
    for name, tensors in (("state", weights), ("inputs", inputs), ("outputs", found)):
        save_file({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    config = {"train_stage": stage, "dicts": DICTS, "model": model}
    tolerance = {"forward": 2e-05, "grad": "1e-4 relative to the max of the tensor", "scores": 1e-4}
    (folder / "case.json").write_text(json.dumps({"official_class": "OFASpeech (made)", "config": config, "tolerance": tolerance}))
    return folder

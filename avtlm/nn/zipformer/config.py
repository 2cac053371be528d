"""Sizes of a Zipformer. The defaults are those of the recipes' "M", and with ``causal`` those of their streaming models."""

from dataclasses import dataclass

STACK_TUPLES = ("layers", "downsampling", "dims", "feed_forward", "heads", "kernels", "unmasked_dims")
HEAD_DIMS = ("query_head_dim", "value_head_dim", "position_head_dim")


@dataclass(frozen=True)
class ZipformerConfig:
    """What each of the stacks has, and what all share. Attributes that are tuples up to ``unmasked_dims`` have a value for every stack.

    Attributes:
        features: bands of the filter bank.
        layers: of a stack.
        downsampling: of a stack, on top of the 50 Hz behind the convolutions.
        dims: width of a stack.
        feed_forward: width of the middle of the second of its three feed-forward parts; the first has 3/4 of it, the third 5/4.
        heads: of attention.
        kernels: taps of its convolutions, odd.
        unmasked_dims: channels that training never hides.
        query_head_dim, value_head_dim, position_head_dim: of one head, in all stacks or one number for each.
        position_dim: of the vectors of distances.
        output_downsampling: of what comes out, on top of the 50 Hz.
        causal: see chunks of frames at a time, for streams.
        chunk_sizes: frames at 50 Hz of which training draws one for every batch of a causal model; -1 is everything at once.
        left_context: frames before a chunk that are seen, drawn likewise, rounded down to chunks but at least one; -1 is all.
        constant_attention: let the part with one head average evenly at times, early in training. The published model was trained without,
            by an oversight in its code.
        compute_padding: let padding take part as in the official code; what a clip gives then depends on what it is batched with.
    """

    features: int = 80
    layers: tuple[int, ...] = (2, 2, 3, 4, 3, 2)
    downsampling: tuple[int, ...] = (1, 2, 4, 8, 4, 2)
    dims: tuple[int, ...] = (192, 256, 384, 512, 384, 256)
    feed_forward: tuple[int, ...] = (512, 768, 1024, 1536, 1024, 768)
    heads: tuple[int, ...] = (4, 4, 4, 8, 4, 4)
    kernels: tuple[int, ...] = (31, 31, 15, 15, 15, 31)
    unmasked_dims: tuple[int, ...] = (192, 192, 256, 256, 256, 192)
    query_head_dim: int | tuple[int, ...] = 32
    value_head_dim: int | tuple[int, ...] = 12
    position_head_dim: int | tuple[int, ...] = 4
    position_dim: int = 48
    output_downsampling: int = 2
    causal: bool = False
    chunk_sizes: tuple[int, ...] = (16, 32, 64, -1)
    left_context: tuple[int, ...] = (64, 128, 256, -1)
    constant_attention: bool = True
    compute_padding: bool = False

    def __post_init__(self) -> None:
        counts = {name: len(getattr(self, name)) for name in STACK_TUPLES}
        if len(set(counts.values())) > 1 or not self.layers:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"stacks: {told} values; give one for every stack in each of them.")
        if self.features < 7 or min(self.layers + self.downsampling + self.heads) < 1 or self.output_downsampling < 1:
            raise ValueError("features, layers, downsampling, heads, output_downsampling: give at least 7 bands, and 1 of everything else.")
        if min(self.dims + self.feed_forward) < 4:
            raise ValueError(f"dims: {self.dims}, feed_forward: {self.feed_forward}; give at least 4, of which parts have 3/4 and 5/4.")
        if any(taps % 2 == 0 or taps < 1 for taps in self.kernels):
            raise ValueError(f"kernels: {self.kernels}; give odd numbers, so that a frame has as many on either side.")
        if any(not 0 < kept <= dim for kept, dim in zip(self.unmasked_dims, self.dims, strict=True)):
            raise ValueError(f"unmasked_dims: {self.unmasked_dims} of dims {self.dims}; give at least 1, and at most all of a stack.")
        for name in HEAD_DIMS:
            given = getattr(self, name)
            if not isinstance(given, int) and len(given) != len(self.layers):
                raise ValueError(f"{name}: {given}; give one number for all stacks, or one for each of the {len(self.layers)}.")
        smallest = min(dim for number in range(len(self.layers)) for dim in self.head_dims(number))
        if smallest < 1 or self.position_dim < 2 or self.position_dim % 2:
            raise ValueError("query_head_dim, value_head_dim, position_head_dim, position_dim: give at least 1, the last one even.")
        for chunk in self.chunk_sizes if self.causal else ():
            self.check_chunk(chunk)
        if self.causal and (not self.chunk_sizes or not self.left_context or any(left < -1 or left == 0 for left in self.left_context)):
            raise ValueError(f"left_context: {self.left_context}, chunk_sizes: {self.chunk_sizes}; give frames, or -1 for everything.")

    def head_dims(self, number: int) -> tuple[int, int, int]:
        """query_head_dim, value_head_dim and position_head_dim of a stack."""
        given = (self.query_head_dim, self.value_head_dim, self.position_head_dim)
        query, value, position = (each if isinstance(each, int) else each[number] for each in given)
        return query, value, position

    def check_chunk(self, chunk: int) -> None:
        """Whether a model can work in chunks of so many frames at 50 Hz; -1 for all at once.

        Raises:
            ValueError: it cannot.
        """
        steps = (*self.downsampling, self.output_downsampling)
        if chunk != -1 and (chunk < 1 or any(chunk % step for step in steps)):
            raise ValueError(f"chunk_size: {chunk} frames; give a multiple of each of {sorted(set(steps))}, or -1 for everything at once.")

    @property
    def dim(self) -> int:
        """Width of what comes out: that of the widest stack."""
        return max(self.dims)

    @property
    def rate(self) -> float:
        """Frames per second of what comes out."""
        return 50.0 / self.output_downsampling


SMALL = ZipformerConfig(
    layers=(2,) * 6,
    dims=(192, *(256,) * 5),
    feed_forward=(512, *(768,) * 5),
    unmasked_dims=(192,) * 6,
)
MEDIUM = ZipformerConfig()
LARGE = ZipformerConfig(
    layers=(2, 2, 4, 5, 4, 2),
    dims=(192, 256, 512, 768, 512, 256),
    feed_forward=(512, 768, 1536, 2048, 1536, 768),
    unmasked_dims=(192, 192, 256, 320, 256, 192),
)

"""Narrow lip encoders killed the process: oneDNN's backward pass of a 1 x 1 convolution with a stride, over fewer than 16 channels that lie
last in memory and an odd number of frames, writes beyond its buffers as soon as two threads share the work (torch 2.11, AVX-512)."""

import subprocess
import sys

SCRIPT = """
import torch
from avtlm.frontends.lips import BasicBlock

torch.set_num_threads(2)
for inputs, outputs in ((8, 12), (4, 6), (12, 16)):
    for _ in range(40):
        block = BasicBlock(inputs, outputs, 2, "relu")
        frames = torch.randn(11, inputs, 22, 22).contiguous(memory_format=torch.channels_last).requires_grad_()
        block(frames).square().mean().backward()
"""


def test_training_a_narrow_lip_encoder_on_two_threads_leaves_memory_alone() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_skipping_pixels_before_the_shortcut_is_the_same_as_a_stride_in_it() -> None:
    import torch
    import torch.nn.functional as F

    from avtlm.frontends.lips import BasicBlock

    torch.manual_seed(0)
    block, frames = BasicBlock(8, 12, 2, "prelu").eval(), torch.randn(3, 8, 11, 11)
    convolution, norm = block.shortcut  # type: ignore[misc]
    with torch.no_grad():
        y = block.norm2(block.conv2(block.activation1(block.norm1(block.conv1(frames)))))
        expected = block.activation2(y + norm(F.conv2d(frames, convolution.weight, stride=2)))
        torch.testing.assert_close(block(frames), expected)

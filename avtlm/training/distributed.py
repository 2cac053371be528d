"""Training on several processes with torch.distributed alone: who they are, how gradients meet, and how they tell each other things.

    torchrun --nproc-per-node 4 -m avtlm.cli train CONFIG accumulate=4

What is unusual here:
- An update is made of ``accumulate`` rounds, each with one batch of every drawn source; process r takes rounds r, r + N, ... So an update
  is the same on any number of processes, every process has a round in every step, and none ever waits for one that has no data left.
- DDP looks for parameters that a round leaves alone (text alone needs no lips). Sharded gradients need every parameter on every process:
  those a round leaves alone get zeros (`Shards.backward`), and those that all leave alone none, as on one process.
- FSDP2 shards the model as one group, because processes drop different layers at random. It saves the memory of the optimiser, of gradients
  after a step and of averages, not that of the weights during one.
"""

import contextlib
import gc
import importlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from avtlm.data.batching import Batch
from avtlm.objectives.loss import Loss
from avtlm.protocols import CombinesLosses
from avtlm.training.batch_norms import NormAverages
from avtlm.training.flops import UsefulWork

T = TypeVar("T")
Parallel = Literal["ddp", "fsdp"]


class ProcessLost(ValueError):  # noqa: N818 (named for what is wrong, as in the message)
    """Another process of the run has ended or does not answer any more."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run as one of them sees them; of a single one every method gives back what it got.

    Attributes:
        rank: number of this process; 0 writes and prints.
        count: how many there are.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    def gather(self, value: T) -> list[T]:
        """What every process gave, in the order of their numbers."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the tensors of all processes, in place."""
        if self.several:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Until all are here."""
        if self.several:
            self.gather(None)


def join(timeout: float, accumulate: int) -> Processes:
    """Join the processes that torchrun, or the variables RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR, speak of.

    Args:
        timeout: seconds that one process waits for the others before it gives up.
        accumulate: rounds of an update.

    Raises:
        ValueError: more processes than rounds, or than GPUs on this machine.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if count == 1:
        return Processes(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if accumulate < count:
        raise ValueError(
            f"accumulate: {accumulate} rounds in an update are too few for {count} processes; give {count} or a multiple, "
            "and a smaller max_frames where the update shall stay as large as it is."
        )
    device, backend = torch.device("cpu"), "gloo"
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ValueError(f"process {rank}: this machine has {torch.cuda.device_count()} GPUs; start one process for each.")
        device, backend = torch.device("cuda", local), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    if rank > 0:
        logging.getLogger("avtlm").setLevel(logging.ERROR)  # the first one speaks
    if not dist.is_initialized():
        # Its functions keep the group that there is when they are defined as a default, for as long as Python runs: there should be none.
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    return Processes(rank, count, device)


def leave() -> None:
    """Undo `join`, when nothing holds what was spread out any more.

    A thread of the group that still lets go of a tensor when Python ends would abort the process, however well it did. So the group
    is to be collected, which ends its threads; sharded tensors leave it in caches of theirs, and threads have at least to be done.
    """
    if not dist.is_initialized():
        return
    gc.collect()
    if dist.get_backend() == "gloo":
        with contextlib.suppress(RuntimeError):  # whoever is gone by now is done as well
            dist.barrier()  # which holds no tensors, behind all that do
    dist.destroy_process_group()


def is_loss_of_a_process(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and re.search(r"gloo|nccl|connection (closed|reset)|broken pipe|timed out|pair closure", str(error), re.I) is not None
    )


class Rounds(nn.Module):
    """A model whose forward pass is one round: what DDP and FSDP wrap, since they see one forward for one backward.

    ``found`` holds the losses of the last round by batch, for the log; ``work`` counts what they take.
    """

    def __init__(self, model: nn.Module, precision: str, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.precision, self.device = precision, device
        self.found: list[dict[str, Loss]] = []
        self.work = UsefulWork(model)
        self.norms: NormAverages | None = None
        self.used: set[str] | None = None

    def forward(self, batches: Sequence[Batch], generator: torch.Generator) -> Tensor:
        """The sum of all losses of a round, a scalar."""
        found: list[dict[str, Loss]] = []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            for batch in batches:
                if self.norms is not None:
                    self.norms.start_batch()
                with self.work.counting(batch):
                    found.append(self.model.losses(batch.to(self.device), generator))  # type: ignore[operator]
                if self.norms is not None:
                    self.norms.end_batch()
        self.found = self.model.combine(batches, found) if isinstance(self.model, CombinesLosses) else found
        total = torch.stack([loss.value for group in self.found for loss in group.values()]).sum()
        if self.used is not None:
            self.used |= _used(total, self.model)
        return total

    def count(self) -> Tensor:
        """What the losses of the last round are divided by."""
        return torch.stack([loss.count for group in self.found for loss in group.values()]).sum()


class Replicas:
    """The whole model on every process (DDP), or a single process.

    Attributes:
        numbers: names of parameters that are single numbers and have a dimension here.
    """

    def __init__(self, rounds: Rounds, processes: Processes) -> None:
        self.numbers: set[str] = set()
        self.rounds = rounds
        self.processes = processes
        self.engine: nn.Module = rounds
        if processes.several:
            self.engine = nn.parallel.DistributedDataParallel(rounds, broadcast_buffers=False, find_unused_parameters=True)

    def forward(self, batches: Sequence[Batch], generator: torch.Generator, last: bool) -> Tensor:
        """The sum of the losses of one round; ``last`` of this process in this step."""
        if isinstance(self.engine, nn.parallel.DistributedDataParallel):
            self.engine.require_backward_grad_sync = last  # what no_sync() sets, for forward and backward alike
        total: Tensor = self.engine(batches, generator)
        return total

    def backward(self, total: Tensor) -> None:
        """Gradients of one round; behind the last one they are the mean over processes."""
        total.backward()

    def finish(self) -> None:
        """Behind the last round of a step."""

    def divide(self, count: Tensor) -> None:
        """Make gradients of sums, which are means over processes by now, those of the sum over all processes divided by ``count``."""
        gradients = [local(parameter.grad) for parameter in self.rounds.model.parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, (self.processes.count / count).float())

    def gathered(self, gather: bool) -> None:
        """Have the whole model here, for a use outside of a step, and give it back."""


class Shards(Replicas):
    """A part of every parameter on every process (FSDP2)."""

    def __init__(self, rounds: Rounds, processes: Processes) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.numbers = set()
        self.rounds, self.processes = rounds, processes
        self.engine = rounds
        for name, parameter in list(rounds.model.named_parameters()):
            if parameter.dim() == 0:  # shards are parts of a first dimension
                where, _, own = name.rpartition(".")
                setattr(rounds.model.get_submodule(where), own, nn.Parameter(parameter.detach().reshape(1), parameter.requires_grad))
                self.numbers.add(name)
        self.shards = fully_shard(rounds, mesh=init_device_mesh(processes.device.type, (processes.count,)))
        self.shards.set_force_sum_reduction_for_comms(True)  # gloo knows no mean
        self.last = True

    def forward(self, batches: Sequence[Batch], generator: torch.Generator, last: bool) -> Tensor:
        self.last = last
        self.shards.set_requires_gradient_sync(last)
        self.shards.set_reshard_after_backward(last)
        if self.rounds.used is None:
            self.rounds.used = set()
        return super().forward(batches, generator, last)

    def backward(self, total: Tensor) -> None:
        if self.last:
            parameters = [parameter for parameter in self.rounds.model.parameters() if parameter.requires_grad]
            total = _AddZeros.apply(total, *parameters)
        total.backward()

    def finish(self) -> None:
        assert self.rounds.used is not None
        anywhere = set().union(*self.processes.gather(self.rounds.used))
        for name, parameter in self.rounds.model.named_parameters():
            if name not in anywhere:
                parameter.grad = None
        self.rounds.used = set()

    def gathered(self, gather: bool) -> None:
        if gather:
            self.shards.unshard()
        else:
            self.shards.reshard()


def spread_out(rounds: Rounds, processes: Processes, parallel: Parallel) -> Replicas:
    """Bring the processes' models together; they are equal so far. Parameters of shards are new ones."""
    if processes.several:
        rounds.norms = NormAverages(rounds.model)
    return Shards(rounds, processes) if parallel == "fsdp" and processes.several else Replicas(rounds, processes)


class _AddZeros(torch.autograd.Function):
    """A scalar, unchanged, behind which every given parameter gets a gradient, of zeros."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, total: Tensor, *parameters: Tensor) -> Tensor:
        ctx.shapes = [(part.shape, part.dtype, part.device) for part in parameters]  # type: ignore[attr-defined]
        return total.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shapes = ctx.shapes  # type: ignore[attr-defined]
        return gradient, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in shapes)


def _used(total: Tensor, model: nn.Module) -> set[str]:
    """Names of the parameters that a loss depends on."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: set[str] = set()
    nodes, seen = [total.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # of the node that accumulates a parameter's gradient
        if variable is not None and id(variable) in names:
            found.add(names[id(variable)])
        nodes += [following for following, _ in node.next_functions]
    return found


# Tensors of sharded models --------------------------------------------------------------------------------------------------------------


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards; every process has to ask for it, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What of a tensor is here."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, example: Tensor) -> Tensor:
    """A whole tensor on the device, and in the shards, of another one; without word from other processes, which hold the same."""
    tensor = tensor.to(example.device).reshape(example.shape if tensor.numel() == 1 else tensor.shape)
    if isinstance(example, DTensor):
        return distribute_tensor(tensor, example.device_mesh, example.placements, src_data_rank=None)
    return tensor

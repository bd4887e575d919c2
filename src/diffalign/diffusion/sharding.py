"""A denoiser whose layers are divided among processes, by PyTorch's FSDP2.

A layer is whole as long as it computes; before and after, each process holds its part. To make one whole is a
collective, so the processes first agree on which, and all bring their parts of that one:

    agree    on the greatest number of a layer that some process asks for; NONE once nobody asks any more
    gather   that layer, in all; those that did not ask let go of it again

So no process needs to know what the others do. They may make more batches than others, halve them where
memory runs out, or attend while one of them evaluates.

References: Zhao et al. (VLDB 2023), FSDP, https://arxiv.org/abs/2304.11277
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from diffalign.diffusion.fingerprint import fingerprint, remember
from diffalign.diffusion.pipeline import PipelineError, denoiser

NONE = -1
_ATTRIBUTE = "divided"  # of the denoiser


class DividedDenoiser:
    """A pipeline's denoiser of which this process holds a part, and which stays frozen from then on.

    Arguments:
        pipeline: any of diffusers', on the CPU if it fits nowhere else; all processes divide it at once.
        device: where this process computes, to which the pipeline is moved, the denoiser layer by layer.
        patience: how long a process waits for the others.

    Attributes:
        layers: that are divided; what is left of the denoiser is whole in every process.

    Raises:
        PipelineError: if the denoiser has no layers, or this PyTorch is too old.
    """

    def __init__(self, pipeline: Any, device: torch.device, patience: timedelta) -> None:
        before, network = fingerprint(pipeline), denoiser(pipeline)
        self.layers: list[Any] = layers_of(network)
        if not self.layers:
            raise PipelineError(f"a {type(network).__name__} has no blocks, so it cannot be divided")
        if not hasattr(FSDPModule, "reset_iter_state"):
            raise PipelineError(f"to divide a denoiser takes a newer PyTorch than {torch.__version__}")
        network.requires_grad_(False)
        self._group = distributed.new_group(backend="gloo", timeout=patience)  # on CPUs: no device waits
        self._used = set[int]()
        # a weight of each layer, as its module and name, since an adapter renames what it is put on
        self._weights = [next(_weights(layer)) for layer in self.layers]
        mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
        for number, layer in enumerate(self.layers):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            # before FSDP's own, which then find the layer whole
            layer.register_forward_pre_hook(partial(self._before_forward, number), prepend=True)
            layer.register_forward_hook(partial(self._after_forward, number), prepend=True)
        network.register_forward_pre_hook(self._forget_failures)
        vars(network)[_ATTRIBUTE] = self
        pipeline.to(device)
        remember(pipeline, before)

    @classmethod
    def of(cls, network: nn.Module) -> Self | None:
        """What a network was made; None if it is whole."""
        found: Self | None = vars(network).get(_ATTRIBUTE)
        return found

    def bring(self, number: int) -> None:
        """Makes a layer whole, for this process to compute with."""
        if not self._is_whole(number):
            while self._gather(number) != number:
                pass

    def attend(self) -> None:
        """Brings parts of what others ask for, until all attend: before other collectives, and at the end."""
        while self._gather(NONE) != NONE:
            pass

    def _gather(self, wanted: int) -> int:
        """Makes the layer whole that the processes agree on, and returns its number."""
        asked = torch.tensor(wanted)
        distributed.all_reduce(asked, distributed.ReduceOp.MAX, group=self._group)
        if (number := int(asked)) == NONE:
            return NONE
        layer, keep = self.layers[number], number == wanted or self._is_whole(number)
        layer.reshard()  # where it is whole too: all must gather
        try:
            with torch.inference_mode(False), torch.no_grad():  # gradients go through the same tensors later
                layer.unshard()
        except torch.OutOfMemoryError as error:  # which the others cannot know of
            raise PipelineError(
                "there is no room to make a layer of the denoiser whole; lower --micro-batch and --batch-size"
            ) from error
        if not keep:
            layer.reshard()
        return number

    def _is_whole(self, number: int) -> bool:
        return not isinstance(getattr(*self._weights[number]), DTensor)

    def _before_forward(self, number: int, *_: Any) -> None:
        self.bring(number)

    def _after_forward(self, number: int, module: nn.Module, args: Any, output: Any) -> None:
        self._used.add(number)
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: self.bring(number))

    def _forget_failures(self, *_: Any) -> None:
        """Puts right what FSDP remembers of a pass that ran out of memory."""
        for number in self._used:
            self.layers[number].reset_iter_state()


def layers_of(network: nn.Module) -> list[nn.Module]:
    """What is whole at a time: the innermost blocks that diffusers never splits, else those in its lists."""
    names = getattr(network, "_no_split_modules", None) or ()
    blocks = {module for module in network.modules() if type(module).__name__ in names}
    innermost = [block for block in network.modules() if blocks & {*block.modules()} == {block}]
    return [layer for layer in innermost or dict.fromkeys(_in_lists(network)) if any(_weights(layer))]


def _in_lists(module: nn.Module) -> Iterator[nn.Module]:
    """What the outermost lists hold."""
    for child in module.children():
        if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _in_lists(child)


def _weights(layer: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for module in layer.modules():
        yield from ((module, name) for name, _ in module.named_parameters(recurse=False))

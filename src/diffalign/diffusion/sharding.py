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
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from diffalign.diffusion.fingerprint import fingerprint, remember
from diffalign.diffusion.pipeline import PipelineError, denoiser

NONE = -1
_ATTRIBUTE = "shards"  # of the denoiser


class Shards:
    """The parts of a pipeline's denoiser that this process holds, of all started ones; it is frozen then.

    Arguments:
        pipeline: any of diffusers', wherever it is; it is moved to `device`, a layer at a time.
        device: where this process computes.
        patience: how long a process waits for the others.
    """

    def __init__(self, pipeline: Any, device: torch.device, patience: timedelta) -> None:
        before, network = fingerprint(pipeline), denoiser(pipeline)
        network.requires_grad_(False)
        self._group = distributed.new_group(backend="gloo", timeout=patience)  # on CPUs, as no device waits
        mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
        self._layers: list[Any] = layers_of(network)
        for number, layer in enumerate(self._layers):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            # those of FSDP come after, forward and backward, and find the layer whole
            layer.register_forward_pre_hook(partial(self._bring_in_forward, number), prepend=True)
            layer.register_forward_hook(partial(self._bring_in_backward, number), prepend=True)
        #: A weight of each, as its module and name: an adapter renames what it is put on.
        self._weights = [
            next((module, name) for module in layer.modules() for name, _ in module.named_parameters(recurse=False))
            for layer in self._layers
        ]
        self._used = set[int]()
        network.register_forward_pre_hook(self._forget_failures)
        vars(network)[_ATTRIBUTE] = self
        pipeline.to(device)
        remember(pipeline, before)

    @classmethod
    def of(cls, network: nn.Module) -> Self | None:
        """Those of a denoiser, if it is divided."""
        found: Self | None = vars(network).get(_ATTRIBUTE)
        return found

    def bring(self, number: int) -> None:
        """Makes a layer whole, for this process to compute with."""
        if not self._is_whole(number):
            while self._gather(number) != number:
                pass

    def attend(self) -> None:
        """Brings parts until all processes attend: what each does before any other collective, and at its end."""
        while self._gather(NONE) != NONE:
            pass

    def _gather(self, wanted: int) -> int:
        """Makes the layer whole that the processes agree on, and returns its number."""
        asked = torch.tensor(wanted)
        distributed.all_reduce(asked, distributed.ReduceOp.MAX, group=self._group)
        number = int(asked)
        if number == NONE:
            return NONE
        layer, keep = self._layers[number], number == wanted or self._is_whole(number)
        try:
            layer.reshard()  # where it is whole, as all must gather
            with torch.inference_mode(False), torch.no_grad():  # it is learned through too
                layer.unshard()
        except torch.OutOfMemoryError as error:  # the others wait for this part
            raise PipelineError(
                "there is no room for a whole layer of the divided denoiser; lower --micro-batch and "
                "--batch-size, or start more processes"
            ) from error
        if not keep:
            layer.reshard()
        return number

    def _is_whole(self, number: int) -> bool:
        return not isinstance(getattr(*self._weights[number]), DTensor)

    def _bring_in_forward(self, number: int, *_: Any) -> None:
        self.bring(number)

    def _bring_in_backward(self, number: int, module: nn.Module, args: Any, output: Any) -> None:
        self._used.add(number)
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: self.bring(number))

    def _forget_failures(self, *_: Any) -> None:
        """What a pass that ran out of memory left of itself."""
        for number in self._used:
            self._layers[number].reset_iter_state()


def layers_of(network: nn.Module) -> list[nn.Module]:
    """What is whole at a time: the innermost blocks that diffusers never splits, else the elements of lists."""
    names = getattr(network, "_no_split_modules", None) or ()
    blocks = {module for module in network.modules() if type(module).__name__ in names}
    innermost = [block for block in network.modules() if block in blocks and blocks & {*block.modules()} == {block}]
    found = innermost or dict.fromkeys(_elements(network))
    return [layer for layer in found if any(True for _ in layer.parameters())]


def _elements(module: nn.Module) -> Iterator[nn.Module]:
    """Those of the outermost lists."""
    for child in module.children():
        if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _elements(child)

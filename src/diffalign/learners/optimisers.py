"""Optimisers, and their state as named tensors."""

import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from diffalign.diffusion.finite import check_finite
from diffalign.settings.fields import ConfigError
from diffalign.settings.tune import TuneConfig


def left_out(round: int, taken: int, steps: int, mend: str = "lower the learning rate") -> str | None:
    """The warning of a round that left steps out, if it did."""
    if taken == steps:
        return None
    made = "made no optimiser step" if not taken else f"left out {steps - taken} of {steps} optimiser steps"
    return f"round {round} {made}: its gradients were no numbers; {mend}"


def take_step(
    optimiser: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], max_norm: float = math.inf
) -> bool:
    """Takes a step, unless a gradient is no number, which would make all weights none; returns whether.

    Arguments:
        max_norm: what the gradients' norm is scaled down to.

    Raises:
        NotFiniteError: if the step made a weight no number, as of too high a learning rate.
    """
    if not torch.nn.utils.clip_grad_norm_(parameters, max_norm).isfinite():
        return False
    optimiser.step()
    check_finite("weights", parameters)
    return True


def make_adamw(parameters: list[torch.nn.Parameter], config: TuneConfig) -> torch.optim.Optimizer:
    """AdamW, or bitsandbytes' with 8-bit moments.

    Raises:
        ConfigError: if bitsandbytes is asked for and not here.
    """
    kind: Any = torch.optim.AdamW
    if config.optimiser == "adamw8bit":
        try:
            kind = import_module("bitsandbytes").optim.AdamW8bit
        except ImportError as error:
            raise ConfigError("optimiser adamw8bit needs bitsandbytes: pip install bitsandbytes") from error
    optimiser: torch.optim.Optimizer = kind(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    return optimiser


def optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments and counts, as `prefix.parameter.name`; within nested states `name/name`."""

    def leaves(entry: Mapping[str, Any], path: str) -> Iterator[tuple[str, Tensor]]:
        for name, value in entry.items():
            if isinstance(value, Mapping):  # bitsandbytes'
                yield from leaves(value, f"{path}{name}/")
            else:
                yield path + name, torch.as_tensor(value)

    return {
        f"{prefix}.{index}.{name}": value
        for index, entry in optimiser.state_dict()["state"].items()
        for name, value in leaves(entry, "")
    }


def load_optimiser(prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores what `optimiser_tensors` returned."""
    entries: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            _, index, path = key.split(".", 2)
            entry = entries.setdefault(int(index), {})
            *outer, name = path.split("/")
            for level in outer:
                entry = entry.setdefault(level, {})
            # PyTorch counts steps in a float32 tensor, bitsandbytes in an int
            counts = value.dtype == torch.int64 and not value.ndim
            # a copy, as the optimiser changes its state in place
            entry[name] = value.item() if counts else value.clone()
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for number, moments in entries.items():  # which torch takes as they come
        for name in {"exp_avg", "exp_avg_sq"} & moments.keys():
            if moments[name].shape != parameters[number].shape:
                raise ValueError(f"{prefix}.{number}.{name} has the shape {tuple(moments[name].shape)}")
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})

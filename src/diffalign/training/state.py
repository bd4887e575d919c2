"""What a learner saves, as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments and counts, as `prefix.parameter.name`."""
    return {
        f"{prefix}.{index}.{name}": torch.as_tensor(value)
        for index, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
    }


def load_optimiser(prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores what `optimiser_tensors` returned."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            _, index, name = key.split(".", 2)
            entries.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})

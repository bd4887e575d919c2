"""What stops a run at values that are no numbers, before they are scored, learned from or saved."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from diffalign.diffusion.pipeline import PipelineError

#: What to do where a step of learning made them,
LOWER = "start again with a lower learning rate (--overwrite)"
#: or a network that looks at pictures.
FLOAT32 = "compute the network in float32, as on the device cpu"


class NotFiniteError(PipelineError):
    """Noise, latents, pictures, features or weights hold values that are no numbers."""


def remedy(dtype: torch.dtype) -> str:
    """What to do where a model in the precision `dtype` made them."""
    if dtype == torch.float16:
        return (
            "load the model in float32 or bfloat16 (--dtype, or in a run's config.yaml before --resume), or "
            "take another VAE: float16 overflows at 65504"
        )
    return "take a lower learning rate or guidance scale, if the model is sound"


def check_finite(what: str, values: Iterable[Tensor] | Mapping[str, Tensor], mend: str = LOWER) -> None:
    """Checks that all values are numbers.

    Arguments:
        what: their name, a plural.
        values: tensors, which may have names, or one with shape `(B, …)` of B samples.
        mend: what to do if they are not.

    Raises:
        NotFiniteError: if they are not.
    """
    named = values if isinstance(values, Mapping) else dict(enumerate(values))
    if bad := [name for name, value in named.items() if not value.isfinite().all()]:
        names = f" ({', '.join(map(str, bad))})" if isinstance(values, Mapping) else ""
        raise NotFiniteError(
            f"{len(bad)} of {len(named)} {what}{names} hold values that are no numbers; {mend}"
        )

"""What stops a run at values that are no numbers, before they are scored, learned from or saved."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from diffalign.diffusion.pipeline import PipelineError

#: What to do where a network that looks at pictures made them,
FLOAT32 = "compute the network in float32, as on the device cpu"
#: or a step of learning.
LOWER = "start again with a lower learning rate (--overwrite)"


class NotFiniteError(PipelineError):
    """Noise, latents, pictures, features or weights hold values that are no numbers."""


def check_finite(
    what: str, values: Iterable[Tensor] | Mapping[str, Tensor], mend: str | torch.dtype = LOWER
) -> None:
    """Checks that all values are numbers.

    Arguments:
        what: their name, a plural.
        values: tensors, which may have names, or one with shape `(B, …)` of B samples.
        mend: what to do, or the precision that they were computed in.

    Raises:
        NotFiniteError: if not.
    """
    tensors = values.values() if isinstance(values, Mapping) else values
    flags = [value.isfinite().all() for value in tensors]
    if (bad := sum(not flag for flag in flags)) == 0:
        return
    if isinstance(values, Mapping):
        what += f" ({', '.join(name for name, flag in zip(values, flags, strict=True) if not flag)})"
    if mend == torch.float16:
        mend = (
            "load the model in float32 or bfloat16 (a run's config.yaml may be changed before --resume), or "
            "take another VAE: float16 overflows at 65504"
        )
    elif isinstance(mend, torch.dtype):
        mend = "take a lower learning rate, if the model is sound"
    raise NotFiniteError(f"{bad} of {len(flags)} {what} hold values that are no numbers; {mend}")

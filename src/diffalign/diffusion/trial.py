"""A model tried out before a run, whatever its class: what noise methods need is measured, not looked up."""

import torch
from torch import Tensor

from diffalign.diffusion.pipeline import PipelineError, takes_ddim
from diffalign.diffusion.probe import PROMPT
from diffalign.diffusion.sampler import Sampler, seeded_noise
from diffalign.settings.choices import shortened

#: Shares of how far pictures of two noises are apart, below which two pictures of one noise are the same: of
#: rounding, which half precision has more of.
SAME, SAME_IN_HALF = 0.001, 0.05
LEAST = 1e-4  # mean difference of pixels in [0, 1] below which two pictures are the same, or one is blank


@torch.no_grad()
def try_out(sampler: Sampler, prompt: str = PROMPT) -> str | None:
    """Three pictures with all steps: says why they cannot be made again from their noise, if they cannot.

    A picture must depend on its noise, and on nothing else: not on the batch that it is made in, nor on noise
    that is drawn on the way.

    Raises:
        PipelineError: if the noise hardly changes the pictures, or they are blank.
        NotFiniteError: if noise or pictures hold values that are no numbers.
    """
    pipeline, noise = sampler.pipeline, seeded_noise(sampler.latent_shape, 0, "trial", range(2))
    with torch.random.fork_rng(devices=[]):
        first, second = sampler(noise, prompt)
        alone = sampler(noise[:1], prompt)[0]
    name = type(pipeline).__name__
    if _apart(first, first.mean()) < LEAST and _apart(second, second.mean()) < LEAST:
        raise PipelineError(
            f"{name} made two blank pictures of “{shortened(prompt)}”, which teach nothing: are its weights "
            "those of its class, and does its precision (--dtype) hold its values?"
        )
    moved = _apart(first, second)
    if moved < LEAST:
        raise PipelineError(
            f"two initial noises gave {name} the same picture (pixels differ by {moved:.1g}), so there is no "
            "noise to learn: is the picture given in its call?"
        )
    limit = moved * (SAME if pipeline.dtype == torch.float32 else SAME_IN_HALF)
    if _apart(first, alone) <= limit:
        return None
    again = sampler(noise[:1], prompt)[0]
    if _apart(alone, again) <= limit:
        return (
            f"a picture that {name} makes alone and in a batch is not the same: pictures and figures depend "
            "on the batch size"
        )
    advice = "; use --scheduler ddim" if takes_ddim(pipeline) else ""
    return (
        f"{type(pipeline.scheduler).__name__} adds noise on the way, so x_T does not determine the picture: "
        f"pictures and figures are not reproducible{advice}"
    )


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean())

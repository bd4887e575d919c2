"""How pictures are made, and how the model of an artefact is opened again."""

from dataclasses import dataclass
from typing import Literal

from diffalign.settings.fields import NotNegativeFloat, Positive, Settings

Dtype = Literal["float32", "float16", "bfloat16"]
Scheduler = Literal["keep", "ddim"]


@dataclass(frozen=True)
class Sampling(Settings):
    """How pictures are made.

    Attributes:
        model: The model: a name of `diffalign models`, the folder of a saved pipeline, or a hub name.
        num_steps: How many steps the sampler takes.
        guidance_scale: The scale of classifier-free guidance; the pipeline's own default if not given.
        batch_size: How many pictures are made at a time; it changes nothing but time and memory.
        scheduler: Which scheduler samples: the pipeline's own (keep), or DDIM, which the papers use.
        device: Where the model runs, such as cpu or cuda:0; the accelerator, if there is one, by default.
        dtype: The model's precision; float32 on a CPU and float16 elsewhere by default.
        reward_device: Where a reward that is a network runs; the pictures' device by default.
        offload: Whether the reward's network waits on the CPU while pictures are made.
    """

    model: str = "world"
    num_steps: Positive = 20
    guidance_scale: NotNegativeFloat | None = None
    batch_size: Positive = 16
    scheduler: Scheduler = "keep"
    device: str | None = None
    dtype: Dtype | None = None
    reward_device: str | None = None
    offload: bool = False


@dataclass(frozen=True)
class Opening(Settings):
    """How the model of an artefact is opened; all else is as it was when the artefact was learned.

    Attributes:
        model: The model, where it is not found by the name that was recorded.
        batch_size: How many pictures are made at a time.
        device: Where the model runs, such as cpu or cuda:0; the accelerator, if there is one, by default.
        dtype: The precision; by default that of learning, and on a CPU float32 instead of float16.
    """

    model: str | None = None
    batch_size: Positive = 16
    device: str | None = None
    dtype: Dtype | None = None

"""What a denoiser is told beside x_t and t, for the families of pipelines whose denoiser can be tuned.

A family is an encoder from a prompt to the denoiser's own arguments, and a row of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from diffalign.diffusion.pipeline import PipelineError, denoiser
from diffalign.diffusion.sampler import Sampler

#: The denoiser's arguments for one prompt, each with a batch of 1; a dot leads into a dictionary.
Arguments = dict[str, Tensor]


def _stable_diffusion(pipeline: Any, prompt: str, size: tuple[int, int]) -> tuple[Arguments, Arguments]:
    embeds, negative = pipeline.encode_prompt(prompt, pipeline.device, 1, True)[:2]
    return {"encoder_hidden_states": embeds}, {"encoder_hidden_states": negative}


def _stable_diffusion_xl(pipeline: Any, prompt: str, size: tuple[int, int]) -> tuple[Arguments, Arguments]:
    embeds, negative, pooled, negative_pooled = pipeline.encode_prompt(
        prompt, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    encoder = pipeline.text_encoder_2
    width = pooled.shape[-1] if encoder is None else encoder.config.projection_dim
    time_ids = pipeline._get_add_time_ids(
        size, (0, 0), size, dtype=embeds.dtype, text_encoder_projection_dim=width
    ).to(pipeline.device)
    each = ((embeds, pooled), (negative, negative_pooled))
    conditional, unconditional = (
        {
            "encoder_hidden_states": states,
            "added_cond_kwargs.text_embeds": text_embeds,
            "added_cond_kwargs.time_ids": time_ids,
        }
        for states, text_embeds in each
    )
    return conditional, unconditional


def _pixart(pipeline: Any, prompt: str, size: tuple[int, int]) -> tuple[Arguments, Arguments]:
    embeds, mask, negative, negative_mask = pipeline.encode_prompt(
        prompt, device=pipeline.device, clean_caption=True
    )  # as its call does
    each = ((embeds, mask), (negative, negative_mask))
    added: Arguments = {}
    if pipeline.transformer.use_additional_conditions:
        row = {"device": pipeline.device, "dtype": embeds.dtype}
        added["added_cond_kwargs.resolution"] = torch.tensor([list(map(float, size))], **row)
        added["added_cond_kwargs.aspect_ratio"] = torch.tensor([[size[0] / size[1]]], **row)
    conditional, unconditional = (
        {"encoder_hidden_states": states, "encoder_attention_mask": attended, **added}
        for states, attended in each
    )
    return conditional, unconditional


#: By the name of the pipeline's class.
FAMILIES: dict[str, Callable[[Any, str, tuple[int, int]], tuple[Arguments, Arguments]]] = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
}


class GuidedDenoiser:
    """A pipeline's denoiser with classifier-free guidance, from prompts; each is encoded once.

    Arguments:
        sampler: its pipeline, of one of `FAMILIES`, and its guidance; 1 or less does not guide.

    Raises:
        PipelineError: if the pipeline is of no known family, or is told more than a prompt.
    """

    def __init__(self, sampler: Sampler) -> None:
        pipeline: Any = sampler.pipeline
        name = type(pipeline).__name__
        if name not in FAMILIES:
            raise PipelineError(
                f"the denoiser of a {name} cannot be tuned, only those of {', '.join(FAMILIES)}; "
                "find learns the initial noise of any pipeline instead"
            )
        if told := sampler.told():
            raise PipelineError(f"tuning knows no {', '.join(told)}; leave it out of the sampler")
        self.pipeline, self.network = pipeline, denoiser(pipeline)
        self.guidance_scale: Final = sampler.guidance_scale or 1.0
        self.guided: Final = self.guidance_scale > 1
        self._encode = FAMILIES[name]
        height, width = (size * pipeline.vae_scale_factor for size in sampler.latent_shape[-2:])
        self._size = (height, width)
        self._known: dict[str, tuple[Arguments, Arguments]] = {}

    def __call__(self, x_t: Tensor, t: int, prompts: Sequence[str]) -> Tensor:
        """The guided prediction `(B, *latent)`, float32, at x_t with shape `(B, *latent)`."""
        dtype, device = self.pipeline.dtype, self.pipeline.device
        sample = torch.cat([x_t, x_t]) if self.guided else x_t
        timestep = torch.full((len(sample),), t, device=device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            prediction = self.network(
                sample.to(dtype), timestep=timestep, **self._arguments(prompts), return_dict=False
            )[0].float()
        if prediction.shape[1] == 2 * x_t.shape[1]:  # a learned variance, which DDIM does not use
            prediction = prediction.chunk(2, 1)[0]
        if not self.guided:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _arguments(self, prompts: Sequence[str]) -> dict[str, Any]:
        for prompt in set(prompts) - self._known.keys():
            with torch.no_grad():
                self._known[prompt] = self._encode(self.pipeline, prompt, self._size)
        rows = [self._known[prompt] for prompt in prompts]
        told = [row[1] for row in rows] * self.guided + [row[0] for row in rows]
        arguments: dict[str, Any] = {}
        for name in told[0]:
            outer, _, inner = name.partition(".")
            joined = torch.cat([row[name] for row in told])
            if inner:
                arguments.setdefault(outer, {})[inner] = joined
            else:
                arguments[outer] = joined
        return arguments


@torch.no_grad()
def prompt_states(pipeline: Any, prompt: str) -> Tensor:
    """The text encoder's token states of `prompt`, float32 with shape `(L, d)`, those of padding left out
    where the denoiser does not see them either.

    Raises:
        PipelineError: if the pipeline is of no known family.
    """
    name = type(pipeline).__name__
    if name not in FAMILIES:
        raise PipelineError(f"a {name}'s prompts cannot be read, only those of {', '.join(FAMILIES)}")
    network: Any = denoiser(pipeline)
    size = pipeline.vae_scale_factor * network.config.sample_size
    arguments = FAMILIES[name](pipeline, prompt, (size, size))[0]
    states = arguments["encoder_hidden_states"][0]
    if "encoder_attention_mask" in arguments:
        states = states[arguments["encoder_attention_mask"][0].bool()]
    return states.float().cpu()

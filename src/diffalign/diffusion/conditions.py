"""The denoiser's inputs beside x_t and t, for the families of pipelines whose denoiser can be tuned.

A family is a function from a prompt to arguments of the denoiser, and a row of `FAMILIES`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.diffusion.finite import check_finite, remedy
from diffalign.diffusion.pipeline import PipelineError, denoiser
from diffalign.diffusion.protocol import Pipeline
from diffalign.diffusion.sampler import Sampler

#: The denoiser's arguments for one prompt, each with a batch of 1; a dot leads into a dictionary.
Arguments = dict[str, Tensor]
#: Height and width of pictures, in pixels.
Size = tuple[int, int]


#: Of a pipeline, prompt, size and, if one is given, `negative_prompt`: the arguments of the prompt, and those
#: of the negative prompt.
Encoder = Callable[..., tuple[Arguments, Arguments]]


def _stable_diffusion(pipeline: Any, prompt: str, size: Size, **given: str) -> tuple[Arguments, Arguments]:
    embeds, negative = pipeline.encode_prompt(prompt, pipeline.device, 1, True, **given)[:2]
    return {"encoder_hidden_states": embeds}, {"encoder_hidden_states": negative}


def _stable_diffusion_xl(pipeline: Any, prompt: str, size: Size, **given: str) -> tuple[Arguments, Arguments]:
    embeds, negative, pooled, negative_pooled = pipeline.encode_prompt(
        prompt, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=True, **given
    )
    encoder = pipeline.text_encoder_2
    width = pooled.shape[-1] if encoder is None else encoder.config.projection_dim
    time_ids = pipeline._get_add_time_ids(
        size, (0, 0), size, dtype=embeds.dtype, text_encoder_projection_dim=width
    ).to(pipeline.device)
    shared: Arguments = {"added_cond_kwargs.time_ids": time_ids}
    return (
        {"encoder_hidden_states": embeds, "added_cond_kwargs.text_embeds": pooled, **shared},
        {"encoder_hidden_states": negative, "added_cond_kwargs.text_embeds": negative_pooled, **shared},
    )


def _pixart(pipeline: Any, prompt: str, size: Size, **given: str) -> tuple[Arguments, Arguments]:
    embeds, mask, negative, negative_mask = pipeline.encode_prompt(
        prompt, device=pipeline.device, clean_caption=True, **given
    )  # as its call does
    added: Arguments = {}
    if pipeline.transformer.use_additional_conditions:
        options = {"device": pipeline.device, "dtype": embeds.dtype}
        added["added_cond_kwargs.resolution"] = torch.tensor([list(map(float, size))], **options)
        added["added_cond_kwargs.aspect_ratio"] = torch.tensor([[size[0] / size[1]]], **options)
    return (
        {"encoder_hidden_states": embeds, "encoder_attention_mask": mask, **added},
        {"encoder_hidden_states": negative, "encoder_attention_mask": negative_mask, **added},
    )


#: By the name of the pipeline's class, or of one that it is derived from.
FAMILIES: dict[str, Encoder] = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
}


def _encoder(pipeline: Pipeline) -> Encoder:
    bases = [base.__name__ for base in type(pipeline).__mro__]
    name = next(filter(FAMILIES.__contains__, bases), None)
    if name is None:
        raise PipelineError(
            f"a {bases[0]}'s denoiser cannot be tuned nor its prompts read, only those of "
            f"{', '.join(FAMILIES)}; find learns the initial noise of any pipeline instead"
        )
    return FAMILIES[name]


class GuidedDenoiser:
    """A pipeline's denoiser with classifier-free guidance, from prompts; each prompt is encoded once.

    Arguments:
        sampler: with a pipeline of one of `FAMILIES`; a guidance scale of 1 or less does not guide.

    Raises:
        PipelineError: if the pipeline is of no known family, or if the sampler conditions it on more than a
            prompt and a negative one.
    """

    def __init__(self, sampler: Sampler) -> None:
        pipeline: Any = sampler.pipeline
        self._encode = _encoder(pipeline)
        given = sampler.given.get("negative_prompt")
        self._negative = {} if given is None else {"negative_prompt": given}
        if extra := [name for name in sampler.extra_conditions() if name != "negative_prompt"]:
            raise PipelineError(f"tuning knows no {', '.join(extra)}; leave it out of the sampler")
        self.pipeline, self.network = pipeline, denoiser(pipeline)
        self.guidance_scale, self.guided = sampler.guidance_scale or 1.0, sampler.guided
        height, width = sampler.latent_shape[-2:]
        self._size = height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor
        self._encoded: dict[str, tuple[Arguments, Arguments]] = {}

    def __call__(self, x_t: Tensor, t: int, prompts: Sequence[str]) -> Tensor:
        """The guided prediction `(B, *latent)`, float32, at x_t with shape `(B, *latent)`."""
        dtype, device = self.pipeline.dtype, self.pipeline.device
        sample = torch.cat([x_t, x_t]) if self.guided else x_t
        timestep = torch.full((len(sample),), t, device=device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            prediction: Tensor = self.network(
                sample.to(dtype), timestep=timestep, **self._arguments(prompts), return_dict=False
            )[0].float()
        if prediction.shape[1] == 2 * x_t.shape[1]:  # a learned variance, which DDIM does not use
            prediction = prediction.chunk(2, 1)[0]
        if not self.guided:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _arguments(self, prompts: Sequence[str]) -> dict[str, Any]:
        """The denoiser's keyword arguments for a batch: first the unconditional half, if guided."""
        for prompt in set(prompts) - self._encoded.keys():
            with torch.no_grad():
                self._encoded[prompt] = self._encode(self.pipeline, prompt, self._size, **self._negative)
        encoded = [self._encoded[prompt] for prompt in prompts]
        batch = [negative for _, negative in encoded] * self.guided + [positive for positive, _ in encoded]
        arguments: dict[str, Any] = {}
        for name in batch[0]:
            outer, _, inner = name.partition(".")
            joined = torch.cat([sample[name] for sample in batch])
            if inner:
                arguments.setdefault(outer, {})[inner] = joined
            else:
                arguments[outer] = joined
        return arguments


@torch.no_grad()
def prompt_states(pipeline: Any, prompt: str) -> Tensor:
    """The text encoder's token states of `prompt`, float32 on the CPU with shape `(L, d)`.

    States of padding are left out where the denoiser does not see them either.

    Raises:
        PipelineError: if the pipeline is of no known family.
        NotFiniteError: if a state holds values that are no numbers.
    """
    encode = _encoder(pipeline)
    network: Any = denoiser(pipeline)
    side = pipeline.vae_scale_factor * network.config.sample_size
    arguments = encode(pipeline, prompt, (side, side))[0]
    states = arguments["encoder_hidden_states"][0]
    if "encoder_attention_mask" in arguments:
        states = states[arguments["encoder_attention_mask"][0].bool()]
    check_finite("token states", states, remedy(pipeline.dtype))
    return states.float().cpu()

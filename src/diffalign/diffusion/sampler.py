"""From initial noise to pictures, through any diffusers pipeline that takes `latents=`."""

import hashlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from diffalign.diffusion.cards import card_of
from diffalign.diffusion.finite import check_finite, remedy
from diffalign.diffusion.pipeline import PipelineError, latent_shape, own_timesteps, takes_ddim
from diffalign.diffusion.protocol import Pipeline
from diffalign.settings.choices import unknown

_NOT_GIVEN = ("self", "kwargs", "prompt", "latents", "num_inference_steps", "output_type", "return_dict")
_SEED_BYTES = 7  # of a hash: as many as fit into a signed seed of 64 bits


def seeded_noise(shape: Sequence[int], seed: int, stream: str, indices: Sequence[int]) -> Tensor:
    """Standard normal noise with shape `(len(indices), *shape)`, float32 on the CPU.

    Each sample has a generator seeded by (`seed`, `stream`, index), so that it does not depend on the batch
    in which it is drawn. Different streams ("train", "evaluate" …) share no sample.

    Arguments:
        shape: of one sample.
        indices: which samples of the stream.
    """
    keys = [hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest() for index in indices]
    seeds = [int.from_bytes(key[:_SEED_BYTES], "big") for key in keys]
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


class Sampler:
    """The deterministic environment of a noise policy: x_0 = DDIM(x_T, c) with η = 0.

    Prompt embeddings are computed once for each prompt; pictures are made in batches.

    Arguments:
        pipeline: any diffusers pipeline whose call takes `latents=`.
        num_steps: sampler steps T.
        guidance_scale: classifier-free guidance; None takes the model card's, or the pipeline's default.
        batch_size: pictures per call of the pipeline.
        call: further arguments of the pipeline's call, such as `height` or `num_frames`.

    Raises:
        PipelineError: if a number is not positive, the scheduler cannot take as many steps, the pipeline
            takes no latents, or its call has no argument of a name in `call`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        num_steps: int = 20,
        guidance_scale: float | None = None,
        batch_size: int = 16,
        **call: Any,
    ) -> None:
        if num_steps < 1 or batch_size < 1:
            raise PipelineError(
                f"num_steps and batch_size must be positive, not {num_steps} and {batch_size}"
            )
        if takes_ddim(pipeline):
            own_timesteps(pipeline, num_steps)
        self.pipeline: Final = pipeline
        self.num_steps: Final = num_steps
        self.batch_size: Final = batch_size
        #: the further arguments of the call
        self.given: Final = dict(call)
        self._steps = num_steps  # as the scheduler took them
        parameters = inspect.signature(type(pipeline).__call__).parameters
        if "num_inference_steps" in parameters:  # diffusers swallows unknown names where it takes **kwargs
            known = [name for name in parameters if name not in _NOT_GIVEN]
            for name in call:
                if name not in known:
                    raise PipelineError(unknown(f"argument of {type(pipeline).__name__}'s call", name, known))
        self.latent_shape: Final = latent_shape(pipeline, **call)
        self._call = dict(call, num_inference_steps=num_steps, output_type="pt")
        card = card_of(pipeline)
        if guidance_scale is None and card is not None:
            guidance_scale = card.guidance_scale
        if guidance_scale is not None:
            self._call["guidance_scale"] = guidance_scale
        default = getattr(parameters.get("guidance_scale"), "default", None)
        self.guidance_scale: Final = default if guidance_scale is None else guidance_scale
        self.guided: Final = self.guidance_scale is not None and self.guidance_scale > 1
        self._repeats = "num_images_per_prompt" in parameters  # video pipelines have no such argument
        self._encode_prompt = _simple_encoder(pipeline) if "prompt_embeds" in parameters else None
        #: arguments of the call that change the embeddings, and so are given to `encode_prompt` instead
        self.encoding = {
            name: self._call.pop(name)
            for name in ("negative_prompt", "clip_skip")
            if self._encode_prompt is not None and name in self._call
        }
        self._conditions: dict[str, dict[str, Tensor]] = {}
        if hasattr(pipeline, "set_progress_bar_config"):
            pipeline.set_progress_bar_config(disable=True)

    def with_steps(self, num_steps: int) -> "Sampler":
        """The same, but for the number of steps."""
        return Sampler(
            self.pipeline,
            num_steps=num_steps,
            guidance_scale=self.guidance_scale,
            batch_size=self.batch_size,
            **self.given,
        )

    @property
    def forwards(self) -> int:
        """Denoiser evaluations for a picture: a scheduler may take more steps than `num_steps`."""
        return self._steps * (2 if self.guided else 1)

    def extra_conditions(self) -> list[str]:
        """Names of the call's arguments that condition the denoiser, beside prompt and guidance."""
        known = {"num_inference_steps", "output_type", "guidance_scale", "height", "width"}
        known.add("use_resolution_binning")  # changes height and width alone
        return sorted((self._call.keys() - known) | self.encoding.keys())

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        """The pipeline's arguments that carry `prompts`: their embeddings where the pipeline takes them."""
        if self._encode_prompt is None:
            return {"prompt": list(prompts)}
        names = ("prompt_embeds", "negative_prompt_embeds") if self.guided else ("prompt_embeds",)
        for prompt in set(prompts) - self._conditions.keys():
            with torch.no_grad():
                both = self._encode_prompt(prompt, self.pipeline.device, 1, self.guided, **self.encoding)
            self._conditions[prompt] = dict(zip(names, both, strict=False))
        return {name: torch.cat([self._conditions[prompt][name] for prompt in prompts]) for name in names}

    def __call__(self, x_T: Tensor, prompt: str | Sequence[str]) -> Tensor:
        """Pictures with shape `(B, 3, H, W)` (video `(B, F, 3, H, W)`), float32 in [0, 1].

        Arguments:
            x_T: initial noise with shape `(B, *latent_shape)`.
            prompt: one for all samples, or a list with one for each sample.

        Raises:
            PipelineError: if the noise does not fit the pipeline or the prompts, or if the pipeline's safety
                checker blackens all of several pictures; of fewer it warns.
            NotFiniteError: if noise or pictures hold values that are no numbers.
        """
        if tuple(x_T.shape[1:]) != self.latent_shape:
            raise PipelineError(
                f"noise of shape {tuple(x_T.shape[1:])}; this pipeline's latents have {self.latent_shape}"
            )
        prompts = [prompt] * len(x_T) if isinstance(prompt, str) else prompt
        if len(prompts) != len(x_T):
            raise PipelineError(f"{len(x_T)} samples need one prompt or {len(x_T)}, not {len(prompts)}")
        check_finite("noises", x_T, "give other noise")
        batches, blackened = [], 0
        with torch.inference_mode():
            for start in range(0, len(x_T), self.batch_size):
                batch = slice(start, start + self.batch_size)
                latents = x_T[batch].to(self.pipeline.device, self.pipeline.dtype)
                if isinstance(prompt, str) and self._repeats:
                    condition = {**self.encode([prompt]), "num_images_per_prompt": len(latents)}
                else:
                    condition = self.encode(prompts[batch])
                with decoding_checked(self.pipeline):
                    output = self.pipeline(**condition, latents=latents, **self._call)
                blackened += sum(getattr(output, "nsfw_content_detected", None) or [])
                pictures = torch.as_tensor(output.images if hasattr(output, "images") else output.frames)
                check_finite("pictures", pictures, remedy(self.pipeline.dtype))
                batches.append(pictures.float())
        if blackened:
            self._warn_of_black(blackened, len(x_T))
        timesteps = getattr(self.pipeline.scheduler, "timesteps", None)
        self._steps = self.num_steps if timesteps is None else len(timesteps)
        # joined outside inference mode, so that rewards may record gradients
        return torch.cat(batches)

    def _warn_of_black(self, blackened: int, pictures: int) -> None:
        said = (
            f"the pipeline's safety checker made {blackened} of {pictures} pictures black, and scored so; "
            "where you need no checker, set pipeline.safety_checker = None (and save the pipeline so)"
        )
        if blackened == pictures > 1:
            raise PipelineError(said)
        warnings.warn(said, stacklevel=3)


@contextmanager
def decoding_checked(pipeline: Any) -> Iterator[None]:
    """Within it latents and pictures that are no numbers are refused where they meet the decoder: afterwards
    infinite pixels would be white or black ones, and scored.

    Raises:
        NotFiniteError: within, if there are some.
    """

    def check(decoder: Any, given: tuple[Any, ...], made: Any) -> None:
        for what, values in (("latents", given[0] if given else None), ("pictures", made)):
            if isinstance(values, Tensor):
                check_finite(what, values, remedy(pipeline.dtype))

    vae = getattr(pipeline, "vae", None) or getattr(pipeline, "movq", None)
    decoder = getattr(vae, "decoder", None)
    if not isinstance(decoder, torch.nn.Module):
        yield
        return
    handle = decoder.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _simple_encoder(pipeline: Pipeline) -> Callable[..., tuple[Tensor, ...]] | None:
    """`encode_prompt` if it has Stable Diffusion's form: (prompt, device, num, guided) → (c, negative)."""
    encode: Callable[..., tuple[Tensor, ...]] | None = getattr(pipeline, "encode_prompt", None)
    names = [] if encode is None else list(inspect.signature(encode).parameters)
    simple = names[:4] == ["prompt", "device", "num_images_per_prompt", "do_classifier_free_guidance"]
    return encode if simple and "prompt_2" not in names else None

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
from diffalign.diffusion.encoding import Encodings, by_prompt, texts
from diffalign.diffusion.faults import said
from diffalign.diffusion.finite import check_finite, remedy
from diffalign.diffusion.memory import Fitting
from diffalign.diffusion.packing import Grid
from diffalign.diffusion.pipeline import PipelineError, autoencoder, own_timesteps, takes_ddim
from diffalign.diffusion.probe import Latents, latents_of
from diffalign.diffusion.protocol import Pipeline
from diffalign.settings.choices import unknown
from diffalign.settings.sampling import OWN

_OUTPUTS = "images", "frames"
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
    """The environment of a noise policy: from x_T and a prompt to pictures, by the pipeline's own call.

    Prompt embeddings are computed once for each prompt; pictures are made in batches.

    Arguments:
        pipeline: any diffusers pipeline whose call takes `latents=`.
        num_steps: sampler steps T.
        guidance_scale: classifier-free guidance; None takes the model card's, or the pipeline's default.
        batch_size: pictures per call of the pipeline; halved where memory runs out.
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
        self.fitting: Final = Fitting(batch_size)
        self._steps = num_steps  # as the scheduler took them
        card = card_of(pipeline)
        if card is not None:
            call = {**card.call, **call}
        #: the further arguments of the call
        self.given: Final = dict(call)
        parameters = inspect.signature(type(pipeline).__call__).parameters
        if "num_inference_steps" in parameters:  # diffusers swallows unknown names where it takes **kwargs
            known = [name for name in parameters if name not in ("self", "kwargs", *OWN)]
            for name in call:
                if name not in known:
                    raise PipelineError(unknown(f"argument of {type(pipeline).__name__}'s call", name, known))
        self.makes_videos: Final = "num_frames" in parameters
        #: what the call is given beside prompt and latents
        self.arguments: Final = dict(call)
        if guidance_scale is None and card is not None:
            guidance_scale = card.guidance_scale
        if guidance_scale is not None:
            self.arguments["guidance_scale"] = guidance_scale
        default = getattr(parameters.get("guidance_scale"), "default", None)
        self.guidance_scale: Final = default if guidance_scale is None else guidance_scale
        guided = self.guidance_scale is not None and self.guidance_scale > 1
        #: denoiser evaluations of a step and sample: a guess, until a call has counted them
        self.passes = 2 if guided else 1
        self.encodings: Final = Encodings()
        with self.encodings.of(pipeline):
            self.latents: Final[Latents] = latents_of(pipeline, **call)
        self.latent_shape: Final = self.latents.shape
        self.grid: Final[Grid] = self.latents.grid
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
        return self._steps * self.passes

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
        with torch.inference_mode():
            return self.pictures(x_T, prompts, self._make)

    def pictures(
        self, latents: Tensor, prompts: Sequence[str], make: Callable[[Tensor, Sequence[str]], Any]
    ) -> Tensor:
        """The pictures, checked, that `make` has in its output for each batch of latents and prompts."""
        blackened = 0

        def checked(latents: Tensor, prompts: Sequence[str]) -> Tensor:
            """Of one batch."""
            nonlocal blackened
            try:
                with decoding_checked(self.pipeline):
                    output = make(latents, prompts)
            except NotImplementedError as error:  # as Allegro's decoder says of what is not tiled
                raise PipelineError(
                    f"{type(self.pipeline).__name__} makes no pictures as it is ({error}); what it lacks is "
                    "set otherwise, such as --tiling, in Python pipeline.vae.enable_tiling()"
                ) from error
            except TypeError as error:
                if not self.given:
                    raise
                given = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
                raise PipelineError(
                    f"{type(self.pipeline).__name__}'s call cannot do with {given}: {said(error)}; give a "
                    "number where it takes one"
                ) from error
            blackened += sum(getattr(output, "nsfw_content_detected", None) or [])
            found = next((part for part in _OUTPUTS if hasattr(output, part)), None)
            if found is None:
                made = ", ".join(vars(output)) or "nothing"
                raise PipelineError(
                    f"{type(self.pipeline).__name__} makes {made}, neither images nor frames, of which alone "
                    "there are rewards"
                )
            pictures = torch.as_tensor(getattr(output, found))
            check_finite("pictures", pictures, remedy(self.pipeline.dtype))
            return pictures.float()

        made = [
            *self.fitting.batches(
                lambda batch: by_prompt(checked, latents[batch], prompts[batch]), len(latents)
            )
        ]
        if blackened:
            self._warn_of_black(blackened, len(latents))
        # joined outside inference mode, so that rewards may record gradients
        with torch.inference_mode(False):
            return torch.cat(made)

    def _make(self, latents: Tensor, prompts: Sequence[str]) -> Any:
        """The pipeline's output for one batch."""
        with self.encodings.of(self.pipeline), rows_given(self.pipeline) as rows:
            output = self.pipeline(
                **texts(prompts, self.arguments),
                latents=latents.to(self.pipeline.device, self.pipeline.dtype),
                num_inference_steps=self.num_steps,
                output_type="pt",
            )
        timesteps = getattr(self.pipeline.scheduler, "timesteps", None)
        self._steps = self.num_steps if timesteps is None else len(timesteps)
        self.count(rows, len(latents) * self._steps)
        return output

    def count(self, rows: Sequence[int], samples: int) -> None:
        """Learns how many of the denoiser's `rows` a step of a sample takes, of so many."""
        if rows:
            self.passes = max(1, round(sum(rows) / samples))

    def _warn_of_black(self, blackened: int, pictures: int) -> None:
        said = (
            f"the pipeline's safety checker made {blackened} of {pictures} pictures black, and scored so; "
            "where you need no checker, set pipeline.safety_checker = None (and save the pipeline so)"
        )
        if blackened == pictures > 1:
            raise PipelineError(said)
        warnings.warn(said, stacklevel=3)


@contextmanager
def rows_given(pipeline: Any) -> Iterator[list[int]]:
    """Within it, how many samples each call of the pipeline's denoiser is given: for guidance it may be given
    two of each, be called twice, or take the scale as an argument."""
    rows: list[int] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        latents = args[0] if args else next(iter(kwargs.values()))  # of Z-Image a list
        rows.append(len(latents))

    names = "unet", "transformer", "transformer_2"
    networks = [part for name in names if isinstance(part := getattr(pipeline, name, None), torch.nn.Module)]
    handles = [network.register_forward_pre_hook(note, with_kwargs=True) for network in networks]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


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

    decoder = getattr(autoencoder(pipeline), "decoder", None)
    if not isinstance(decoder, torch.nn.Module):
        yield
        return
    handle = decoder.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()

"""A pipeline's own call, one step at a time: what a policy needs to decide at each, for every family.

The call itself computes guidance, conditions, packing and whatever else its family does. A scheduler of one
step stands in for the pipeline's: it takes latents as they are given, and hands out what it is handed.

    predict    x_t → the call with timesteps = (t,)  → what the denoiser predicts, guidance included
    decode     x_0 → the call with timesteps = ()    → pictures
"""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from diffalign.diffusion.encoding import by_prompt, texts
from diffalign.diffusion.finite import check_finite
from diffalign.diffusion.pipeline import PipelineError
from diffalign.diffusion.probe import first_forward
from diffalign.diffusion.sampler import Sampler, rows_given


class OneStep:
    """Stands in for a scheduler in one call of its pipeline.

    Arguments:
        scheduler: the pipeline's, a copy.
        timesteps: that the call visits, at most one.
        answers: what follows a step: the "prediction" at it, or the "latents" before it.

    Attributes:
        prediction, sample: what the step was given last.
    """

    init_noise_sigma, order = 1.0, 1

    def __init__(self, scheduler: Any, timesteps: Tensor, answers: str) -> None:
        self._scheduler, self.timesteps, self._answers = scheduler, timesteps, answers
        self.config = scheduler.config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def scale_model_input(self, sample: Tensor, *args: Any) -> Tensor:
        """Latents are scaled already."""
        return sample

    def step(self, prediction: Tensor, t: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The answer, in the form that the caller reads."""
        self.prediction, self.sample = prediction, sample
        answer = prediction if self._answers == "prediction" else sample
        if kwargs.get("return_dict", True):
            return SimpleNamespace(prev_sample=answer, pred_original_sample=answer)
        return answer, answer  # LCM's has two parts, and others read the first


class PipelineSteps:
    """The predictions and the decoder of a sampler's pipeline.

    Arguments:
        sampler: whose call is made, with all of its arguments.

    Attributes:
        scheduler: a copy of the pipeline's, whose timesteps are set as the call sets them.
        device, dtype: the pipeline's.

    Raises:
        PipelineError: if the call has no denoiser.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.pipeline = sampler, sampler.pipeline
        with sampler.encodings.of(self.pipeline):
            first_forward(self.pipeline, num_inference_steps=sampler.num_steps, **sampler.arguments)
        self.scheduler: Any = deepcopy(self.pipeline.scheduler)
        # which a pipeline looks up in all of its modules
        self.device, self.dtype = torch.device(self.pipeline.device), self.pipeline.dtype
        self._call = inspect.unwrap(type(self.pipeline).__call__)  # without no_grad
        self._empty, self._checked = True, False
        self._order: Tensor | None = None

    def predict(self, x_t: Tensor, t: Tensor, prompts: Sequence[str]) -> Tensor:
        """What the denoiser predicts, guidance included: `(B, *latent)`, float32, with its gradient.

        Arguments:
            x_t: latents `(B, *latent)`.
            t: the timestep, `(1,)`.
            prompts: one a sample.

        Raises:
            PipelineError: if the pipeline changes latents after a step, or packs them in no way known here.
        """

        def predict(x_t: Tensor, prompts: Sequence[str]) -> Tensor:
            """Of samples that can be one batch."""
            whole = self.dtype == torch.float32
            with nullcontext() if whole else torch.autocast(self.device.type, self.dtype):
                made: Tensor = self._run(t, "prediction", x_t, prompts, output_type="latent")[0]
            if not self._checked:
                self._check_kept(made)
            if made.shape != x_t.shape:
                made = self._unpacked(x_t, prompts)
            return made.float()

        return by_prompt(predict, x_t, prompts)

    def _check_kept(self, made: Tensor) -> None:
        """Refuses a pipeline that changes latents after a step; it may move their elements."""
        given, kept = (x.detach().float().norm() for x in (self._last.prediction, made))
        if not torch.isclose(given, kept, rtol=1e-4 if self.dtype == torch.float32 else 1e-2):
            raise PipelineError(
                f"{type(self.pipeline).__name__} changes latents after each step, as inpainting puts the "
                "picture's own back, so its steps are no Gaussian decisions; find learns its noise"
            )
        self._checked = True

    def _unpacked(self, x_t: Tensor, prompts: Sequence[str]) -> Tensor:
        """The last prediction as latents lie, of a pipeline that packs what it is given, such as FLUX.2's."""
        prediction = self._last.prediction
        if prediction.numel() != x_t.numel():
            raise PipelineError(
                f"{type(self.pipeline).__name__} takes latents of shape {tuple(x_t.shape[1:])} and predicts "
                f"{tuple(prediction.shape[1:])}, so its denoiser cannot be tuned; find learns its noise"
            )
        if self._order is None:
            self._order = self._packing(x_t.shape[1:], prompts[0])
        return prediction.flatten(1)[:, self._order].view_as(x_t)

    @torch.no_grad()
    def _packing(self, shape: torch.Size, prompt: str) -> Tensor:
        """Where each element of a packed latent lay before: numbers are packed digit by digit, each of which
        half precision holds."""
        numbers = torch.arange(shape.numel(), device=self.device).view(1, *shape)
        packed, base = torch.zeros(shape.numel(), dtype=torch.long, device=self.device), 1
        while base < shape.numel():
            self._run(
                self.scheduler.timesteps[:1],
                "prediction",
                numbers // base % 128,
                [prompt],
                output_type="latent",
            )
            packed += base * self._last.sample.flatten().round().long()
            base *= 128
        return packed.argsort()

    def decode(self, x_0: Tensor, prompts: Sequence[str]) -> Tensor:
        """Pictures of final latents, as `Sampler` makes them.

        Raises:
            NotFiniteError: if a picture holds values that are no numbers.
            PipelineError: if the pipeline's safety checker blackens all of several.
        """
        check_finite("latents", x_0, "give other latents")
        return self.sampler.pictures(x_0, prompts, self._decode)

    def _decode(self, x_0: Tensor, prompts: Sequence[str]) -> Any:
        none = self.scheduler.timesteps[:0]
        if self._empty:
            try:
                return self._run(none, "latents", x_0, prompts, output_type="pt")[1]
            except (LookupError, NameError):  # what the loop sets is read after it, as LCM's call does
                self._empty = False
        return self._run(self.scheduler.timesteps[-1:], "latents", x_0, prompts, output_type="pt")[1]

    def _run(
        self, timesteps: Tensor, answers: str, latents: Tensor, prompts: Sequence[str], **call: Any
    ) -> tuple[Any, Any]:
        """The first part of the call's output, and all of it."""
        pipeline, own = self.pipeline, self.pipeline.scheduler
        # of the object's own dictionary: a pipeline would note the class of what is assigned
        self._last = vars(pipeline)["scheduler"] = OneStep(self.scheduler, timesteps.to(self.device), answers)
        try:
            with self.sampler.encodings.of(pipeline), rows_given(pipeline) as rows:
                output = self._call(
                    pipeline,
                    **texts(prompts, self.sampler.arguments),
                    latents=latents.to(self.device, self.dtype),
                    num_inference_steps=self.sampler.num_steps,
                    **call,
                )
            self.sampler.count(rows, len(latents))
        finally:
            vars(pipeline)["scheduler"] = own
        return output[0], output

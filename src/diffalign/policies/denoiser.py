r"""The denoiser as a policy.   p_θ(x_{t−1} | x_t, c) = N(m_θ(x_t, c, t), s_t² I)

One decision a step of the sampler that has noise. Guidance is part of the mean: m_θ is that of the guided
prediction. θ is a LoRA adapter of the denoiser, or all of its weights.

References: Black et al. (ICLR 2024), section 4.3, https://arxiv.org/abs/2305.13301
            Hu et al. (ICLR 2022), LoRA, https://arxiv.org/abs/2106.09685
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from diffalign.diffusion import PipelineError, Sampler
from diffalign.diffusion.finite import check_finite
from diffalign.diffusion.learned_adapter import add_adapter, remove_adapter, save_adapter, switch_adapter
from diffalign.diffusion.pipeline import denoiser
from diffalign.diffusion.steps import PipelineSteps
from diffalign.diffusion.transition import Schedule

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
_OTHERS = ["proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut"]
#: Ends of the names of the layers that an adapter is put on, in UNets and transformers.
TARGETS = {"attention": _ATTENTION, "all": _ATTENTION + _OTHERS}
#: Of these, in layers that mix frames, those that are no single layers, or that diffusers calls as no adapter
#: can be called.
_NOT_ADAPTED = r".*(temp_convs\..*|motion_modules\..*\.proj_(in|out))"


class DenoiserPolicy(nn.Module):
    """The Gaussian decisions of a pipeline's denoiser.

    Arguments:
        sampler: the pipeline, its steps and its guidance.
        eta: η, the size of the noise in each step.
        sde: where it comes from, as `Schedule` has it.
        rank: of the LoRA adapter; 0 tunes all weights.
        targets: which layers get an adapter, a name of `TARGETS`.
        gradient_checkpointing: whether activations are computed twice instead of kept.
        seed: of the adapter's first weights.

    Raises:
        PipelineError: if its scheduler is of no kind known here, no layer takes an adapter, or there are two
            denoisers.
    """

    __call__: Callable[..., tuple[Tensor, float]]

    def __init__(
        self,
        sampler: Sampler,
        *,
        eta: float = 1.0,
        sde: str = "ddim",
        rank: int = 4,
        targets: str = "attention",
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not rank and sampler.pipeline.dtype != torch.float32:
            raise PipelineError(
                f"all weights are tuned in float32, as {sampler.pipeline.dtype} loses small steps; load the "
                "model in float32, or tune an adapter (lora_rank above 0)"
            )
        if isinstance(getattr(sampler.pipeline, "transformer_2", None), nn.Module):
            raise PipelineError(
                f"this {type(sampler.pipeline).__name__} has two denoisers, each of some steps, of which one "
                "alone would be tuned; find learns its noise"
            )
        self.sampler, self.eta, self.rank = sampler, eta, rank
        self.steps = PipelineSteps(sampler)
        self.schedule = Schedule(self.steps.scheduler, sde)
        self.timesteps, self.decisions = self.schedule.timesteps, self.schedule.decisions
        self.stds = [self.schedule.std(step, eta) for step in range(len(self.timesteps))]
        network: Any = denoiser(sampler.pipeline)
        self.denoiser: Any = network
        parts = [part for part in vars(sampler.pipeline).values() if isinstance(part, nn.Module)]
        trainable = [p for part in parts for p in part.parameters() if p.requires_grad]
        if rank:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                # as published: PEFT's own first weights make the first steps 5 to 14 times smaller
                config = LoraConfig(
                    r=rank,
                    lora_alpha=rank,
                    target_modules=TARGETS[targets],
                    exclude_modules=_NOT_ADAPTED,
                    init_lora_weights="gaussian",
                )
                add_adapter(sampler.pipeline, config)
        self._trainable, self._checkpoints = trainable, gradient_checkpointing
        for parameter in trainable:  # of a ControlNet too, whose gradients nobody reads
            parameter.requires_grad_(False)
        network.eval()
        if gradient_checkpointing:
            network.enable_gradient_checkpointing()
        if rank:
            for parameter in self.learned():
                parameter.data = parameter.data.float()  # small steps are lost in half precision
        else:
            network.requires_grad_(True)
            self._first = [parameter.detach().clone() for parameter in self.learned()]

    def __repr__(self) -> str:
        kind = f"an adapter of rank {self.rank}" if self.rank else "all weights"
        return f"DenoiserPolicy({type(self.sampler.pipeline).__name__}, {kind})"

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return self.steps.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the denoiser computes in; learned weights and latents stay float32."""
        return self.steps.dtype

    def learned(self) -> list[nn.Parameter]:
        """The parameters that are learned, in a fixed order."""
        return [parameter for parameter in self.denoiser.parameters() if parameter.requires_grad]

    def forward(
        self, x_t: Tensor, step: int, prompts: Sequence[str], eta: float | None = None
    ) -> tuple[Tensor, float]:
        """Mean `(B, *latent)`, float32, and standard deviation of step `step`, counted from the noise.

        Arguments:
            x_t: the latents before the step with shape `(B, *latent)`.
            prompts: one a sample.
            eta: another η, such as 0 of the pipeline's own ordinary equation.
        """
        prediction = self.steps.predict(x_t, self.timesteps[step : step + 1], prompts)
        return self.schedule.transition(prediction, step, x_t, self.eta if eta is None else eta)

    @torch.no_grad()
    def pretrained(self, x_t: Tensor, step: int, prompts: Sequence[str]) -> tuple[Tensor, float]:
        """What `forward` was before any learning."""
        with self.frozen():
            return self(x_t, step, prompts)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it the pipeline is as it was before any learning: the adapter is off, or all weights are
        the first ones."""
        self._learned(False)
        try:
            yield
        finally:
            self._learned(True)

    def _learned(self, on: bool) -> None:
        """Turns what was learned on or off."""
        if self.rank:
            switch_adapter(self.sampler.pipeline, on)
            return
        for parameter, first in zip(self.learned(), self._first, strict=True):
            parameter.data, first.data = first.data, parameter.data

    def unload(self) -> None:
        """Gives the pipeline back as it was: without the adapter, or with its first weights. What was learned
        is lost, unless `save` was called before."""
        if self.rank:
            remove_adapter(self.sampler.pipeline)
        else:
            for parameter, first in zip(self.learned(), self._first, strict=True):
                parameter.data = first
            self.denoiser.requires_grad_(False)
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        if self._checkpoints:
            self.denoiser.disable_gradient_checkpointing()

    @torch.no_grad()
    def decode(self, x_0: Tensor, prompts: Sequence[str]) -> Tensor:
        """Pictures `(B, 3, H, W)`, float32 in [0, 1] on the CPU, of final latents, made by the pipeline.

        Raises:
            NotFiniteError: if a picture holds values that are no numbers.
        """
        return self.steps.decode(x_0, prompts).cpu()

    def save(self, folder: Path) -> None:
        """Writes the adapter as `pipeline.load_lora_weights(folder)` reads it, or all weights.

        Where the pipeline reads none, it is as `PeftModel.from_pretrained(denoiser, folder)` reads it.

        Raises:
            NotFiniteError: if a weight is no number.
        """
        check_finite("weights", self.learned())
        if not self.rank:
            self.denoiser.save_pretrained(folder, safe_serialization=True)
            return
        save_adapter(self.sampler.pipeline, folder)

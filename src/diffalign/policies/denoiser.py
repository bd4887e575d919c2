r"""The denoiser as a policy.   p_θ(x_{t−1} | x_t, c) = N(m_θ(x_t, c, t), s_t² I),   DDIM with η

One decision a sampler step. Guidance is part of the mean: m_θ is that of the guided prediction. θ is a
LoRA adapter of the denoiser, or all of its weights.

References: Black et al. (ICLR 2024), section 4.3, https://arxiv.org/abs/2305.13301
            Hu et al. (ICLR 2022), LoRA, https://arxiv.org/abs/2106.09685
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from diffalign.diffusion import PipelineError, Sampler
from diffalign.diffusion.conditions import GuidedDenoiser
from diffalign.diffusion.finite import check_finite, remedy
from diffalign.diffusion.pipeline import denoiser_name
from diffalign.diffusion.transition import Schedule

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_OTHERS = ["proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut"]
#: Ends of the names of the layers that an adapter is put on, in UNets and transformers.
TARGETS = {"attention": _ATTENTION, "all": _ATTENTION + _OTHERS}


class DenoiserPolicy(nn.Module):
    """The Gaussian decisions of a pipeline's denoiser.

    Arguments:
        sampler: the pipeline, its steps and its guidance.
        eta: η, the share of DDPM's noise in each step.
        rank: of the LoRA adapter; 0 tunes all weights.
        targets: which layers get an adapter, a name of `TARGETS`.
        gradient_checkpointing: whether activations are computed twice instead of kept.
        seed: of the adapter's first weights.

    Raises:
        PipelineError: if the pipeline's conditions or its scheduler are not of a kind known here.
    """

    __call__: Callable[..., tuple[Tensor, float]]

    def __init__(
        self,
        sampler: Sampler,
        *,
        eta: float = 1.0,
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
        self.sampler, self.eta, self.rank, self.guided = sampler, eta, rank, sampler.guided
        self.schedule = Schedule(sampler.pipeline, sampler.num_steps)
        self.timesteps = self.schedule.timesteps
        self.stds = [self.schedule.std(step, eta) for step in range(len(self.timesteps))]
        self.guide = GuidedDenoiser(sampler)
        network: Any = self.guide.network
        self.denoiser: Any = network
        if getattr(network, "peft_config", None):
            raise PipelineError(
                "this pipeline's denoiser has an adapter already; load the pipeline anew, or call "
                "pipeline.unload_lora_weights()"
            )
        if rank and not hasattr(network, "add_adapter"):
            kind = type(network).__name__
            raise PipelineError(f"diffusers puts no adapter on a {kind}; lora_rank 0 tunes all its weights")
        network.eval().requires_grad_(rank == 0)
        if gradient_checkpointing:
            network.enable_gradient_checkpointing()
        if rank:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                # as published: PEFT's own first weights make the first steps 5 to 14 times smaller
                network.add_adapter(
                    LoraConfig(
                        r=rank,
                        lora_alpha=rank,
                        target_modules=TARGETS[targets],
                        init_lora_weights="gaussian",
                    )
                )
            for parameter in self.learned():
                parameter.data = parameter.data.float()  # small steps are lost in half precision
        else:
            self._first = [parameter.detach().clone() for parameter in self.learned()]

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return torch.device(self.sampler.pipeline.device)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the denoiser computes in; learned weights and latents stay float32."""
        return self.sampler.pipeline.dtype

    def learned(self) -> list[nn.Parameter]:
        """The parameters that are learned, in a fixed order."""
        return [parameter for parameter in self.denoiser.parameters() if parameter.requires_grad]

    def forward(self, x_t: Tensor, step: int, prompts: Sequence[str]) -> tuple[Tensor, float]:
        """Mean `(B, *latent)`, float32, and standard deviation of decision `step`, counted from the noise.

        Arguments:
            x_t: the latents before the step with shape `(B, *latent)`.
            prompts: one a sample.
        """
        prediction = self.guide(x_t, self.timesteps[step], prompts)
        return self.schedule.transition(prediction, step, x_t, self.eta)

    @torch.no_grad()
    def pretrained(self, x_t: Tensor, step: int, prompts: Sequence[str]) -> tuple[Tensor, float]:
        """What `forward` was before any learning."""
        with self.frozen():
            return self(x_t, step, prompts)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it the pipeline is as it was before any learning: the adapter is off, or all weights are
        the first ones."""
        before, after = self._swap, self._swap
        if self.rank:
            before, after = self.denoiser.disable_adapters, self.denoiser.enable_adapters
        before()
        try:
            yield
        finally:
            after()

    def _swap(self) -> None:
        for parameter, first in zip(self.learned(), self._first, strict=True):
            parameter.data, first.data = first.data, parameter.data

    def unload(self) -> None:
        """Gives the pipeline back as it was: without the adapter, or with its first weights. What was learned
        is lost, unless `save` was called before."""
        pipeline: Any = self.sampler.pipeline
        if self.rank:
            pipeline.unload_lora_weights()
        else:
            for parameter, first in zip(self.learned(), self._first, strict=True):
                parameter.data = first

    @torch.no_grad()
    def decode(self, x_0: Tensor) -> Tensor:
        """Pictures `(B, 3, H, W)`, float32 in [0, 1], of final latents.

        Raises:
            NotFiniteError: if a picture holds values that are no numbers.
        """
        pipeline: Any = self.sampler.pipeline
        vae = pipeline.vae
        # SDXL's overflows in half precision, and its pipeline does the same
        upcast = hasattr(pipeline, "upcast_vae") and vae.dtype == torch.float16 and vae.config.force_upcast
        if upcast:
            vae.to(torch.float32)
        latents = x_0.to(vae.dtype) / vae.config.scaling_factor
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if (
            hasattr(pipeline, "upcast_vae") and mean is not None and std is not None
        ):  # SDXL's alone reads them
            mean, std = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
            latents = latents * std + mean
        pictures: Tensor = vae.decode(latents).sample.float()
        if upcast:
            vae.to(torch.float16)
        check_finite("pictures", pictures, remedy(self.dtype))
        return (pictures / 2 + 0.5).clamp(0, 1).cpu()

    def save(self, folder: Path) -> None:
        """Writes the adapter as `pipeline.load_lora_weights(folder)` reads it, or all weights.

        Raises:
            NotFiniteError: if a weight is no number.
        """
        check_finite("weights", self.learned())
        if not self.rank:
            self.denoiser.save_pretrained(folder, safe_serialization=True)
            return
        pipeline: Any = self.sampler.pipeline
        layers = get_peft_model_state_dict(self.denoiser)
        pipeline.save_lora_weights(folder, **{f"{denoiser_name(pipeline)}_lora_layers": layers})

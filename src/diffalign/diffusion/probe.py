"""What a pipeline's call does before its first step, learned from the call itself: it is stopped there."""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffalign.diffusion.encoding import Encodings, texts
from diffalign.diffusion.faults import said
from diffalign.diffusion.finite import check_finite, remedy
from diffalign.diffusion.packing import Grid
from diffalign.diffusion.pipeline import PipelineError, denoiser
from diffalign.diffusion.protocol import Pipeline

PROMPT = "a"  # of calls that no picture comes from
#: By what names denoisers are given the states of a prompt's tokens, and which of them are no padding.
_STATES = "encoder_hidden_states", "cap_feats"
_MASKS = "encoder_attention_mask", "encoder_hidden_states_mask", "text_embedding_mask"


class _Stopped(BaseException):
    """Ends a call once what is asked of it is known; no pipeline catches it."""


@dataclass(frozen=True)
class Latents:
    """The initial noise that a pipeline takes.

    Attributes:
        shape: of one, without the batch: `(C, H, W)`, video `(C, F, H, W)`, or packed `(F·h·w, C)`.
        drawn: the shape in which the pipeline itself draws it, before it is packed.
    """

    shape: tuple[int, ...]
    drawn: tuple[int, ...]

    @property
    def grid(self) -> Grid:
        """Height and width of packed latents in tokens; None of others."""
        if len(self.shape) != 2 or len(self.drawn) < 3:
            return None
        height, width = self.drawn[-2:]
        frames = self.drawn[-3] if len(self.drawn) == 4 and self.drawn[0] != 1 else 1
        patch = round((frames * height * width / self.shape[0]) ** 0.5)
        grid = height // patch, width // patch
        return grid if frames * grid[0] * grid[1] == self.shape[0] else None


def latents_of(pipeline: Pipeline, **call: Any) -> Latents:
    """The initial noise that the pipeline takes with these arguments of its call.

    Raises:
        PipelineError: if the pipeline takes or prepares no latents, or its call fails before it does.
    """
    prepare = getattr(pipeline, "prepare_latents", None)
    parameters = inspect.signature(type(pipeline).__call__).parameters
    if "num_inference_steps" in parameters and "prompt" not in parameters:
        raise PipelineError(
            f"{type(pipeline).__name__} takes no prompt: models of classes, of nothing, or of pictures alone "
            "are not aligned with text"
        )
    # some that take none swallow them among **kwargs, such as image to image
    if prepare is None or ("num_inference_steps" in parameters and "latents" not in parameters):
        raise PipelineError(f"{type(pipeline).__name__} takes no latents=, so its noise cannot be learned")

    def prepared(**more: Any) -> tuple[int, ...] | None:
        """The shape of what the call prepares, if it does."""
        shapes: list[tuple[int, ...]] = []

        def spy(*args: Any, **kwargs: Any) -> None:
            made = prepare(*args, **kwargs)
            shapes.append(tuple((made[0] if isinstance(made, tuple) else made).shape[1:]))
            raise _Stopped

        vars(pipeline)["prepare_latents"] = spy  # of the object, where it hides the class's method
        try:
            _call(pipeline, **more, **call)
        finally:
            del vars(pipeline)["prepare_latents"]
        return shapes[0] if shapes else None

    with _draws(pipeline) as drawn:
        shape = prepared()
    if shape is None:
        raise PipelineError(f"{type(pipeline).__name__} prepared no latents")
    first = tuple(drawn[0][1:]) if drawn else shape
    if first != shape and not _takes(prepared, shape):  # FLUX.2 packs what it is given
        shape = first
    return Latents(shape, first)


def _takes(prepared: Callable[..., tuple[int, ...] | None], shape: Sequence[int]) -> bool:
    """Whether latents of a shape are taken as they are."""
    try:
        return prepared(latents=torch.zeros(1, *shape)) == tuple(shape)
    except PipelineError:
        return False


def first_forward(pipeline: Pipeline, prompt: str = PROMPT, **call: Any) -> dict[str, Any]:
    """The arguments of the denoiser's first forward pass, by name; the scheduler's timesteps are set then.

    Raises:
        PipelineError: if the call has no denoiser, or fails before.
    """
    network, seen = denoiser(pipeline), list[dict[str, Any]]()

    def stop(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments))
        raise _Stopped

    handle = network.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        _call(pipeline, prompt, **call)
    finally:
        handle.remove()
    if not seen:
        raise PipelineError(f"{type(pipeline).__name__} never calls its {type(network).__name__}")
    return seen[0]


@torch.no_grad()
def prompt_states(pipeline: Pipeline, prompt: str, **call: Any) -> Tensor:
    """The token states of `prompt` that the denoiser is given, float32 on the CPU with shape `(L, d)`.

    States of padding are left out where the denoiser does not see them either.

    Arguments:
        call: arguments without which the pipeline cannot be called, such as `image`.

    Raises:
        PipelineError: if the denoiser is given none, or the call fails before.
        NotFiniteError: if a state holds values that are no numbers.
    """
    if "guidance_scale" in inspect.signature(type(pipeline).__call__).parameters:
        call = {**call, "guidance_scale": 1.0}  # without the states of a negative prompt
    given = first_forward(pipeline, prompt, **call)
    found = next((given[name] for name in _STATES if given.get(name) is not None), None)
    if found is None:
        raise PipelineError(
            f"a {type(pipeline).__name__}'s denoiser is given no token states of a prompt, which a generator "
            "reads; find learns the initial noise of any pipeline instead"
        )
    states: Tensor = found[0] if isinstance(found, list) else found[-1]
    mask = next((given[name] for name in _MASKS if given.get(name) is not None), None)
    if mask is not None and mask.shape[1:] == states.shape[:1]:
        states = states[mask[-1].bool()]
    states = states.flatten(0, -2)
    check_finite("token states", states, remedy(pipeline.dtype))
    return states.float().cpu()


def _call(pipeline: Any, prompt: str = PROMPT, **call: Any) -> None:
    """The call, until it is stopped."""
    given = {"num_inference_steps": 2, "output_type": "latent", **call}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), Encodings().of(pipeline):
            pipeline(**texts([prompt], given))
    except _Stopped:
        pass
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        names = sorted(call.keys() - {"num_inference_steps", "output_type", "latents"})
        raise PipelineError(
            f"{type(pipeline).__name__} cannot be called with a prompt and "
            f"{', '.join(names) or 'nothing else'} ({said(error)}); "
            "arguments of its call are given as --call name=value, in Python as call={...}"
        ) from error


@contextmanager
def _draws(pipeline: Pipeline) -> Iterator[list[Sequence[int]]]:
    """Within it, the shapes of the noise that diffusers' pipelines draw."""
    shapes: list[Sequence[int]] = []
    modules: set[Any] = {sys.modules[base.__module__] for base in type(pipeline).__mro__}
    own = [(module, module.randn_tensor) for module in modules if hasattr(module, "randn_tensor")]

    def noting(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def drawn(shape: Sequence[int], *args: Any, **kwargs: Any) -> Tensor:
            shapes.append(tuple(shape))
            return draw(shape, *args, **kwargs)

        return drawn

    for module, draw in own:
        module.randn_tensor = noting(draw)
    try:
        yield shapes
    finally:
        for module, draw in own:
            module.randn_tensor = draw

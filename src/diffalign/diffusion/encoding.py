"""Prompts encoded once each, for every pipeline with an `encode_prompt`, without a word about its family."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from diffalign.diffusion.protocol import Pipeline
from diffalign.settings.choices import shortened

#: Encodings that are kept: of a large encoder each takes megabytes beside the denoiser.
KEPT = 512
#: Attributes of modules that accelerate or diffusers move by themselves, as `enable_model_cpu_offload` asks.
_MOVED = "_hf_hook", "_diffusers_hook"


class Ragged(Exception):
    """Prompts whose encodings have other lengths, which can be no batch: each is a batch of its own."""


class Encodings:
    """What a pipeline's `encode_prompt` made of each prompt, encoded alone.

    A prompt's encoding so depends on no other: some pipelines pad a batch to its longest prompt, and not all
    of them mask the padding. A new adapter, encoder or token of a text encoder makes all encodings anew. The
    last `KEPT` are kept.
    """

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}  # the one that was asked for last at the end
        self._of: tuple[Any, ...] = ()

    @contextmanager
    def of(self, pipeline: Pipeline) -> Iterator[None]:
        """Within it the pipeline encodes no prompt twice."""
        encode: Callable[..., Any] | None = getattr(pipeline, "encode_prompt", None)
        if encode is None or "encode_prompt" in vars(pipeline):
            yield
            return
        if (encoders := _encoders(pipeline)) != self._of:
            self._known, self._of = {}, encoders
        vars(pipeline)["encode_prompt"] = self._remembering(encode, pipeline)  # hides the class's method
        try:
            yield
        finally:
            del vars(pipeline)["encode_prompt"]

    def _remembering(self, encode: Callable[..., Any], pipeline: Pipeline) -> Callable[..., Any]:
        signature = inspect.signature(encode)

        def once(*args: Any, **kwargs: Any) -> Any:
            """What `encode` returns, of each prompt but once."""
            with ExitStack() as stack:
                return encoded(stack, *args, **kwargs)

        def encoded(stack: ExitStack, *args: Any, **kwargs: Any) -> Any:
            """The same, with text encoders that stay until `stack` is closed."""
            bound = signature.bind(*args, **kwargs)
            prompts, others = bound.arguments.get("prompt"), dict(bound.arguments)
            others.pop("prompt", None)
            if isinstance(prompts, str):
                prompts = [prompts]
            if not prompts or any(isinstance(value, Tensor) for value in others.values()):
                stack.enter_context(_at_hand(pipeline))
                return encode(*args, **kwargs)  # it is given what it would encode
            texts = {
                name: value
                for name, value in others.items()
                if "prompt" in name and isinstance(value, list) and len(value) == len(prompts)
            }
            each = []
            for i, prompt in enumerate(prompts):
                own = {name: [value[i]] for name, value in texts.items()}
                key = repr((prompt, others | own))
                if key in self._known:
                    known = self._known.pop(key)
                else:
                    stack.enter_context(_at_hand(pipeline))
                    bound.arguments.update(own, prompt=[prompt])
                    # the states are learned from too, which tensors of inference mode cannot be
                    with torch.inference_mode(False), torch.no_grad(), _exactly():
                        known = encode(*bound.args, **bound.kwargs)
                self._known[key] = known  # the last
                if len(self._known) > KEPT:
                    del self._known[next(iter(self._known))]
                each.append(known)
            return _joined(each)

        return once


def text_encoders(pipeline: Any) -> dict[str, nn.Module]:
    """The pipeline's networks that read text, by name."""
    return {
        name: part
        for name, part in vars(pipeline).items()
        if name.startswith("text_encoder") and isinstance(part, nn.Module)
    }


@contextmanager
def _at_hand(pipeline: Any) -> Iterator[None]:
    """Within it text encoders that wait on the CPU, as `load_pipeline(offload=True)` leaves them, are where
    the pipeline computes."""
    waiting = [
        encoder
        for encoder in text_encoders(pipeline).values()
        if pipeline.device.type != "cpu"
        and all(p.device.type == "cpu" for p in encoder.parameters())
        and not any(hasattr(module, hook) for module in encoder.modules() for hook in _MOVED)
    ]
    for encoder in waiting:
        encoder.to(pipeline.device)
    try:
        yield
    finally:
        for encoder in waiting:
            encoder.to("cpu")
        if waiting:
            clear_device_cache()


@contextmanager
def _exactly() -> Iterator[None]:
    """Without autocast, as the pipeline itself encodes."""
    with torch.autocast("cpu", enabled=False):
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if device is None:
            yield
        else:
            with torch.autocast(device.type, enabled=False):
                yield


def _encoders(pipeline: Any) -> tuple[Any, ...]:
    """What tells whether text would be encoded otherwise than before."""
    parts = [part for name, part in vars(pipeline).items() if name.startswith(("text_encoder", "tokenizer"))]
    return tuple(
        (
            id(part),
            len(part) if hasattr(part, "__len__") else None,
            tuple(getattr(part, "peft_config", ())),
            str(getattr(part, "dtype", None)),
        )
        for part in parts
    )


def _joined(each: Sequence[Any]) -> Any:
    """Encodings of one prompt each as that of all: lists and tensors with a batch of 1 are joined. Others,
    such as positions, are the same for all."""
    first = each[0]
    if len(each) == 1 or first is None:
        return first
    if isinstance(first, tuple):
        return tuple(_joined(part) for part in zip(*each, strict=True))
    if isinstance(first, list):
        return [item for part in each for item in part]
    if not isinstance(first, Tensor) or first.shape[:1] != (1,):
        return first
    if any(part.shape != first.shape for part in each):
        raise Ragged
    return torch.cat(list(each))


def unread(pipeline: Any, prompts: Sequence[str]) -> str | None:
    """A warning of prompts of which no tokenizer of the pipeline knows a word, if there are any."""
    tokenizers = [part for name, part in vars(pipeline).items() if name.startswith("tokenizer")]
    tokenizers = [part for part in tokenizers if part is not None]
    if not tokenizers or any(getattr(part, "unk_token_id", None) is None for part in tokenizers):
        return None  # it has no token for what it does not know, as it knows all

    def reads(tokenizer: Any, prompt: str) -> bool:
        ids = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        return bool(tokenizer.decode(ids, skip_special_tokens=True).strip())

    strange = [prompt for prompt in prompts if not any(reads(part, prompt) for part in tokenizers)]
    if not strange:
        return None
    of = "" if len(prompts) == 1 else f"{len(strange)} of {len(prompts)} prompts, such as "
    text = f"{of}“{shortened(strange[0])}”"
    return f"the model's tokenizer knows no word of {text}, which its pictures cannot show"


def texts(prompts: Sequence[str], call: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a pipeline's call with a text each: of negative prompts there must be as many."""
    negative = {
        name: [value] * len(prompts)
        for name, value in call.items()
        if name.startswith("negative_prompt") and isinstance(value, str)
    }
    return {**call, **negative, "prompt": list(prompts)}


def by_prompt(
    make: Callable[[Tensor, Sequence[str]], Tensor], latents: Tensor, prompts: Sequence[str]
) -> Tensor:
    """`make` of a batch, or of the samples of each prompt by themselves where prompts cannot be one batch.

    Arguments:
        make: from latents `(B, …)` and a prompt each to a tensor `(B, …)`.
    """
    try:
        return make(latents, prompts)
    except Ragged:
        made: dict[int, Tensor] = {}
        for prompt in dict.fromkeys(prompts):
            rows = [row for row, other in enumerate(prompts) if other == prompt]
            made |= zip(rows, make(latents[rows], [prompt] * len(rows)), strict=True)
        return torch.stack([made[row] for row in range(len(prompts))])

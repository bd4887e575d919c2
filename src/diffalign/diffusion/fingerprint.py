"""What tells models apart: all that makes their pictures, but for the arguments of a call.

    denoiser-parts-scheduler, such as 0f31c5a2b7e4-c01d9be2-77ab03fe

- denoiser: its class, and a sample of its weights
- parts: its configuration and adapters; configuration and weights of the other networks, such as text
  encoder and VAE; tokens that were added; tiles of the decoder
- scheduler: its class and settings

Of configurations only what differs from a class's defaults counts, so that a new version's new settings
change nothing. Older artefacts record the first part alone, which is compared alone then.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from diffalign.diffusion.pipeline import denoiser
from diffalign.diffusion.protocol import Pipeline

_DIGITS = 12  # 48 bits, so that two models hardly ever share them
_FEWER = 8  # of what is compared beside them
_VALUES = 64  # of each tensor, evenly spaced: enough to tell weights apart, fast to read
_REMEMBERED = "remembered_fingerprints"  # the attribute of a pipeline that remembers
#: Networks that change no picture, but for making it black.
_UNSEEN = ("safety_checker",)
#: Words in the names of settings that change no picture.
_NO_SETTINGS = "version", "dtype", "architectures", "label"
PARTS = "denoiser", "text encoder, VAE, tiling or adapter", "scheduler"


def fingerprint(pipeline: Pipeline) -> str:
    """Hexadecimal digits that identify the model, in three parts: see above."""
    network = denoiser(pipeline)
    first = hashlib.sha256(type(network).__name__.encode())
    _add_weights(first, network)
    parts = hashlib.sha256()
    _add(parts, [_settings(network), _adapters(network)])
    for name, module in sorted(vars(pipeline).items()):
        if isinstance(module, nn.Module) and module is not network and name not in _UNSEEN:
            _add(parts, [name, type(module).__name__, _settings(module) | _tiles(module), _adapters(module)])
            _add_weights(parts, module)
            _add_tokens(parts, module, getattr(pipeline, name.replace("text_encoder", "tokenizer"), None))
    scheduler = hashlib.sha256()
    _add(scheduler, [type(pipeline.scheduler).__name__, _settings(pipeline.scheduler)])
    weights = f"{first.hexdigest()[:_DIGITS]}-{parts.hexdigest()[:_FEWER]}"
    now, before = getattr(pipeline, _REMEMBERED, (None, ""))
    return f"{before if weights == now else weights}-{scheduler.hexdigest()[:_FEWER]}"


def remember(pipeline: Any, before: str) -> None:
    """Lets a pipeline have the fingerprint `before`: of when its denoiser was whole, or its adapters stood
    beside its weights (fused, they are rounded, in half precision and on another device otherwise). Once
    weights change again it is lost."""
    vars(pipeline)[_REMEMBERED] = [name.rpartition("-")[0] for name in (fingerprint(pipeline), before)]


def differing(recorded: str, model: str) -> list[str]:
    """In which of `PARTS` two models differ, by their fingerprints."""
    pairs = zip(PARTS, recorded.split("-"), model.split("-"), strict=False)  # older ones are shorter
    return [part for part, one, other in pairs if one != other]


def _add(digest: Any, content: Any) -> None:
    digest.update(json.dumps(content, sort_keys=True).encode())


def _add_weights(digest: Any, module: nn.Module) -> None:
    for name, parameter in sorted(module.state_dict().items()):
        if isinstance(parameter, Tensor):  # quantised layers keep more
            digest.update(json.dumps([name, list(parameter.shape)]).encode())
            digest.update(_sample(parameter))


def _sample(values: Tensor) -> bytes:
    local: Tensor = values.to_local() if hasattr(values, "to_local") else values  # of a divided denoiser
    flat = local.detach().flatten()
    sample: Tensor = flat[:: max(1, flat.numel() // _VALUES)][:_VALUES]
    return sample.float().cpu().half().numpy().tobytes()


def _add_tokens(digest: Any, encoder: nn.Module, tokenizer: Any) -> None:
    """The tokens that were added to the tokenizer of a text encoder, and their embeddings, which are few of
    many and so are not sampled with the weights."""
    added: Mapping[str, int] = getattr(tokenizer, "added_tokens_encoder", None) or {}
    embeddings = getattr(encoder, "get_input_embeddings", None)
    table: Any = getattr(embeddings() if embeddings else None, "weight", None)
    for token, index in sorted(added.items()):
        _add(digest, [token, index])
        if isinstance(table, Tensor) and index < len(table):
            digest.update(_sample(table[index]))


def _adapters(module: nn.Module) -> list[Any]:
    """How strongly adapters act; their weights are among the module's."""
    found = []
    for name, layer in module.named_modules():
        if isinstance(layer, BaseTunerLayer):
            scaling: Mapping[str, float] = getattr(layer, "scaling", {})
            found.append([name, dict(scaling), list(layer.active_adapters), layer.disable_adapters])
    return found


def _tiles(module: nn.Module) -> dict[str, Any]:
    """The tiles that a decoder cuts latents into, if it does."""
    if not getattr(module, "use_tiling", False):
        return {}
    named = {name: _plain(value) for name, value in vars(module).items() if name.startswith("tile_")}
    return {"use_tiling": True, **named}


def _settings(owner: Any) -> dict[str, Any]:
    """The configuration of a network or a scheduler, without defaults."""
    config: Any = getattr(owner, "config", None)
    if isinstance(config, Mapping):  # of diffusers
        return _without_defaults(type(owner), config)
    return {} if config is None else _without_defaults(type(config), vars(config))


def _without_defaults(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that `kind` takes, and whose values are not its defaults."""
    found = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in settings and not any(word in name for word in _NO_SETTINGS):
            value = settings[name]
            nested = hasattr(value, "to_dict")
            plain = _without_defaults(type(value), vars(value)) if nested else _plain(value)
            if plain != _plain(parameter.default) and plain is not None:
                found[name] = plain
    return found


def _plain(value: Any) -> Any:
    """A value as a file gives it back, tuples as lists; None if no file can hold it."""
    try:
        return json.loads(json.dumps(value.tolist() if hasattr(value, "tolist") else value))
    except (TypeError, ValueError):
        return None

"""How pictures are made, and how the model of an artefact is opened again."""

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from diffalign.settings.fields import ConfigError, NotNegativeFloat, Positive, Settings, WholeShare
from diffalign.settings.reading import ReadError, parse_json, parse_yaml

Dtype = Literal["float32", "float16", "bfloat16"]
Scheduler = Literal["keep", "ddim"]
#: Arguments of a pipeline's call that have flags of their own.
NAMED = ("height", "width", "num_frames", "negative_prompt", "max_sequence_length")
#: What each call of the pipeline is given anyway.
OWN = {
    "prompt": "the prompt",
    "latents": "what is learned",
    "prompt_embeds": "the prompt",
    "generator": "--seed",
    "num_inference_steps": "--num-steps",
    "guidance_scale": "--guidance-scale",
    "num_images_per_prompt": "--batch-size",
    "num_videos_per_prompt": "--batch-size",
    "output_type": "always pt",
    "return_dict": "always true",
}


@dataclass(frozen=True)
class Sampling(Settings):
    """How pictures are made.

    Attributes:
        model: The model: a name of `diffalign models`, the folder of a saved pipeline, a hub name, or a
            .safetensors file that holds a whole model.
        model_config: Of a single file, the name, folder or hub name of a pipeline of the same architecture.
        lora: LoRA adapters to fuse into the model: files, folders or hub names, each with @SCALE if not 1.
        textual_inversion: Tokens to add to the model: likewise, each with @TOKEN if prompts call it so.
        tiling: Whether latents are decoded tile by tile, which takes less memory and changes pictures a
            little.
        num_steps: How many steps the sampler takes.
        guidance_scale: The scale of classifier-free guidance; the pipeline's own default if not given.
        batch_size: How many pictures are made at a time; it changes nothing but time and memory.
        scheduler: Which scheduler samples: the pipeline's own (keep), or DDIM, which the papers use.
        device: Where the model runs, such as cpu or cuda:0; the accelerator, if there is one, by default.
        dtype: The model's precision; float32 on a CPU and float16 elsewhere by default.
        reward_device: Where a reward that is a network runs; the pictures' device by default.
        offload: Whether the reward's network and the model's text encoders wait on the CPU while pictures are
            made; it changes nothing but time and memory.
        height: Of the pictures, in pixels; the pipeline's own if not given.
        width: Likewise.
        num_frames: How many frames a video has; the pipeline's own if not given.
        negative_prompt: What pictures should not show, for classifier-free guidance.
        max_sequence_length: How many tokens of a prompt are read, where the pipeline lets one say.
        call: Further arguments of the pipeline's call, each as name=value, such as guidance_rescale=0.7.
    """

    model: str = "world"
    model_config: str | None = None
    lora: tuple[str, ...] = ()
    textual_inversion: tuple[str, ...] = ()
    tiling: bool = False
    num_steps: Positive = 20
    guidance_scale: NotNegativeFloat | None = None
    batch_size: Positive = 16
    scheduler: Scheduler = "keep"
    device: str | None = None
    dtype: Dtype | None = None
    reward_device: str | None = None
    offload: bool = False
    height: Positive | None = None
    width: Positive | None = None
    num_frames: Positive | None = None
    negative_prompt: str | None = None
    max_sequence_length: Positive | None = None
    call: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.arguments()

    def additions(self) -> dict[str, Any]:
        """What the model is loaded with beside its name, as arguments of `load_pipeline`."""
        return {
            "config": self.model_config,
            "lora": self.lora,
            "textual_inversion": self.textual_inversion,
            "tiling": self.tiling,
        }

    def arguments(self) -> dict[str, Any]:
        """The further arguments of the pipeline's call, by name.

        Raises:
            ConfigError: if one is not written as name=value, stands twice, or is given by another setting.
        """
        found = {name: getattr(self, name) for name in NAMED if getattr(self, name) is not None}
        for written in self.call:
            name, equals, text = written.partition("=")
            name = name.strip()
            if not equals or not name.isidentifier():
                raise ConfigError(f"call must be name=value, such as guidance_rescale=0.7, not {written!r}")
            if name in OWN:
                raise ConfigError(f"call cannot set {name}: that is {OWN[name]}")
            if name in found:
                raise ConfigError(f"the argument {name} of the call is given twice")
            value = _read(text)
            if not _is_plain(value):
                raise ConfigError(
                    f"call cannot set {name} to {text!r}: give a number, text or a list of them"
                )
            found[name] = value
        return found


@dataclass(frozen=True)
class Opening(Settings):
    """How an artefact and its model are opened; all else is as it was when the artefact was learned.

    Attributes:
        diversity: Of a mixture, how many of its components samples are drawn from: from 0, the best alone, to
            1, all alike, which is about the frozen model; as they were learned by default.
        model: The model, where it is not found by the name that was recorded.
        model_config: Likewise, of a model in a single file.
        lora: Likewise, all of its adapters.
        textual_inversion: Likewise, all of its tokens.
        batch_size: How many pictures are made at a time.
        device: Where the model runs, such as cpu or cuda:0; the accelerator, if there is one, by default.
        dtype: The precision; by default that of learning, and on a CPU float32 instead of float16.
        offload: Whether the model's text encoders, and a reward's network, wait on the CPU meanwhile.
    """

    diversity: WholeShare | None = None
    model: str | None = None
    model_config: str | None = None
    lora: tuple[str, ...] = ()
    textual_inversion: tuple[str, ...] = ()
    batch_size: Positive = 16
    device: str | None = None
    dtype: Dtype | None = None
    offload: bool = False


def written(arguments: dict[str, Any]) -> tuple[str, ...]:
    """Arguments of the call as `Sampling.call` takes them."""
    return tuple(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())


def _read(text: str) -> Any:
    """A value as JSON, or YAML, or else the text itself; to YAML 1e-5 were text."""
    for parse in (parse_json, parse_yaml):
        with suppress(ReadError):
            return parse(text)
    return text


def _is_plain(value: Any) -> bool:
    """Whether a file of settings or an artefact can hold the value."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)

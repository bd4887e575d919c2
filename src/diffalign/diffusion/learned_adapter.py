"""The LoRA adapter of a denoiser that is learned: by diffusers where it reads them, else by PEFT alone."""

from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file

from diffalign.diffusion.faults import said
from diffalign.diffusion.pipeline import PipelineError, denoiser, denoiser_name
from diffalign.diffusion.protocol import Pipeline
from diffalign.diffusion.quiet import quietly
from diffalign.diffusion.weights import read_weights

_DOWN = ".lora_A.weight"  # of the smaller of a layer's two matrices


def diffusers_reads_adapters(pipeline: Pipeline) -> bool:
    """Whether `pipeline.load_lora_weights` is there; not of PixArt and Hunyuan-DiT."""
    return hasattr(pipeline, "load_lora_weights") and hasattr(denoiser(pipeline), "add_adapter")


@quietly()
def add_adapter(pipeline: Pipeline, config: LoraConfig) -> None:
    """Puts a new adapter on the denoiser.

    Raises:
        PipelineError: if it has one, or no layer with a name of the configuration.
    """
    network: Any = denoiser(pipeline)
    if getattr(network, "peft_config", None):
        raise PipelineError(
            "this pipeline's denoiser has an adapter already; load the pipeline anew, or call "
            "pipeline.unload_lora_weights()"
        )
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        if diffusers_reads_adapters(pipeline):
            network.add_adapter(config)
        else:
            network.peft_config = LoraModel(network, config, "default").peft_config
    except ValueError as error:
        network._hf_peft_config_loaded = False  # which diffusers sets before it fails
        _take_off(network)
        for parameter in trainable:
            parameter.requires_grad_(True)
        raise PipelineError(
            f"the layers of a {type(network).__name__} take no such adapter ({said(error)}); "
            "lora_targets attention takes other layers, and lora_rank 0 tunes all of its weights"
        ) from error


def save_adapter(pipeline: Any, folder: Path) -> None:
    """Writes the adapter as `pipeline.load_lora_weights(folder)` reads it, or where the pipeline reads none,
    as `PeftModel.from_pretrained(denoiser, folder)` does."""
    network: Any = denoiser(pipeline)
    layers = get_peft_model_state_dict(network)
    if diffusers_reads_adapters(pipeline):
        pipeline.save_lora_weights(folder, **{f"{denoiser_name(pipeline)}_lora_layers": layers})
        return
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"base_model.model.{name}": value.contiguous() for name, value in layers.items()}
    save_file(named, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    network.peft_config["default"].save_pretrained(folder)


@quietly()
def load_adapter(pipeline: Any, folder: Path) -> None:
    """Puts what `save_adapter` wrote on the denoiser. What kind of adapter it is, its tensors say alone.

    Raises:
        ValueError: if a layer lacks weights, or has those of no adapter; and what the libraries raise if the
            weights do not fit.
    """
    network: Any = denoiser(pipeline)
    by_diffusers = diffusers_reads_adapters(pipeline)
    name = LORA_WEIGHT_NAME_SAFE if by_diffusers else SAFETENSORS_WEIGHTS_NAME
    prefix = f"{denoiser_name(pipeline)}." if by_diffusers else "base_model.model."
    tensors = read_weights(folder / name)
    layers = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    ranks = {name.rpartition(_DOWN)[0]: len(layers[name]) for name in layers if name.endswith(_DOWN)}
    if {f"{layer}.{part}.weight" for layer in ranks for part in ("lora_A", "lora_B")} != layers.keys():
        raise ValueError(f"{name} lacks some of an adapter's weights, or has others")
    if by_diffusers:
        pipeline.load_lora_weights(tensors)
    else:
        rank = max(ranks.values())
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ranks))
        network.peft_config = LoraModel(network, config, "default").peft_config
        set_peft_model_state_dict(network, layers)
    adapters = getattr(network, "peft_config", {})  # none where diffusers found no layer of it
    loaded = {layer for each in adapters for layer in get_peft_model_state_dict(network, adapter_name=each)}
    if loaded != layers.keys():
        raise ValueError(f"{name} is of other layers than the {type(network).__name__} has")


def switch_adapter(pipeline: Pipeline, on: bool) -> None:
    """Turns the adapter on or off."""
    for module in denoiser(pipeline).modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(on)


def remove_adapter(pipeline: Any) -> None:
    """Takes the adapter off."""
    network: Any = denoiser(pipeline)
    if diffusers_reads_adapters(pipeline):
        pipeline.unload_lora_weights()
        return
    _take_off(network)
    del network.peft_config


def _take_off(network: Any) -> None:
    """Puts a network's own layers in the place of those with an adapter."""
    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, module.get_base_layer())

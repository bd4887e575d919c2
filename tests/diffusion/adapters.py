"""LoRA adapters and textual inversions of random weights, as files."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from diffalign import load_pipeline

_TARGETS = {"unet": ["to_q", "to_k", "to_v", "to_out.0"], "text_encoder": ["q_proj", "v_proj"]}


def save_lora(
    model: Path, folder: Path, *, seed: int = 0, parts: tuple[str, ...] = ("unet", "text_encoder")
) -> Path:
    """Writes an adapter of `parts` of the pipeline in `model`, with weights that show."""
    pipeline: Any = load_pipeline(model, device="cpu")
    layers = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in parts:
            network = getattr(pipeline, part)
            network.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=_TARGETS[part]))
            for name, weight in network.named_parameters():
                if "lora_" in name:
                    nn.init.normal_(weight, std=0.3)
            layers[f"{part}_lora_layers"] = get_peft_model_state_dict(network)
    pipeline.save_lora_weights(folder, **layers)
    return folder


def save_inversion(path: Path, width: int = 16, *, token: str = "<toy>", vectors: int = 1) -> Path:
    """Writes the embeddings of a token; "emb_params" is of a file that names none."""
    generator = torch.Generator().manual_seed(len(path.name))
    save_file({token: torch.randn(vectors, width, generator=generator)}, path)
    return path

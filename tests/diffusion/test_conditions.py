"""What a prompt is to the denoiser."""

from pathlib import Path

import torch

from diffalign import load_pipeline
from diffalign.diffusion.probe import prompt_states


def test_prompts_are_read_by_the_pipelines_text_encoder(tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    dog, cat = prompt_states(pipeline, "a dog"), prompt_states(pipeline, "a cat")
    assert dog.ndim == 2 and dog.shape == cat.shape and not torch.equal(dog, cat)
    assert dog.shape[1] == pipeline.text_encoder.config.hidden_size

"""Speed and memory of sampling and of FIND at a model's full size, on the device at hand.

    python benchmarks/throughput.py --model sd15 --queries 150 --num-steps 50 --batch-size 30
    python benchmarks/throughput.py --model modelscope --queries 8 --num-steps 25 --batch-size 1

The models have their published architectures and random weights (speed does not depend on the weights), so
nothing is downloaded; `world` is the embedded one. Plain generation is the same sampler, without learning, in
the same batches. FLOPs are counted in one pass of the denoiser; utilisation needs `--peak`, the device's
TFLOP/s in the model's precision. Each measurement follows a warm-up of one batch, which is not counted.
"""

import argparse
import json
import string
import time
from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import seeded_noise
from diffalign.diffusion.loading import default_device
from diffalign.diffusion.pipeline import denoiser
from diffalign.loop import train
from diffalign.methods import build
from diffalign.settings.fields import preset
from diffalign.settings.find import PRESETS

PROMPT = "a blue car on the moon"


def tokenizer() -> transformers.CLIPTokenizer:
    """Single characters: a prompt is as long as any once it is padded."""
    characters = [c for c in string.printable if c.strip()]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *characters, *(c + "</w>" for c in characters)]
    return transformers.CLIPTokenizer(
        vocab={t: i for i, t in enumerate(vocabulary)}, merges=[], model_max_length=77
    )


def text_encoder(**given: Any) -> transformers.CLIPTextModel:
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1, **given)
    )


def autoencoder() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def scheduler() -> diffusers.DDIMScheduler:
    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


def sd15() -> diffusers.DiffusionPipeline:
    """Stable Diffusion 1.5 at 512²: 860 million parameters in the UNet."""
    unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    encoder = text_encoder(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=encoder,
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def modelscope() -> diffusers.DiffusionPipeline:
    """ModelScope's text-to-video model: 16 frames of 256², 1.4 billion parameters in the UNet."""
    encoder = text_encoder(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=23,
        num_attention_heads=16,
        hidden_act="gelu",
    )
    return diffusers.TextToVideoSDPipeline(
        vae=autoencoder(),
        text_encoder=encoder,
        tokenizer=tokenizer(),
        unet=diffusers.UNet3DConditionModel(sample_size=32),
        scheduler=scheduler(),
    )


MODELS: dict[str, Callable[[], Any]] = {"sd15": sd15, "modelscope": modelscope}


def load(name: str, dtype: torch.dtype) -> Any:
    if name not in MODELS:
        return load_pipeline(name)
    torch.manual_seed(0)
    with torch.device(default_device()):
        pipeline = MODELS[name]().to(default_device(), dtype)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last) if name == "sd15" else None
    return pipeline


def brightness(images: Tensor, prompts: Any) -> Tensor:
    """A reward that costs nothing, so that sampling and learning are what is timed."""
    return images.float().flatten(1).mean(1)


def synchronise() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


class Watched:
    """Passes of the denoiser, and the FLOPs of the first of them."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.samples, self.flops, self.module = 0, 0.0, module
        self.inner, module.forward = module.forward, self  # type: ignore[method-assign]

    def __call__(self, *given: Any, **named: Any) -> Any:
        batch = len(given[0] if given else next(v for v in named.values() if isinstance(v, Tensor)))
        self.samples += batch
        if self.flops:
            return self.inner(*given, **named)
        with FlopCounterMode(display=False) as counter:
            output = self.inner(*given, **named)
        self.flops = counter.get_total_flops() / batch
        return output


def timed(work: Callable[[], object]) -> tuple[float, float | None]:
    """Seconds, and GiB at the peak."""
    accelerator = torch.cuda.is_available()
    if accelerator:
        torch.cuda.reset_peak_memory_stats()
    synchronise()
    began = time.perf_counter()
    work()
    synchronise()
    seconds = time.perf_counter() - began
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if accelerator else None


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    pipeline = load(arguments.model, getattr(torch, arguments.dtype))
    sampler = Sampler(pipeline, num_steps=arguments.num_steps, batch_size=arguments.batch_size)
    watched = Watched(denoiser(pipeline))
    config = preset(PRESETS, "default", {"queries": arguments.queries})
    learner = build("find", sampler, [PROMPT], config, "brightness")
    sampler(seeded_noise(sampler.latent_shape, 0, "warm-up", range(1)), PROMPT)  # counts its FLOPs
    if arguments.compile:
        watched.module.forward = torch.compile(watched.inner)  # type: ignore[method-assign]
    sampler(seeded_noise(sampler.latent_shape, 0, "warm-up", range(arguments.batch_size)), PROMPT)
    watched.module.forward = watched if not arguments.compile else watched.module.forward  # type: ignore[method-assign]
    watched.samples = 0
    noise = seeded_noise(sampler.latent_shape, 0, "plain", range(arguments.queries))
    plain, plain_memory = timed(lambda: [sampler(part, PROMPT) for part in noise.split(arguments.batch_size)])
    passes = watched.samples or arguments.queries * sampler.forwards
    learning, memory = timed(lambda: list(train(learner, brightness)))
    report = {
        "model": arguments.model,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": torch.__version__,
        "compiled": arguments.compile,
        "num_steps": arguments.num_steps,
        "batch_size": arguments.batch_size,
        "queries": learner.queries,
        "seconds_plain": round(plain, 2),
        "seconds_find": round(learning, 2),
        "overhead": round(learning / plain * arguments.queries / learner.queries - 1, 4),
        "images_per_second": round(arguments.queries / plain, 3),
        "denoiser_passes_per_second": round(passes / plain, 1),
        "tflop_per_pass": round(watched.flops / 1e12, 4),
        "tflop_per_second": round(watched.flops * passes / plain / 1e12, 2),
        "peak_gib_plain": plain_memory and round(plain_memory, 2),
        "peak_gib_find": memory and round(memory, 2),
    }
    if arguments.peak:
        report["utilisation"] = round(report["tflop_per_second"] / arguments.peak, 3)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="world", help="sd15, modelscope, or what --model takes elsewhere")
    parser.add_argument("--dtype", default="bfloat16", help="of sd15 and modelscope")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=30)
    parser.add_argument("--compile", action="store_true", help="the denoiser, before anything is timed")
    parser.add_argument("--peak", type=float, help="the device's TFLOP/s in this precision")
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()

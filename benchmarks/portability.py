"""Whether learned noise gives the same pictures elsewhere, and whatever the batch size.

    python benchmarks/portability.py

Learns the same noise in batches of 1, 4 and 16, compares noise and pictures, and makes the last ones again
from the saved file with a pipeline that diffusers alone has loaded.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from diffalign import NoiseDistribution, Sampler, find, load_pipeline
from diffalign.world import WORLD_FOLDER

PROMPT = "a green dog on the grass"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=25)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load_pipeline("world")
    made = {}
    for batch_size in (1, 4, 16):
        noise = find(
            pipeline, PROMPT, "world-clip", queries=arguments.queries, batch_size=batch_size, seed=3
        ).run()
        x_T = noise.sample(arguments.images, seed=5)
        made[batch_size] = x_T, Sampler(pipeline, batch_size=batch_size)(x_T, PROMPT)
    x_T, pictures = made[16]
    for batch_size in (1, 4):
        apart = [float((a - b).abs().max()) for a, b in zip(made[batch_size], made[16], strict=True)]
        print(f"batches of {batch_size} and of 16 differ by at most {apart[0]:.1e} (noise), {apart[1]:.1e}")

    plain = StableDiffusionPipeline.from_pretrained(WORLD_FOLDER, torch_dtype=torch.float32)
    plain.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        noise.save(Path(folder, "noise.safetensors"))
        latents = NoiseDistribution.load(folder).sample(arguments.images, seed=5)
    again = []
    for part in latents.split(16):
        output = plain(
            [PROMPT] * len(part), latents=part, num_inference_steps=20, guidance_scale=3.0, output_type="pt"
        )
        again.append(output.images)
    print("plain diffusers makes the same pictures, bit for bit:", torch.equal(torch.cat(again), pictures))


if __name__ == "__main__":
    main()

"""The recipe: makes every weight of the embedded world from nothing.

    python -m recipes.world.train --out build/world --threads 2

Stages: `clip` and `vae` (independent of each other), then `decoder` and `unet` (likewise), `refine` after
`unet`, `flow` after `refine`, `reward` after `decoder` and `video` after `refine`,
then `export`, which writes the pipeline folder with its model card, and `export-flow` and `export-video`,
which write what the pipelines with flow matching and of videos have of their own.
`unpack` lays the shipped weights out as finished stages, to train on from them. A stage
checkpoints every few minutes and resumes where it was; its batch i depends on the seed and on i alone, so
an interrupted run takes the same steps as an uninterrupted one. On two cores, two processes are faster
than two threads:

    OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 2 -m recipes.world.train --stage unet
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffalign.world import WORLD_FOLDER
from recipes.world.export import export, export_flow, export_video, unpack
from recipes.world.stages import STAGES
from recipes.world.stages.stage import SEED, Stage

CHECKPOINT_SECONDS = 150
LOG_EVERY = 50
#: Name of an export → what writes it, and the default name of its folder.
EXPORTS = {
    "export": (export, "pipeline"),
    "export-flow": (export_flow, "flow-pipeline"),
    "export-video": (export_video, "video-pipeline"),
}


def learning_rate(step: int, stage: Stage) -> float:
    """Linear warm-up over 200 steps, then cosine decay to 2 %."""
    decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / stage.steps))
    return stage.learning_rate * min(1.0, (step + 1) / 200) * decay


def average_gradients(parameters: list[torch.Tensor], processes: int) -> None:
    """Replaces each gradient by its mean over all processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_((mean / processes).view_as(gradient))


def run_stage(stage: Stage, folder: Path, threads: int) -> None:
    """Trains `stage` to its last step, from its checkpoint if there is one; leaves `ema.safetensors`.

    Under `torchrun` each process takes its part of every batch, and gradients are averaged.
    """
    torch.set_num_threads(threads)
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    stage.part = slice(rank, None, processes)
    if processes > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    trained = {name: p for name, p in stage.model.named_parameters() if p.requires_grad}
    names, parameters = list(trained), list(trained.values())
    ema = [parameter.detach().clone() for parameter in parameters]
    optimiser = torch.optim.AdamW(
        parameters, lr=stage.learning_rate, betas=(0.9, 0.99), weight_decay=stage.weight_decay
    )
    start, seconds = 0, 0.0
    if checkpoint.exists():
        with safe_open(checkpoint, "pt") as file:
            metadata = file.metadata()
        start, seconds = int(metadata["step"]), float(metadata["seconds"])
        state = load_file(checkpoint)
        for name, parameter, average in zip(names, parameters, ema, strict=True):
            parameter.data.copy_(state[f"model.{name}"])
            average.copy_(state[f"ema.{name}"])
            optimiser.state[parameter] = {
                "step": torch.tensor(float(start)),
                "exp_avg": state[f"exp_avg.{name}"].clone(),
                "exp_avg_sq": state[f"exp_avg_sq.{name}"].clone(),
            }

    def save(step: int) -> None:
        """Writes all that going on from `step` needs."""
        state = {}
        for name, parameter, average in zip(names, parameters, ema, strict=True):
            state[f"model.{name}"] = parameter.detach().contiguous()
            state[f"ema.{name}"] = average.contiguous()
            for key in ("exp_avg", "exp_avg_sq"):
                state[f"{key}.{name}"] = optimiser.state[parameter][key].contiguous()
        partial = checkpoint.with_suffix(".partial")
        save_file(state, partial, {"step": str(step), "seconds": f"{seconds:.1f}"})
        os.replace(partial, checkpoint)
        ema_file = folder / "ema.partial"
        shipped = {n: a.half().contiguous() for n, a in zip(names, ema, strict=True)}
        save_file(shipped, ema_file, {"step": str(step)})
        os.replace(ema_file, folder / "ema.safetensors")
        with torch.no_grad():
            current = [parameter.detach().clone() for parameter in parameters]
            for parameter, average in zip(parameters, ema, strict=True):
                parameter.data.copy_(average)
            grid = stage.picture()
            for parameter, value in zip(parameters, current, strict=True):
                parameter.data.copy_(value)
        if grid is not None:
            pixels = (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / "samples.png")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=rank > 0) as progress, (folder / "log.jsonl").open("a") as log:
        task = progress.add_task(stage.name, total=stage.steps, completed=start)
        last_save = time.monotonic()
        for step in range(start, stage.steps):
            began = time.monotonic()
            torch.manual_seed(SEED * 1_000_003 + step)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, stage)
            loss, figures = stage.loss(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if processes > 1:
                average_gradients(parameters, processes)
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            decay = min(stage.ema_decay, (step + 1) / (step + 10))
            torch._foreach_lerp_(ema, [parameter.detach() for parameter in parameters], 1 - decay)
            seconds += time.monotonic() - began
            if step % LOG_EVERY == 0 and rank == 0:
                figures |= {"loss": loss.item(), "grad_norm": float(norm)}
                log.write(json.dumps({"step": step, "seconds": round(seconds, 1), **figures}) + "\n")
                log.flush()
                progress.update(task, description=f"{stage.name} loss {loss.item():.4f}")
            progress.advance(task)
            if rank == 0 and time.monotonic() - last_save > CHECKPOINT_SECONDS:
                save(step + 1)
                last_save = time.monotonic()
    if start < stage.steps and rank == 0:
        save(stage.steps)
    if processes > 1:
        torch.distributed.barrier()  # the next stage reads what this one saved


def main() -> None:
    """Trains the stages that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/world"), help="folder of checkpoints")
    parser.add_argument("--stage", choices=(*STAGES, *EXPORTS, "unpack", "all"), default="all")
    parser.add_argument("--threads", type=int, default=1, help="1 while other work runs on the machine")
    parser.add_argument("--target", type=Path, help="folder of an export (by default in OUT)")
    arguments = parser.parse_args()
    if arguments.target is not None and arguments.stage not in EXPORTS:
        parser.error("--target is for --stage export, export-flow or export-video")
    for name in (*STAGES, *EXPORTS) if arguments.stage == "all" else (arguments.stage,):
        if name == "unpack":
            unpack(WORLD_FOLDER, arguments.out)
        elif name in EXPORTS:
            if int(os.environ.get("RANK", 0)) > 0:
                continue
            write, default = EXPORTS[name]
            write(arguments.out, arguments.target or arguments.out / default)
        else:
            run_stage(STAGES[name](arguments.out), arguments.out / name, arguments.threads)


if __name__ == "__main__":
    main()

"""Whether a change leaves results as they are: the same small runs before and after it, bit for bit.

    python benchmarks/same_results.py run /tmp/after
    git worktree add /tmp/main main
    PYTHONPATH=/tmp/main/src python benchmarks/same_results.py run /tmp/before
    python benchmarks/same_results.py diff /tmp/before /tmp/after

`run` makes runs of all methods (three minutes on one core) with the `diffalign` that Python imports, and
skips those that the folder holds already. `diff` compares two such folders: all tensors but those of the
saved states, and the summaries, comparisons and metrics but for seconds, memory and versions. What only one
of them has counts as a difference; if there is one, it exits with 1. This script imports nothing of
diffalign, so that it works with an older one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

TRAIN = ("a green dog", "four pandas", "a cat on the moon", "a red apple on the left of a car")
HELD_OUT = ("a dog on the moon", "three lions")
PROMPT = "a blue car on the moon"
MANY = ["--prompts=train.txt", "--held-out=held-out.txt", "--images=4", "--check-every=2", "--check-images=2"]
NOISE = [*MANY, "--prompts-per-round=3"]
TUNE = ["tune", *MANY, "--rounds=3", "--samples=24", "--first-steps=4"]
SEARCH = ["search", PROMPT, "--queries=45", "--keep=4"]
#: By the name of the folder that each writes.
COMMANDS: Mapping[str, list[str]] = {
    "find-default": ["find", PROMPT, "--queries=60", "--images=16"],
    "find-paper": ["find", PROMPT, "--preset=paper", "--queries=20", "--images=8"],
    "find-two": ["find", *HELD_OUT, "--queries=40", "--images=8", "--seed=3"],
    "anchors": ["anchors", *NOISE, "--rounds=4"],
    "noise-ppo": ["noise-ppo", *NOISE, "--rounds=3"],
    "tune-ddpo": [*TUNE, "--preset=ddpo"],
    "tune-b2-dpok": [*TUNE, "--preset=b2-dpok"],
    "tune-default": TUNE,
    "search-best-of-n": [*SEARCH, "--algorithm=best-of-n"],
    "search-zero-order": [*SEARCH, "--algorithm=zero-order"],
    "search-spectral": [*SEARCH, "--preset=spectral"],
    "search-spectral-fresh": [*SEARCH, "--preset=spectral-fresh"],
    "compare": ["compare", "--prompts=held-out.txt", "--queries=40", "--images=4"],
}
STATES = "state*.safetensors"  # in whatever form the version keeps them
FIGURES = ("summary.json", "comparison.json", "metrics.jsonl", "comparison.jsonl")
#: Keys whose values may differ: of the clock, of the machine, and of versions.
FREE = ("seconds", "sampling_seconds", "peak_memory_mb", "diffalign", "torch", "diffusers", "transformers")
Outcome = dict[str, Any]


def outcome(folder: Path) -> Outcome:
    """Tensors and figures of all runs in `folder`, by file and name."""
    parts: Outcome = {}
    for file in sorted(folder.rglob("*.safetensors")):
        if not file.match(STATES):
            name = file.relative_to(folder)
            parts |= {f"{name}: {key}": tensor for key, tensor in load_file(file).items()}
    for file in sorted(file for name in FIGURES for file in folder.rglob(name)):
        lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        for number, line in enumerate(lines, start=1):
            name = f"{file.relative_to(folder)}:{number}" if len(lines) > 1 else file.relative_to(folder)
            parts |= {f"{name}: {key}": value for key, value in figures(json.loads(line))}
    return parts


def figures(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values in JSON, by their path; a list is one value unless it holds mappings."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in FREE:
                yield from figures(value, f"{path}/{key}")
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        for number, value in enumerate(content):
            yield from figures(value, f"{path}/{number}")
    else:
        yield path, content


def differing(one: Outcome, other: Outcome) -> list[str]:
    """What differs, a line each."""
    lines = [f"only before: {name}" for name in one if name not in other]
    lines += [f"only after: {name}" for name in other if name not in one]
    for name in (name for name in one if name in other):
        before, after = one[name], other[name]
        if not isinstance(before, torch.Tensor):
            if before != after:
                lines.append(f"{name}: {shortened(before)} before, {shortened(after)} after")
        elif (before.dtype, before.shape) != (after.dtype, after.shape):
            lines.append(f"{name}: {before.dtype} {before.shape} before, {after.dtype} {after.shape} after")
        elif not torch.equal(before, after):
            lines.append(f"{name}: apart by up to {float((before - after).abs().max()):.1e}")
    return lines


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def run(arguments: argparse.Namespace) -> None:
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("train", TRAIN), ("held-out", HELD_OUT)):
        (folder / f"{name}.txt").write_text("\n".join(texts) + "\n")
    # commands run in the folder, so that no path of it gets into the results
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    program = [sys.executable, "-m", "diffalign", f"--threads={arguments.threads}"]
    for name, command in COMMANDS.items():
        done = folder / f"{name}.done"
        if done.exists() or name not in arguments.only.split(","):
            continue
        shutil.rmtree(folder / name, ignore_errors=True)
        began = time.perf_counter()
        words = [*program, *command, f"--num-steps={arguments.num_steps}", f"--out={name}"]
        with (folder / f"{name}.log").open("w") as log:
            if subprocess.run(words, cwd=folder, env=environment, stdout=log, stderr=log).returncode:
                raise SystemExit(f"{name} failed; see {log.name}")
        done.touch()
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


def diff(arguments: argparse.Namespace) -> None:
    before, after = outcome(arguments.before), outcome(arguments.after)
    if not before:
        raise SystemExit(f"{arguments.before} holds no results")
    lines = differing(before, after)
    tensors = sum(isinstance(value, torch.Tensor) for value in before.values())
    print(*lines, f"{tensors} tensors, {len(before) - tensors} figures: {len(lines)} differ", sep="\n")
    raise SystemExit(bool(lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    both = parser.add_subparsers(required=True)
    run_command, diff_command = both.add_parser("run"), both.add_parser("diff")
    run_command.set_defaults(function=run)
    run_command.add_argument("out", type=Path, help="the folder of the runs")
    run_command.add_argument("--only", default=",".join(COMMANDS), help="names, with commas between them")
    run_command.add_argument("--num-steps", type=int, default=6, help="of the sampler")
    run_command.add_argument("--threads", type=int, default=1)
    diff_command.set_defaults(function=diff)
    diff_command.add_argument("before", type=Path)
    diff_command.add_argument("after", type=Path)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()

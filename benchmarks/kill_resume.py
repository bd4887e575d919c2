"""Kills `diffalign find` or `tune` with SIGKILL at random moments, resumes, compares with an unharmed run.

    python benchmarks/kill_resume.py --kills 5 --out kill_resume.json
    python benchmarks/kill_resume.py tune --kills 5

A run may be killed again after it was resumed. One that ends before the kills are spent is compared, and
another begins. What must be the same: tensors and metadata of the noise, or the adapter, and `summary.json`
but for seconds and memory.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from diffalign.artifacts import CONFIG, LORA, NOISE, SUMMARY, versions

DIFFALIGN = (sys.executable, "-m", "diffalign")
ADAPTER = "pytorch_lora_weights.safetensors"
TUNING = ("--prompts=world/unusual", "--rounds=6", "--samples=12", "--images=2", "--look-every=2")


def outcome(folder: Path) -> dict[str, Any]:
    """What a run and its repetition must agree in."""
    summary = json.loads((folder / SUMMARY).read_text())
    for cost in summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    learned = folder / NOISE if (folder / NOISE).exists() else folder / LORA / ADAPTER
    # not its bytes: the order of the metadata in the file is another in every process
    tensors = {name: (tensor.dtype, tensor.tolist()) for name, tensor in load_file(learned).items()}
    with safe_open(learned, "pt") as file:
        metadata = file.metadata()
    return {"learned tensors": tensors, "learned metadata": metadata, **summary}


def differing(folder: Path, expected: dict[str, Any]) -> list[str]:
    """The parts in which the run in `folder` came out otherwise."""
    found = outcome(folder)
    return sorted(name for name in found | expected if found.get(name) != expected.get(name))


def run(folder: Path, settings: Sequence[str], limit: float | None = None) -> bool:
    """Starts or resumes a run and kills it after `limit` seconds; whether it ended before."""
    again = [settings[0], "--resume", str(folder)]
    if not (folder / CONFIG).exists():
        again = [*settings, "--out", str(folder)]
    process = subprocess.Popen([*DIFFALIGN, *again], stdout=subprocess.DEVNULL)
    try:
        if process.wait(limit):
            raise SystemExit(f"diffalign {' '.join(again)} failed")
    except subprocess.TimeoutExpired:
        return False
    finally:
        process.kill()
        process.wait()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=("find", "tune"), default="find")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--prompt", default="a dog on the moon")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="JSON file of what was killed and what was the same")
    arguments = parser.parse_args()
    asked = {name: getattr(arguments, name) for name in ("preset", "queries", "images", "num_steps")}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    settings = ["tune", *TUNING] if arguments.command == "tune" else ["find", arguments.prompt, *options]
    moments = random.Random(arguments.seed)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        began = time.monotonic()
        run(Path(temporary) / "whole", settings)
        seconds = time.monotonic() - began
        expected = outcome(Path(temporary) / "whole")
        print(f"unharmed: {seconds:.1f} s", flush=True)
        kills = 0
        while kills < arguments.kills:
            folder, killed = Path(temporary) / f"killed-{len(runs)}", []
            while not run(folder, settings, after := moments.uniform(0, seconds)):
                kills += 1
                left = sorted(path.name for path in folder.glob("*"))
                killed.append({"after_seconds": round(after, 1), "left": left})
                print(f"killed after {after:.1f} s, leaving {', '.join(left) or 'nothing'}", flush=True)
                if kills == arguments.kills:
                    run(folder, settings)
                    break
            runs.append({"killed": killed, "differs_in": differing(folder, expected)})
            print(
                f"ended, killed {len(killed)} times; differs in: {runs[-1]['differs_in'] or 'nothing'}",
                flush=True,
            )
    same = not any(run["differs_in"] for run in runs)
    if arguments.out is not None:
        record = {"settings": settings, "versions": versions(), "kills": kills}
        record |= {"seconds_unharmed": round(seconds, 1), "same": same, "runs": runs}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{kills} kills, {len(runs)} runs: {'the same' if same else 'NOT the same'} result")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()

"""Kills `diffalign find` with SIGKILL at random moments, resumes it, and compares with an unharmed run.

python benchmarks/kill_resume.py --kills 5
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "diffalign", "find")


def settings(preset: str, queries: int, images: int) -> list[str]:
    return ["a dog on the moon", "--preset", preset, "--queries", str(queries), "--images", str(images)]


def outcome(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """The learned noise, and the summary without its clock and memory."""
    summary = json.loads((folder / "summary.json").read_text())
    for cost in summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    summary["run"].pop("command", None)  # names the folder
    return (folder / "noise.safetensors").read_bytes(), summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    asked = settings(arguments.preset, arguments.queries, arguments.images)
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        began = time.monotonic()
        subprocess.run([*COMMAND, *asked, "--out", str(whole)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        expected = outcome(whole)
        for number in range(arguments.kills):
            folder = Path(temporary) / f"killed-{number}"
            after = moments.uniform(0.25, 0.98) * seconds
            process = subprocess.Popen([*COMMAND, *asked, "--out", str(folder)], stdout=subprocess.DEVNULL)
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
            process.wait()
            left = sorted(path.name for path in folder.glob("*")) if folder.exists() else []
            if not left:  # killed before the run had a folder
                again = [*COMMAND, *asked, "--out", str(folder)]
            else:
                again = [*COMMAND, "--resume", str(folder)]
            subprocess.run(again, check=True, stdout=subprocess.DEVNULL)
            same = outcome(folder) == expected
            print(f"killed after {after:5.1f} of {seconds:.1f} s, leaving {left}: same = {same}", flush=True)
            if not same:
                raise SystemExit(1)


if __name__ == "__main__":
    main()

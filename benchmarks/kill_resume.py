"""Kills a command with SIGKILL at random moments, resumes it, and compares with a run that was not harmed.

    python benchmarks/kill_resume.py --kills 5 --out kill_resume.json
    python benchmarks/kill_resume.py tune --kills 5
    python benchmarks/kill_resume.py search --algorithm spectral --queries 300

Flags that are not listed below go to the command. A run may be killed again after it was resumed. One that
ends before the kills are spent is compared, and another begins. What must be the same: tensors and headers of
what was learned, `summary.json` or `comparison.json`, and the metrics, all but for seconds and memory.
"""

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
from same_results import STATES, Outcome, differing, outcome

from diffalign.files import CONFIG, versions

DIFFALIGN = (sys.executable, "-m", "diffalign")
MANY = {"--prompts": "world/unusual", "--rounds": "6", "--images": "2", "--check-images": "2"}
MANY |= {"--check-every": "2", "--num-steps": "8"}
GENERATOR = {**MANY, "--prompts-per-round": "8"}
PROMPT = "a dog on the moon"
#: Of each command its prompts, and its flags unless others are given.
COMMANDS: dict[str, tuple[list[str], dict[str, str]]] = {
    "find": ([PROMPT], {"--images": "16"}),
    "anchors": ([], GENERATOR),
    "noise-ppo": ([], GENERATOR),
    "tune": ([], {**MANY, "--samples": "12", "--first-steps": "5"}),
    "search": ([PROMPT], {}),
    "compare": ([], {"--prompts": "world/heldout", "--queries": "20", "--images": "4", "--num-steps": "4"}),
}


def whole_outcome(folder: Path) -> Outcome:
    """What a run and its repetition must agree in."""
    parts = outcome(folder)
    for file in folder.rglob("*.safetensors"):
        if not file.match(STATES):  # not the file's bytes: the order of the header differs between processes
            with safe_open(file, "pt") as tensors:
                parts[f"{file.relative_to(folder)}: header"] = tensors.metadata()
    return parts


def run(folder: Path, command: Sequence[str], limit: float | None = None) -> bool:
    """Starts or resumes a run and kills it after `limit` seconds; whether it ended before."""
    words = [command[0], "--resume", str(folder)]
    if not (folder / CONFIG).exists():
        words = [*command, "--out", str(folder)]
    process = subprocess.Popen([*DIFFALIGN, *words], stdout=subprocess.DEVNULL)
    try:
        if process.wait(limit):
            raise SystemExit(f"diffalign {' '.join(words)} failed")
    except subprocess.TimeoutExpired:
        return False
    finally:
        process.kill()
        process.wait()
    return True


def spelled(words: Sequence[str]) -> dict[str, str]:
    """The flags of a command line and their values; a switch has none."""
    flags: dict[str, str] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            flags[name] = value
        elif flags:
            flags[name] = word
        else:
            raise SystemExit(f"{word!r} is no flag")
    return flags


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="find")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--moments", type=int, default=0, help="seed of the moments")
    parser.add_argument("--out", type=Path, help="JSON file of what was killed and what was the same")
    arguments, others = parser.parse_known_args()
    prompts, flags = COMMANDS[arguments.command]
    flags = {**flags, **spelled(others)}
    settings = [f"{name}={value}" if value else name for name, value in flags.items()]
    command = [arguments.command, *prompts, *settings]
    moments = random.Random(arguments.moments)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        began = time.monotonic()
        run(Path(temporary) / "whole", command)
        seconds = time.monotonic() - began
        expected = whole_outcome(Path(temporary) / "whole")
        print(f"unharmed: {seconds:.1f} s, {len(expected)} tensors, headers and figures", flush=True)
        kills = 0
        while kills < arguments.kills:
            folder, killed = Path(temporary) / f"killed-{len(runs)}", []
            while not run(folder, command, after := moments.uniform(0, seconds)):
                kills += 1
                left = sorted(path.name for path in folder.glob("*"))
                killed.append({"after_seconds": round(after, 1), "left": left})
                print(f"killed after {after:.1f} s, leaving {', '.join(left) or 'nothing'}", flush=True)
                if kills == arguments.kills:
                    run(folder, command)
                    break
            runs.append({"killed": killed, "differs_in": differing(expected, whole_outcome(folder))})
            print(
                f"ended, killed {len(killed)} times; differs in: {runs[-1]['differs_in'] or 'nothing'}",
                flush=True,
            )
    same = not any(run["differs_in"] for run in runs)
    if arguments.out is not None:
        record = {"command": command, "versions": versions(), "kills": kills}
        record |= {"seconds_unharmed": round(seconds, 1), "same": same, "runs": runs}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{kills} kills, {len(runs)} runs: {'the same' if same else 'NOT the same'} result")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()

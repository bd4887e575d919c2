"""`report.html`: a run as one page, without scripts, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from diffalign.artifacts import RunFolder
from diffalign.evaluation import SCHEMA
from diffalign.files import (
    BEFORE_AFTER,
    CONFIG,
    CURVE,
    DENOISER,
    GENERATOR,
    LORA,
    NOISE,
    REPORT,
    SUMMARY,
    ArtifactError,
    replacing,
)

#: Titles of rows.
_NAMES = {"baseline": "Frozen model", "best_of_n": "Best of N", "tuned": "Tuned"}
_STYLE = Path(__file__).parent / "report.css"
_BLANK = "–"
_PAIRS = (
    "Pictures at the same position of both blocks start from the same noise ε. "
    "None of it was used in the optimisation."
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · diffalign</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_report(folder: Path | str) -> Path:
    """Writes `report.html` into a run's folder, and returns its path; the page contains the pictures.

    Needs `summary.json`; `metrics.jsonl`, `config.yaml` and pictures are shown if they exist.

    Raises:
        ArtifactError: if the folder holds no finished run, or its summary is corrupt.
        WriteError: if the page cannot be written.
    """
    run = RunFolder(Path(folder))
    summary = _read_summary(run / SUMMARY)
    try:
        sections = [
            _heading(summary),
            _figure(run / BEFORE_AFTER, "Before and after", _PAIRS),
            _results(summary),
            _figure(run / CURVE, "Reward while optimising", _curve_note(run.metrics())),
            _use(summary),
            _settings(run / CONFIG, summary),
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{run / SUMMARY} does not follow the schema {SCHEMA}: {error!r}") from error
    page = _PAGE.format(
        title=escape(str(summary["prompt"])),
        style=_STYLE.read_text("utf-8"),
        body="\n".join(filter(None, sections)),
    )
    with replacing(run / REPORT) as file:
        file.write_text(page, "utf-8")
    return run / REPORT


def _read_summary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ArtifactError(f"there is no finished run in {path.parent}: it has no {path.name}")
    try:
        summary = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is corrupt: {error}") from error
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        raise ArtifactError(f"{path} is no summary of the schema {SCHEMA}")
    return summary


def _heading(summary: Mapping[str, Any]) -> str:
    """The prompt, what was compared, and the gains."""
    facts = [
        _fact(f"{name}, tuned less frozen", summary["gain"][key], percent)
        for key, name, percent in (
            ("judged_accuracy", "Judged right", True),
            ("reward", f"Reward {summary['reward']}", False),
        )
        if summary["gain"] is not None and summary["gain"][key] is not None
    ]
    judge = f", judged by {_code(summary['judge'])}" if summary["judge"] else ""
    lines = [
        f"<h1>“{escape(str(summary['prompt']))}”</h1>",
        f'<p class="sub">Model {_code(summary["model"])}, reward {_code(summary["reward"])}{judge}, '
        f"{int(summary['n'])} fresh pictures a row.</p>",
    ]
    return "\n".join(lines + ([f'<dl class="facts">{"".join(facts)}</dl>'] if facts else []))


def _fact(name: str, interval: Mapping[str, float], percent: bool) -> str:
    """A gain and its interval; its colour shows the sign if the interval excludes 0."""
    direction = "up" if interval["low"] > 0 else "down" if interval["high"] < 0 else ""
    mean, low, high = (_number(interval[key], percent, True) for key in ("mean", "low", "high"))
    unit = " points" if percent else ""
    return (
        f'<div><dt>{escape(name)}</dt><dd><span class="{direction}">{mean}{unit}</span>'
        f"<small>95 % interval {low} to {high}</small></dd></div>"
    )


def _results(summary: Mapping[str, Any]) -> str:
    """The table of rows, and its notes."""
    head = (
        f"Reward<br>{escape(str(summary['reward']))}",
        "Judged right<br>%",
        "Graded<br>0 to 1",
        "Pairwise<br>distance",
        "Vendi<br>score",
        "Reward<br>queries",
        "Denoiser<br>forwards",
        "Time<br>s",
        "Peak memory<br>MB",
    )
    lines = []
    for key, row in summary["rows"].items():
        diversity, cost = row["diversity"] or {}, summary["cost"][key]
        cells = (
            _interval(row["reward"]),
            _interval(row["judged_accuracy"], percent=True),
            _interval(row["graded"]),
            _rounded(diversity.get("pairwise_distance"), 3),
            _rounded(diversity.get("vendi"), 1),
            _rounded(cost["reward_queries"], 0),
            _rounded(cost["denoiser_forwards"], 0),
            _rounded(cost["seconds"], 1),
            _rounded(cost["peak_memory_mb"], 0),
        )
        name = escape(_NAMES.get(key, str(key)))
        columns = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr class="{escape(str(key))}"><th scope="row">{name}</th>{columns}</tr>')
    notes = ["Small figures are 95 % bootstrap intervals of the mean over the pictures."]
    if "best_of_n" in summary["rows"]:
        notes.append(
            "Best of N spends the same number of pictures on trying seeds and keeps those that the reward "
            "likes best. The reward chose them, so their reward flatters; what the judge says does not."
        )
    spaces = {row["diversity"]["on"] for row in summary["rows"].values() if row["diversity"]}
    if spaces:
        notes.append(
            f"Diversity is measured on {escape(' and '.join(sorted(spaces)))}; higher is more diverse."
        )
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    return (
        f'<h2>Results</h2>\n<div class="wide"><table><thead><tr><td></td>{columns}</tr></thead>\n'
        f'<tbody>{"".join(lines)}</tbody></table></div>\n<p class="note">{" ".join(notes)}</p>'
    )


def _curve_note(metrics: list[dict[str, Any]]) -> str:
    """The caption of the reward curve, from the last line of `metrics.jsonl`."""
    if not metrics:
        return ""
    last = metrics[-1]
    rounds = f"{len(metrics)} round{'s' * (len(metrics) > 1)}"
    steps = f", {last['optimiser_steps']} optimiser steps" * bool(last.get("optimiser_steps"))
    notes = [f"{rounds}, {last['queries']} reward queries{steps} in all."]
    if "interval" in last:
        notes.append(f"The last round learned {last['interval']} sampler steps.")
    if "divergence" in last:
        notes.append(f"A prompt's noise is {last['divergence']:.3g} nats from the first policy on average.")
    if "effective_components" in last:
        several = "s" * (last["effective_components"] > 1)
        notes.append(
            f"At the end the mean of the noise has the norm {last['mean_norm']:.3g}; it is drawn from "
            f"{last['effective_components']:.3g} component{several} and is at most "
            f"{last['kl_to_standard']:.3g} nats from N(0, I)."
        )
    return " ".join(notes)


def _figure(path: Path, title: str, note: str) -> str:
    """A picture of the run, as part of the page; empty without the file."""
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<h2>{escape(title)}</h2>\n<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(note)}</figcaption></figure>"
    )


def _use(summary: Mapping[str, Any]) -> str:
    """A program that uses the result in plain diffusers."""
    if "tuned" not in summary["rows"]:
        return ""
    run = summary["run"]
    if "lora_rank" in run:
        return _use_weights(summary)
    return _use_noise(summary)


def _load_pipeline(summary: Mapping[str, Any]) -> str:
    """The line of the program that loads the pipeline."""
    scheduler = ', scheduler="ddim"' if summary["run"].get("scheduler") == "ddim" else ""
    return f"pipeline = load_pipeline({summary['model']!r}{scheduler})  # a plain diffusers pipeline\n"


def _use_noise(summary: Mapping[str, Any]) -> str:
    run = summary["run"]
    generated = "generator" in run
    settings = "".join(
        f"    {argument}={run[key]!r},\n"
        for key, argument in (("num_steps", "num_inference_steps"), ("guidance_scale", "guidance_scale"))
        if run.get(key) is not None
    )
    code = (
        f"from diffalign import Noise{'Generator' if generated else 'Distribution'}, load_pipeline\n\n"
        + _load_pipeline(summary)
        + (
            f'noise = NoiseGenerator.load("{GENERATOR}", pipeline)\n'
            'prompts = ["a prompt"] * 8\n'
            "pictures = pipeline(\n"
            "    prompts,\n"
            "    latents=noise.sample(prompts, seed=0).to(pipeline.dtype),\n"
            if generated
            else f'noise = NoiseDistribution.load("{NOISE}")\n'
            "pictures = pipeline(\n"
            f"    [{summary['prompt']!r}] * 8,\n"
            "    latents=noise.sample(8, seed=0).to(pipeline.dtype),\n"
        )
        + f"{settings})[0]  # of a video pipeline: the videos"
    )
    return (
        f"<h2>Use the noise in plain diffusers</h2>\n<pre>{escape(code)}</pre>\n"
        '<p class="note">The model is untouched: the learned noise is all that differs.</p>'
    )


def _use_weights(summary: Mapping[str, Any]) -> str:
    run = summary["run"]
    part = run.get("denoiser", "unet")
    load = (
        f'pipeline.load_lora_weights("{LORA}")'
        if run["lora_rank"]
        else f'pipeline.{part} = type(pipeline.{part}).from_pretrained("{DENOISER}")'
    )
    guidance = "" if run.get("guidance_scale") is None else f", guidance_scale={run['guidance_scale']!r}"
    code = (
        "from diffalign import load_pipeline\n\n"
        f"{_load_pipeline(summary)}"
        f"{load}\n"
        f'pictures = pipeline("a prompt", num_inference_steps={run["num_steps"]!r}{guidance}).images'
    )
    return f"<h2>Use the weights in plain diffusers</h2>\n<pre>{escape(code)}</pre>"


def _settings(config: Path, summary: Mapping[str, Any]) -> str:
    """The command, the settings, and what else the summary records."""
    sections = []
    command = summary["run"].get("command")
    if command:
        sections.append(f"<h2>Command</h2>\n<pre>{escape(str(command))}</pre>")
    if config.is_file():
        sections.append(
            f"<h2>Settings</h2>\n<pre>{escape(config.read_text('utf-8', 'replace').strip())}</pre>"
        )
    rest = {key: value for key, value in summary["run"].items() if key != "command" and value is not None}
    facts = " · ".join(f"{escape(str(key))} {escape(str(value))}" for key, value in rest.items())
    return "\n".join([*sections, f"<footer>diffalign{' · ' if facts else ''}{facts}</footer>"])


def _interval(interval: Mapping[str, float] | None, percent: bool = False) -> str:
    """A cell with a mean and its interval."""
    if interval is None:
        return _BLANK
    low, high = _number(interval["low"], percent), _number(interval["high"], percent)
    return f"{_number(interval['mean'], percent)}<small>{low} to {high}</small>"


def _number(value: float, percent: bool, signed: bool = False) -> str:
    digits = 2 if abs(value) >= 10 else 3
    text = f"{100 * value:+.1f}" if percent else f"{value:+.{digits}f}"
    return (text if signed else text.removeprefix("+")).replace("-", "−")


def _rounded(value: float | None, digits: int) -> str:
    """A cell with a number of so many decimal digits."""
    return _BLANK if value is None else f"{value:,.{digits}f}".replace(",", " ")


def _code(text: str) -> str:
    return f"<b>{escape(str(text))}</b>"

"""Figures as rich tables."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from diffalign.evaluation import Summary
    from diffalign.metrics.intervals import IntervalDict

_NAMES = {"baseline": "frozen model", "best_of_n": "best of N", "tuned": "tuned"}
_BLANK = "–"
_WIDTH = 110  # where there is no terminal to ask


def stdout() -> Console:
    """The console for results."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def warn(console: Console, notes: Sequence[str]) -> None:
    """What one should know before a run, a line each."""
    for note in notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)


def figures(title: str, *columns: str) -> Table:
    """Columns of figures after one of names, within 80 characters where they can be."""
    table = Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("")
    for column in columns:
        table.add_column(Text(column), justify="right")
    return table


def results(summary: Summary) -> Table:
    """Each row's figures with their 95 % intervals."""
    title = f"“{summary['prompt']}”, {summary['n']} fresh pictures a row"
    table = figures(title, summary["reward"], "judged right %", "Vendi", "queries", "seconds")
    for name in ("baseline", "best_of_n", "tuned"):
        if name not in summary["rows"]:
            continue
        row, cost = summary["rows"][name], summary["cost"][name]
        diversity = row["diversity"]
        table.add_row(
            _NAMES[name],
            interval(row["reward"]),
            interval(row["judged_accuracy"], percent=True),
            _BLANK if diversity is None else f"{diversity['vendi']:.1f}",
            str(cost["reward_queries"]),
            f"{cost['seconds']:.1f}",
            style="bold" if name == "tuned" else None,
        )
    gain = summary["gain"]
    if gain is not None:
        accuracy = interval(gain["judged_accuracy"], percent=True, signed=True)
        table.add_row("gain", interval(gain["reward"], signed=True), accuracy, "", "", "", style="green")
    table.caption = Text("[95 % interval]; gain: tuned less frozen, in pairs; Vendi: diversity, 1 to n")
    table.caption_justify = "left"
    return table


def overview(summaries: Sequence[Summary]) -> Table:
    """One row a prompt."""
    title = "Gains of the tuned noise over the frozen model, in pairs"
    table = figures(title, "reward", "right %, frozen", "gain")
    for summary in summaries:
        gain, accuracy = summary["gain"], summary["rows"]["baseline"]["judged_accuracy"]
        table.add_row(
            Text(summary["prompt"]),
            interval(gain and gain["reward"], signed=True),
            interval(accuracy, percent=True),
            interval(gain and gain["judged_accuracy"], percent=True, signed=True),
        )
    return table


def measures(said: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """What `evaluation.measuring.figures` says: a row a metric, a column a source and a difference."""
    names = [row["source"] for row in said["rows"]]
    less = [f"{row['source']} less {row['less']}" for row in said["differences"]]
    table = figures("Pictures in folders", *names, *(part for name in less for part in (name, "p")))
    for count in ("pictures", "prompts"):
        table.add_row(count, *(str(row[count]) for row in said["rows"]), style="dim")
    for metric in metrics:
        cells = [_figure(row[metric]) for row in said["rows"]]
        for row in said["differences"]:
            p = row[metric]["p"]
            cells += [_figure(row[metric], signed=True), _BLANK if p is None else f"{p:.2g}"]
        table.add_row(Text(metric), *cells)
    table.caption = Text("[95 % interval]" + "; p: of a permutation test of the pairs" * bool(less))
    table.caption_justify = "left"
    return table


def _figure(found: Mapping[str, Any], *, signed: bool = False) -> str:
    """With its interval, if it has one."""
    if found["low"] is not None:
        return interval(found, signed=signed)  # type: ignore[arg-type]
    return f"{found['mean']:{'+' if signed else ''}.3f}"


def interval(found: IntervalDict | None, *, percent: bool = False, signed: bool = False) -> str:
    """`48.4 [35.9, 60.9]`, or a dash."""
    if found is None:
        return _BLANK
    values = found["mean"], found["low"], found["high"]
    scale, digits = (100.0, 1) if percent else (1.0, 2 if max(map(abs, values)) >= 1 else 3)
    sign = "+" if signed else ""
    mean, low, high = (f"{scale * value:{sign}.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}]"


def paths(console: Console, files: Sequence[Path]) -> None:
    """Prints what was written, one path a line."""
    console.print("wrote", *(Text(f"  {file}") for file in files), sep="\n", soft_wrap=True)


def one_liner(
    noise: Path,
    model: str,
    prompt: str,
    call: Mapping[str, Any],
    *,
    ddim: bool = False,
    video: bool = False,
    n: int = 4,
) -> str:
    """A shell command that makes pictures, or videos, from learned noise in plain diffusers.

    Arguments:
        call: arguments of the pipeline's call; those that are None are left out.
        ddim: whether the noise was learned with --scheduler ddim.
        video: whether the noise is that of videos.
    """
    texts = {"noise": str(noise), "model": model, "prompt": prompt}
    quoted = {name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()}
    arguments = "".join(f", {name}={value!r}" for name, value in call.items() if value is not None)
    scheduler = ', scheduler="ddim"' if ddim else ""
    # prompts as a list: a video pipeline has no num_images_per_prompt
    latents = f"noise.sample({n}, seed=0).to(pipeline.dtype)"
    made = f"pipeline([{quoted['prompt']}] * {n}, latents={latents}{arguments}"
    code = (
        "from diffalign import NoiseDistribution, load_pipeline; "
        f"noise = NoiseDistribution.load({quoted['noise']}); "
        f"pipeline = load_pipeline({quoted['model']}{scheduler}); "
    )
    if video:
        code += "from diffusers.utils import export_to_gif; "
        code += f'export_to_gif({made}, output_type="pil").frames[0], "video.gif")'
    else:
        code += f'{made}).images[0].save("picture.png")'
    return f"python -c {shlex.quote(code)}"

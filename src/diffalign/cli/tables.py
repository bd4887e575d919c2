"""Results, to stdout: figures as rich tables, or as lines of JSON; and notices, to stderr."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from diffalign.settings.choices import shortened
from diffalign.settings.plan import own_reward
from diffalign.world import WORLD_MODELS

if TYPE_CHECKING:
    from diffalign.evaluation import Summary
    from diffalign.evaluation.summary import Diversity
    from diffalign.metrics.intervals import IntervalDict
    from diffalign.run.headroom import Headroom
    from diffalign.run.rehearsal import Rehearsal
    from diffalign.run.session import Session
    from diffalign.settings.compare import CompareConfig

_NAMES = {"baseline": "frozen model", "best_of_n": "best of N", "tuned": "learned"}
_BLANK = "–"
_GAINS = ("reward", "judged_accuracy", "pairwise_distance")
_WIDTH = 120  # where there is no terminal to ask
#: What leads a terminal, which rich passes on, or what no terminal can be sent.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Terminal(Console):
    """A console on which text from elsewhere (prompts, names, answers of servers) moves nothing."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Segments whose text has a mark for each control character."""
        for text, style, control in super().render(renderable, options):
            yield Segment(
                text if control else _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text), style, control
            )


@dataclass
class Output:
    """How a script wants it.

    Attributes:
        json: whether results are lines of JSON.
        quiet: whether there is no word beside results and errors.
    """

    json: bool = False
    quiet: bool = False


#: Of the command that runs.
OUTPUT = Output()


def stdout() -> Console:
    """The console for results."""
    console = Terminal(highlight=False)
    return console if console.is_terminal else Terminal(highlight=False, width=_WIDTH)


def stderr() -> Console:
    """The console for progress and notices."""
    return Terminal(stderr=True, highlight=False, quiet=OUTPUT.quiet)


def show(result: RenderableType, *records: Mapping[str, Any]) -> None:
    """Prints a result, or where JSON is wanted its records, a line each."""
    if not OUTPUT.json:
        stdout().print(result, soft_wrap=isinstance(result, Text))
        return
    for record in records:
        print(json.dumps(record, ensure_ascii=False, default=str), flush=True)


def notice(*lines: str, style: str = "") -> None:
    """Says what is no result; what one should know before a run is yellow."""
    say(stderr(), *lines, style=style)


def notice_own_reward(reward: str | None, model: str) -> None:
    """Says which reward is taken where none was named, of a model for which it was not made."""
    if reward is None and model not in WORLD_MODELS:
        said = f"no --reward was given: {own_reward(model)}, the embedded world's, scores the pictures"
        notice(said, style="yellow")


def say(console: Console, *lines: str, style: str = "") -> None:
    """Prints lines as they are."""
    for line in lines:
        console.print(Text(line, style=style), soft_wrap=True)


def new_table(title: str, *columns: str) -> Table:
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
    title = f"“{shortened(summary['prompt'])}”, {count(summary['n'], 'fresh picture')} a row"
    video = any(row.get("frame_consistency") for row in summary["rows"].values())
    steady = ("frame consistency",) if video else ()
    table = new_table(title, summary["reward"], "judged right %", "distance", *steady, "queries", "seconds")
    for name in ("baseline", "best_of_n", "tuned"):
        if name not in summary["rows"]:
            continue
        row, cost = summary["rows"][name], summary["cost"][name]
        table.add_row(
            _NAMES[name],
            interval(row["reward"]),
            interval(row["judged_accuracy"], percent=True),
            _distance(row["diversity"]),
            *([interval(row["frame_consistency"])] if video else []),
            str(cost["reward_queries"]),
            f"{cost['seconds']:.1f}",
            style="bold" if name == "tuned" else None,
        )
    gain = summary["gain"]
    if gain is not None:
        kinds = (*_GAINS, "frame_consistency") if video else _GAINS
        table.add_row("gain", *_gains(gain, kinds), "", "")
    table.caption = Text("[95 % interval]; gain: learned less frozen, in pairs; distance: diversity")
    table.caption_justify = "left"
    return table


def overview(summaries: Sequence[Summary]) -> Table:
    """One row a prompt."""
    title = "Gains of the learned noise over the frozen model, in pairs"
    table = new_table(title, "right %, frozen", "reward", "right %", "distance")
    for summary in summaries:
        gain, accuracy = summary["gain"], summary["rows"]["baseline"]["judged_accuracy"]
        gains = [_BLANK] * 3 if gain is None else _gains(gain)
        table.add_row(Text(shortened(summary["prompt"])), interval(accuracy, percent=True), *gains)
    return table


def _gains(gain: Mapping[str, Any], kinds: Sequence[str] = _GAINS) -> list[Text]:
    """Of the `kinds` of figures: green where there is one, red where there is a loss. One pair alone
    tells neither, though its interval has no width."""
    cells = []
    for name in kinds:
        found: IntervalDict | None = gain[name]
        style = ""
        if found is not None and found["n"] > 1:
            style = "green" if found["low"] > 0 else "red" if found["high"] < 0 else ""
        cells.append(Text(interval(found, percent=name == "judged_accuracy", signed=True), style))
    return cells


def _distance(diversity: Diversity | None) -> str:
    return _BLANK if diversity is None else f"{diversity['pairwise_distance']:.3f}"


def measures(figures: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """What `evaluation.measuring.figures` returns: a row a metric, a column a source and a difference."""
    names = [row["source"] for row in figures["rows"]]
    less = [f"{row['source']} less {row['less']}" for row in figures["differences"]]
    table = new_table("Pictures in folders", *names, *(part for name in less for part in (name, "p")))
    for name in ("pictures", "prompts"):
        table.add_row(name, *(str(row[name]) for row in figures["rows"]), style="dim")
    for metric in metrics:
        cells = [_figure(row[metric]) for row in figures["rows"]]
        for row in figures["differences"]:
            p = row[metric]["p"]
            cells += [_figure(row[metric], signed=True), _BLANK if p is None else f"{p:.2g}"]
        table.add_row(Text(metric), *cells)
    table.caption = Text("[95 % interval]" + "; p: of a permutation test of the pairs" * bool(less))
    table.caption_justify = "left"
    return table


def _figure(found: Mapping[str, Any], *, signed: bool = False) -> str:
    if found["mean"] is None:
        return _BLANK
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


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def paths(console: Console, files: Sequence[Path]) -> None:
    """Prints what was written, one path a line, unless JSON is wanted."""
    if not OUTPUT.json:
        say(console, "wrote", *(f"  {file}" for file in files))


def search_results(summary: Mapping[str, Any]) -> Table:
    """All pictures of a search, or its previews, and those that it kept."""
    kept, previews = summary["kept"], summary["previews"]
    title = f"“{shortened(summary['prompt'])}”: {summary['description']} by {summary['reward']}"
    table = new_table(title, summary["reward"], "judged right %", "distance")
    row = "previews" if previews else "all"
    table.add_row(row, interval((previews or summary["all"])["reward"]), _BLANK, _BLANK)
    right = interval(kept["judged_accuracy"], percent=True)
    table.add_row("kept", interval(kept["reward"]), right, _distance(kept["diversity"]))
    table.caption = Text("[95 % interval]; the kept ones alone are judged, and the reward chose them")
    return table


def rehearsed(rehearsal: Rehearsal, runs: int) -> Table:
    """What as many runs alike would take."""
    table = new_table("Of the whole, by its first round", "")
    seconds = rehearsal.learning_seconds, rehearsal.evaluation_seconds
    memory = rehearsal.peak_memory_mb
    for name, value in {
        "runs": f"{runs}",
        "reward queries": f"{runs * rehearsal.queries:,}",
        "pictures": f"{runs * rehearsal.pictures:,}",
        "learning": _duration(runs * seconds[0]),
        "evaluation": _duration(runs * seconds[1]),
        "memory so far": _BLANK if memory is None else f"{memory / 1000:.1f} GB",
        "denoiser": f"{rehearsal.parameters / 1e6:,.1f} million parameters",
    }.items():
        table.add_row(name, value)
    return table


def headroom(found: Headroom, reward: str) -> Table:
    """What decides the reward, and what the best of several seeds would gain."""
    table = new_table(f"What decides {reward}", "")
    shares = found.shares
    table.add_row("the prompt, whatever the noise", f"{100 * shares.prompt:.0f} %")
    table.add_row("the noise, whatever the prompt", f"{100 * shares.noise:.0f} %")
    table.add_row("which noise for which prompt", f"{100 * shares.both:.0f} %")
    table.add_row("mean reward", f"{found.mean:.4g}")
    for n, best in found.best.items():
        table.add_row(f"best of {n} seeds", f"{best:.4g} ({best - found.mean:+.3g})")
    if found.right is not None:
        table.add_row("judged right", f"{100 * found.right:.0f} %")
    return table


def _duration(seconds: float) -> str:
    """Such as 12 s, 3 min or 2.5 h."""
    for unit, size in (("s", 60), ("min", 3600)):
        if seconds < size:
            return f"{seconds / (size / 60):.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def comparison_table(rows: Mapping[str, Mapping[str, Any]], config: CompareConfig) -> Table:
    """One row a method."""
    spent, shown = count(config.queries, "reward query", "reward queries"), count(config.images, "picture")
    title = f"{config.prompts}, {spent} and {shown} of each prompt"
    table = new_table(title, config.reward or "reward", "judged right %", "distance", "forwards", "seconds")
    for method, row in rows.items():
        distance = _BLANK if row["distance"] is None else f"{row['distance']:.3f}"
        reward, judged = interval(row["reward"]), interval(row["judged"], percent=True)
        table.add_row(method, reward, judged, distance, f"{row['forwards']:.0f}", f"{row['seconds']:.1f}")
    others = [
        f"{method}: {row['queries']:.4g} queries a prompt"
        for method, row in rows.items()
        if method != "frozen" and row["queries"] != config.queries
    ]
    table.caption = Text("; ".join(["[95 % interval]", *others]))
    return table


def next_steps(session: Session) -> list[str]:
    """How more pictures are made, but of a search, and where the report is."""
    from diffalign.files import REPORT

    folder, learner = session.folder, session.learner
    prompt = "" if learner.one_prompt else " --prompt PROMPT"
    generate = f"more pictures: diffalign generate {shlex.quote(str(folder.path))}{prompt} -n 16"
    lines = [generate] if learner.kept() is None else []
    return lines + [f"the report:    {folder / REPORT}"] * (folder / REPORT).exists()


def run_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What `run.listing.list_runs` returns: a row a run; what is the same of all stands below."""
    columns = "method", "model", "prompts", "reward", "state"
    texts = [{name: _in_words(row[name]) for name in columns} for row in rows]
    shared = {name: text for name, text in texts[0].items() if all(text == row[name] for row in texts)}
    own = [name for name in columns if name not in shared]
    table = new_table("Runs", *own, "queries", "score", "right %", "differs in")
    for column in (*table.columns[: 1 + len(own)], table.columns[-1]):
        column.justify, column.overflow = "left", "fold"
    table.columns[0].no_wrap = True
    for row, text in zip(rows, texts, strict=True):
        table.add_row(
            Text(row["run"]),
            *(Text(text[name]) for name in own),
            _BLANK if row["queries"] is None else str(row["queries"]),
            _change(row["reward_before"], row["reward_after"]),
            _change(row["right_before"], row["right_after"], 100),
            Text(", ".join(f"{name}={value}" for name, value in row["differs"].items())),
        )
    alike = [f"{name}: {text}" for name, text in shared.items() if text]
    notes = "score, by the reward, and right %: before → after", "differs in: from other runs of the method"
    table.caption = Text("; ".join([*alike, *notes]))
    table.caption_justify = "left"
    return table


def _in_words(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else count(len(value), "prompt")


def _change(before: float | None, after: float | None, scale: float = 1) -> str:
    """`0.123 → 0.456`, or a dash."""
    if before is None or after is None:
        return _BLANK
    return f"{scale * before:.3g} → {scale * after:.3g}"

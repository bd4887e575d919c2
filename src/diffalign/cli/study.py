"""`diffalign study` and `diffalign study-results`: what people say of pictures."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators
from rich.console import Group
from rich.text import Text

from diffalign.cli.options import RUN, Seed
from diffalign.cli.tables import count, interval, new_table, paths, show, stdout
from diffalign.settings.fields import ConfigError

if TYPE_CHECKING:
    from diffalign.evaluation.sources import Source
    from diffalign.study.questions import Design

_Count = Annotated[int | None, Parameter(group=RUN.group, validator=validators.Number(gte=0))]
_Some = Annotated[int | None, Parameter(group=RUN.group, validator=validators.Number(gte=1))]


def study(
    *folders: Annotated[str, Parameter(name="FOLDER", group=RUN.group)],
    out: Annotated[Path, RUN],
    mode: Annotated[Literal["pairs", "rating"] | None, RUN] = None,
    questions: _Some = None,
    checks: _Count = None,
    anchor: Annotated[str | None, RUN] = None,
    prompt: Annotated[str | None, RUN] = None,
    seed: Annotated[Seed | None, RUN] = None,
    invite: Annotated[bool | None, RUN] = None,
    host: Annotated[str, RUN] = "127.0.0.1",
    port: Annotated[int, Parameter(group=RUN.group, validator=validators.Number(gte=0, lte=65535))] = 8080,
) -> None:
    """Ask people in a browser which pictures are better, or how good each is; they see no names.

    A folder is a run's, with the pictures that `diffalign generate` wrote, or any other with pictures in it;
    or it holds such folders, one a prompt. Pictures of the same prompt meet in the order of their names,
    so all folders need the same prompts with equally many pictures. The prompt is what the run recorded,
    or in prompt.txt beside them; else --prompt, or the inner folder's name with dashes as spaces.

        diffalign study runs/a runs/b --out studies/a-b
        diffalign study ours=runs/a frozen=pictures/frozen --prompt "a dog on the moon" --out studies/dog
        diffalign study --out studies/a-b          # goes on, with all votes

    Votes are kept in the file study.sqlite, with the pictures; `diffalign study-results` counts them. There
    is no encryption: for voters elsewhere, put it behind a proxy that has it.

    Args:
        folders: Folders of pictures, or NAME=FOLDER; none to go on with a study.
        out: The folder of the study.
        mode: What is asked: which of two is better (pairs, the default), or 1 to 5 of each (rating).
        questions: How many questions each voter is asked; 40 by default, or all if there are fewer.
        checks: How many further pairs are the same picture twice, to see who looks; none by default.
        anchor: The name of the one that all others are compared with; all with all by default.
        prompt: The prompt of pictures that lie in FOLDER itself, if nothing beside them says it.
        seed: The seed of the questions' order and sides; 0 by default.
        invite: Only who has the code in the address that is printed can begin; anybody by default.
        host: Where it listens; 127.0.0.1 is this machine alone.
        port: The port where it listens; 0 takes a free one.
    """
    from diffalign.evaluation.sources import read_source
    from diffalign.study.server import StudyServer
    from diffalign.study.votes import STUDY, Votes, create

    settings = {"mode": mode, "questions": questions, "checks": checks, "anchor": anchor, "seed": seed}
    given = {name: it for name, it in {**settings, "invite": invite}.items() if it is not None}
    sources = [read_source(folder, prompt) for folder in folders]
    if not (out / STUDY).is_file():
        create(out, _new(sources, given), sources)
        sources = []
    with closing(Votes(out)) as votes:
        _check(out, votes.design, votes.digest, sources, given)
        with closing(StudyServer(votes, host=host, port=port)) as server:
            asked = votes.design.questions + votes.design.checks
            so_far = len(votes.all())
            show(
                Text(
                    f"{asked} questions a voter, {so_far} votes so far: {server.invitation}\n"
                    f"Ctrl-C ends it; count with: diffalign study-results {out}"
                ),
                {"folder": out, "url": server.invitation, "questions": asked, "votes": so_far},
            )
            server.serve_forever()


def _new(sources: list[Source], given: dict[str, Any]) -> Design:
    from diffalign.evaluation.sources import matched
    from diffalign.study.questions import Design

    prompts = matched(sources)
    names = tuple(source.name for source in sources)
    return Design(
        **{"mode": "pairs", **given}, sources=names, prompts=tuple(prompts), counts=tuple(prompts.values())
    )


def _check(out: Path, design: Design, digest: str, sources: list[Source], given: dict[str, Any]) -> None:
    """That a study that was begun is what is asked for now."""
    from diffalign.study.votes import digest_of

    there = f"the study in {out}"
    for name, value in given.items():
        if value != getattr(design, name):
            raise ConfigError(
                f"{there} has {name} {getattr(design, name)!r}, not {value!r}; leave out --{name}, or give "
                "another --out"
            )
    if not sources:
        return
    new = _new(sources, {"mode": design.mode})
    if (new.sources, new.prompts, new.counts) != (design.sources, design.prompts, design.counts):
        raise ConfigError(f"{there} is of other folders; give none to go on with it, or another --out")
    if digest_of(new, sources) != digest:
        raise ConfigError(f"{there} has other pictures; give no folder to go on with those, or another --out")


def study_results(folder: Annotated[Path, Parameter(name="FOLDER")], /) -> None:
    """Count the votes of a study: a table, and results.json in its folder.

    A tie is half a vote for each. Intervals are for other voters and other prompts. A study
    may be counted while it runs.

        diffalign study-results studies/a-b

    Args:
        folder: The folder of the study.
    """
    from diffalign.files import write_json
    from diffalign.study.results import results
    from diffalign.study.votes import RESULTS, Votes

    with closing(Votes(folder)) as votes:
        found = results(votes.design, votes.all())
    write_json(folder / RESULTS, found)
    show(Group(*_tables(found), *map(Text, _notes(found))), {"folder": folder, **found})
    paths(stdout(), [folder / RESULTS])


def _tables(found: dict[str, Any]) -> list[Any]:
    counts = ("votes", "vote"), ("voters", "voter"), ("prompts_asked", "prompt")
    votes, voters, asked = (count(found[name], noun) for name, noun in counts)
    title = f"{votes} of {voters} on {asked}"
    if found["mode"] == "pairs":
        table = new_table(title, "shows it better %", "ties", "looks better %", "ties", "votes", "voters")
        for row in found["rows"]:
            table.add_row(
                Text(f"{row['first']} over {row['second']}"),
                interval(row["alignment"], percent=True),
                str(row["alignment_ties"]),
                interval(row["quality"], percent=True),
                str(row["quality_ties"]),
                str(row["votes"]),
                str(row["voters"]),
            )
        return [table]
    means = new_table(title, "shows it, 1 to 5", "looks good, 1 to 5", "votes", "voters")
    for row in found["rows"]:
        both = interval(row["alignment"]), interval(row["quality"])
        means.add_row(Text(row["source"]), *both, str(row["votes"]), str(row["voters"]))
    gains = new_table("Differences, of the same voter and prompt", "shows it", "looks good")
    for row in found["differences"]:
        both = interval(row["alignment"], signed=True), interval(row["quality"], signed=True)
        gains.add_row(Text(f"{row['first']} less {row['second']}"), *both)
    return [means, gains]


def _notes(found: dict[str, Any]) -> list[str]:
    notes = ["[95 % interval], for other voters and other prompts"]
    for name, number in (("voter", found["voters"]), ("prompt", found["prompts_asked"])):
        if number == 1:
            notes.append(f"one {name} alone: how others would differ is not in the intervals")
    agreement = found["agreement"]
    if agreement["alignment"] is not None:
        notes.append(
            f"two voters say the same of the same pictures: {100 * agreement['alignment']['share']:.0f} % "
            f"on the description, {100 * agreement['quality']['share']:.0f} % on the look "
            f"({agreement['quality']['pairs']} pairs of votes)"
        )
    if found["checks"]["votes"]:
        notes.append(f"checks passed: {found['checks']['passed']} of {found['checks']['votes']}")
    return notes

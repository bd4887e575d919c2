"""The commands of the methods: `find`, `anchors`, `noise-ppo`, `tune`, `search`, one a row of `METHODS`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diffalign.cli.options import EVALUATION, LEARNING, RUN, SAMPLING, SWITCH
from diffalign.cli.progress import RunProgress
from diffalign.cli.tables import (
    OUTPUT,
    next_steps,
    notice,
    notice_own_reward,
    overview,
    paths,
    rehearsed,
    results,
    search_results,
    show,
    stderr,
    stdout,
)
from diffalign.settings.fields import ConfigError
from diffalign.settings.methods import Method
from diffalign.settings.plan import Plan
from diffalign.settings.sampling import Sampling

# no `from __future__ import annotations`: the settings' classes are those of the row


def make_command(name: str, row: Method) -> Callable[..., int]:
    """The command of a method; its settings are the row's."""

    def command(
        *prompt: Annotated[str, RUN],
        prompts: Annotated[str | None, RUN] = None,
        reward: Annotated[str | None, RUN] = None,
        out: Annotated[Path | None, RUN] = None,
        overwrite: Annotated[bool, SWITCH] = False,
        dry_run: Annotated[bool, SWITCH] = False,
        resume: Annotated[str | None, RUN] = None,
        config: Annotated[Path | None, RUN] = None,
        sampling: Annotated[Sampling, SAMPLING] = Sampling(),
        preset: Annotated[str, Parameter(group=LEARNING.group)] = "default",
        learning: Annotated[row.config, LEARNING] = row.config(),  # type: ignore[name-defined]
        evaluation: Annotated[row.evaluation, EVALUATION] = row.evaluation(),  # type: ignore[name-defined]
    ) -> int:
        """The folder keeps all that --resume needs: after a kill, a run goes on to the same result.

        Args:
            prompt: What the pictures should show.
            prompts: A set of `diffalign prompts`, or a .txt or .json file, instead of PROMPT.
            reward: What scores the pictures: a name of `diffalign rewards`, or your own as
                my_module:my_function; the embedded world's own by default.
            out: The run's folder; in runs/ by default. Of a method that learns prompt by prompt, several
                prompts get a folder each in it.
            overwrite: Replace the run that the folder holds.
            dry_run: Make the first round alone, say what the whole run would take, and write nothing.
            resume: Go on with the run in this folder; without one, in the folder of --out or of the prompt.
            config: A YAML file of settings, such as a run's config.yaml; what is given here goes first.
            preset: Which settings to start from: {presets}.{sampling}
        """
        plans = _plans(name, row, prompt, prompts, (reward, preset, sampling, learning, evaluation))
        folders = _folders(plans, out, prompts) if plans else []
        if resume is not None:
            return _resume(name, [Path(resume)] if resume else folders or [out or Path("runs")])
        if not plans:
            raise ConfigError(
                "no prompts; write what the pictures should show, such as 'a blue car on the moon', or name "
                "a set such as world/unusual, or a file, with --prompts"
            )
        from diffalign.artifacts import RunFolder
        from diffalign.run.launch import is_main, start

        if dry_run:
            return _rehearse(plans, folders)
        claimed = [RunFolder(folder, overwrite) for folder in folders]
        for folder in claimed if is_main() else ():
            folder.check()
        return _present(start, list(zip(claimed, plans, strict=True)))

    text = cleandoc(command.__doc__ or "").replace("{presets}", ", ".join(row.presets))
    command.__doc__ = f"{row.help}\n{text.replace('{sampling}', _sampling_of_presets(row))}"
    return command


def _sampling_of_presets(row: Method) -> str:
    """A sentence of the presets that set the same flags of sampling."""
    presets = dict[str, list[str]]()
    for name, settings in row.sampling.items():
        flags = [f"--{setting.replace('_', '-')} {value}" for setting, value in settings.items()]
        presets.setdefault(" ".join(flags), []).append(name)
    return "".join(f" With {', '.join(names)}: {flags}." for flags, names in presets.items())


def _plans(
    name: str, row: Method, prompt: tuple[str, ...], prompts: str | None, settings: tuple[Any, ...]
) -> list[Plan]:
    if prompts is not None and prompt:
        raise ConfigError("give prompts or --prompts, not both")
    reward, preset, sampling, learning, evaluation = settings
    notice_own_reward(reward, sampling.model)
    given = tuple(dict.fromkeys(prompt)) if prompts is None else prompts
    if len(prompt) > 1 and row.per_prompt and not any(" " in text for text in prompt):
        notice(f"{len(given)} prompts of a word each; put quotes around a prompt of several words")
    texts: Sequence[str | tuple[str, ...]] = [given] if given else []
    if row.per_prompt:
        from diffalign.run.asked import read_prompts

        texts = [(text,) for text in (read_prompts(given) if isinstance(given, str) else given)]
    return [Plan(name, text, learning, evaluation, sampling, reward or "", preset) for text in texts]


def _folders(plans: Sequence[Plan], out: Path | None, prompts: str | None) -> list[Path]:
    from diffalign.run.folders import RUNS, folders_for, slug

    if out is not None and len(plans) == 1:
        return [out]
    if not all(isinstance(plan.prompts, tuple) and len(plan.prompts) == 1 for plan in plans):
        return [RUNS / f"{plan.method}-{plan.preset}" for plan in plans]
    texts = [plan.prompts[0] for plan in plans]
    prefix = "" if plans[0].method == "find" else f"{plans[0].method}-"
    if out is None and (prompts is None or len(plans) == 1):
        return [folder.with_name(prefix + folder.name) for folder in folders_for(texts, RUNS)]
    named = "" if prompts is None else slug(Path(prompts).stem if Path(prompts).is_file() else prompts)
    return folders_for(texts, out or RUNS / (prefix + named))


def _resume(name: str, paths: Sequence[Path]) -> int:
    from diffalign.files import CONFIG, ArtifactError
    from diffalign.run.folders import read_plan, runs_in
    from diffalign.run.launch import resume

    begun = []
    folders = [folder for path in paths for folder in runs_in(path)]
    for folder in folders:
        try:
            writer = folder.config().get("method")
            if writer != name:
                by = "" if writer is None else f" but by diffalign {writer}"
                raise ArtifactError(f"{folder / CONFIG} was not written by diffalign {name}{by}")
            plan = read_plan(folder)
        except ArtifactError as error:
            if len(folders) == 1:
                raise
            notice(f"{folder.path} is left out: {error}")
            continue
        if folder.finished():
            notice(f"{folder.path} is finished; --overwrite starts it anew")
        else:
            begun.append((folder, plan))
    return _present(resume, begun)


def _rehearse(plans: Sequence[Plan], folders: Sequence[Path]) -> int:
    from diffalign.artifacts import RunFolder
    from diffalign.run.rehearsal import rehearse

    rehearsal = rehearse(plans[0], RunFolder(folders[0]))
    notice(*rehearsal.warnings, style="yellow")
    show(rehearsed(rehearsal, len(plans)), {"runs": len(plans), **asdict(rehearsal)})
    return 0


def _present(launch: Callable[..., Any], runs: Sequence[Any]) -> int:
    from diffalign.run.launch import is_main

    OUTPUT.quiet |= not is_main()  # of several processes one speaks
    summaries = []
    for session, summary in launch(runs, partial(RunProgress, stderr())):
        if summary is None:
            continue
        record = {"folder": session.folder.path, **summary}
        if session.learner.kept() is not None:
            show(search_results(summary), record)
        else:
            summaries.append(summary)
            show(results(summary), record)
        paths(stdout(), session.output_files())
        notice(*next_steps(session))
    if len(summaries) > 1:
        show(overview(summaries))
    return 0

"""`diffalign measure`: the papers' metrics of pictures in folders."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diffalign.cli.options import RUN, Positive
from diffalign.cli.progress import RunProgress
from diffalign.cli.tables import measures, notice, paths, show, stderr, stdout
from diffalign.settings.fields import ConfigError

if TYPE_CHECKING:
    import torch

    from diffalign.evaluation.measuring import Reader


def measure(
    *folders: Annotated[str, Parameter(name="FOLDER", group=RUN.group)],
    metrics: Annotated[str, RUN] = "clip,aesthetic,vendi,inception-clip",
    features: Annotated[str, RUN] = "clip",
    inception: Annotated[str, RUN] = "",
    prompt: Annotated[str | None, RUN] = None,
    batch_size: Positive = 16,
    device: Annotated[str | None, RUN] = None,
    out: Annotated[Path | None, RUN] = None,
) -> None:
    """Measure pictures in folders, wherever they come from, and compare the folders.

    A metric is a reward, of each picture, or one of: distance, vendi, inception-clip, inception, of the
    pictures together. The others are compared with the first folder, in pairs where both have the same
    prompts with equally many pictures; p is that of a permutation test.

    A folder is a run's, with the pictures that `diffalign generate` wrote, or any other with pictures in it;
    or it holds such folders, one a prompt. The prompt is what the run recorded, or in prompt.txt beside
    them; else --prompt, or the inner folder's name with dashes as spaces.

        diffalign generate runs/a -n 64; diffalign generate runs/a -n 64 --frozen
        diffalign measure frozen=runs/a/frozen runs/a --metrics world-scene,vendi --features world-clip
        diffalign measure sd15 ours --metrics "image-reward,aesthetic,pickscore,inception-clip,inception"

    Args:
        folders: Folders of pictures, or NAME=FOLDER.
        metrics: The metrics' names, joined by commas.
        features: What distance, vendi and inception-clip see: clip, clip@CHECKPOINT, world-clip or pixels.
        inception: The folder or repository of Inception's weights; the published ones by default.
        prompt: The prompt of pictures that lie in FOLDER itself, if nothing beside them says it.
        batch_size: How many pictures are measured at a time.
        device: Where networks run, such as cpu or cuda:0; the accelerator, if there is one, by default.
        out: A JSON file of the figures.
    """
    from diffalign.evaluation.measuring import SET_METRICS, figures
    from diffalign.evaluation.measuring import measure as measured
    from diffalign.evaluation.sources import SourceError, matched, read_source
    from diffalign.files import write_json
    from diffalign.rewards import RewardError, load_reward
    from diffalign.run.loading import check_device

    asked = [name.strip() for name in metrics.split(",") if name.strip()]
    if not folders or not asked:
        raise ConfigError("give at least one folder and one of --metrics")
    sources = [read_source(folder, prompt) for folder in folders]
    if len({source.name for source in sources}) < len(sources):
        raise ConfigError("two folders have the same name; give names: NAME=FOLDER")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent} for {out.name}")
    place = check_device(device)
    if len(sources) > 1:
        import_module("scipy")  # here and not after everything is scored
    if {"inception", "inception-clip"} & set(asked):
        import_module("torchmetrics")
    try:
        rewards = {name: load_reward(name, device=place) for name in asked if name not in SET_METRICS}
    except RewardError as error:
        if str(error).startswith("unknown reward"):
            error.add_note(f"or a metric of pictures together: {', '.join(SET_METRICS)}")
        raise
    together = _readers([name for name in asked if name in SET_METRICS], features, inception, place)
    found = {}
    with RunProgress(stderr(), sum(source.size for source in sources)) as progress:
        for source in sources:
            with progress.phase(source.name, source.size):
                found[source.name] = measured(
                    source, rewards, together, batch_size=batch_size, on_batch=progress.advance
                )
    said = figures(found)
    show(measures(said, asked), said)
    for other in sources[1:]:
        try:
            matched([sources[0], other])
        except SourceError as error:
            notice(f"{other.name} and {sources[0].name} are not paired: {error}", style="yellow")
    if out is not None:
        write_json(out, said)
        paths(stdout(), [out])


def _readers(
    names: list[str], features: str, inception: str, device: torch.device | None
) -> dict[str, Reader]:
    """What metrics of pictures together see; features that several see are loaded once."""
    from diffalign.metrics.features import feature_reader
    from diffalign.metrics.inception import PUBLISHED, load_inception

    found: dict[str, Reader] = {}
    if "inception" in names:
        network = load_inception(inception or PUBLISHED, device)
        found["inception"] = lambda images: network(images.to(network.fc.weight.device))
    if others := [name for name in names if name != "inception"]:
        try:
            found |= dict.fromkeys(others, feature_reader(features, device))
        except ValueError as error:
            raise ConfigError(str(error)) from error
    return found

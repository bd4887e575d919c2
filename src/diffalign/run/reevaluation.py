"""What was learned against the frozen model again: other pictures, another reward, another judge."""

from collections.abc import Sequence
from pathlib import Path

from diffalign.evaluation import Cost, Summary, pooled, summarise
from diffalign.files import EVALUATION, write_json
from diffalign.metrics import embedder
from diffalign.rewards import RewardError
from diffalign.run.asked import read_prompts
from diffalign.run.folders import slug
from diffalign.run.loading import make_setup, reward_for
from diffalign.run.opening import Opened
from diffalign.run.progress import Progress
from diffalign.settings.evaluation import JudgeChoice
from diffalign.settings.sampling import Opening, Sampling


def reevaluate(
    opened: Opened,
    prompts: Sequence[str],
    progress: Progress,
    reward: str | None,
    judge: JudgeChoice,
    images: int,
    seed: int,
    opening: Opening,
    out: Path | None,
) -> tuple[Summary, Path]:
    """Fresh pictures in pairs of the same noise; returns their figures and the JSON file that holds them.

    Arguments:
        prompts: where the artefact was learned for all prompts.
        reward: its name; that of learning by default.
        opening: whose device, and offload, are those of a reward that is a network too.
        out: the file; evaluation.json beside the artefact by default, with the prompt in its name if one is
            given, and the diversity.
    """
    texts = tuple(opened.check_prompt(prompt) for prompt in prompts or (None,))
    sampler, metadata = opened.sampler, opened.metadata
    name = reward or metadata.get("reward", "")
    opened.noise(texts[0])  # a search has none
    model = str(sampler.pipeline.config["_name_or_path"])
    texts = read_prompts(texts, name, judge, model)
    try:
        function = reward_for(name, Sampling(device=opening.device, offload=opening.offload))
    except RewardError as error:
        if reward is None:
            error.add_note("name the reward with --reward")
        raise
    setup = make_setup(sampler, function, embedder, model, name, judge, texts)
    queries = int(metadata.get("queries", 0))  # of learning, whose seconds are not known
    forwards = int(metadata.get("denoiser_forwards", queries * sampler.forwards))
    spent = Cost(queries, forwards, 0.0)
    before, after, cost = setup.measure_pairs(opened, texts, images, seed, progress, spent)
    run = {"seed": seed, "num_steps": sampler.num_steps, "guidance_scale": sampler.guidance_scale}
    if opened.diversity is not None:
        run["diversity"] = opened.diversity
    said = texts[0] if len(texts) == 1 else f"{len(texts)} prompts"
    names = {"prompt": said, "prompts": texts, **setup.names}
    summary = summarise(pooled(before), pooled(after), None, cost, **names, run=run)
    beside = opened.path if opened.path.is_dir() else opened.path.parent
    diversity = () if opened.diversity is None else (f"diversity-{opened.diversity:g}",)
    parts = [EVALUATION.removesuffix(".json"), *([slug(said)] if prompts else []), *diversity]
    out = out or beside / ("-".join(parts) + ".json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, summary)
    return summary, out

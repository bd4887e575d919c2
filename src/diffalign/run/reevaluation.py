"""What was learned against the frozen model again: other pictures, another reward, another judge."""

from pathlib import Path

from diffalign.evaluation import Cost, Summary, summarise
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
    prompt: str | None,
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
        prompt: where the artefact was learned for all prompts.
        reward: its name; that of learning by default.
        opening: whose device, and offload, are those of a reward that is a network too.
        out: the file; evaluation.json beside the artefact by default.
    """
    text, sampler, metadata = opened.check_prompt(prompt), opened.sampler, opened.metadata
    name = reward or metadata.get("reward", "")
    opened.noise(text)  # a search has none
    model = str(sampler.pipeline.config["_name_or_path"])
    read_prompts([text], name, judge, model)
    try:
        function = reward_for(name, Sampling(device=opening.device, offload=opening.offload))
    except RewardError as error:
        if reward is None:
            error.add_note("name the reward with --reward")
        raise
    setup = make_setup(sampler, function, embedder, model, name, judge, [text])
    queries = int(metadata.get("queries", 0))  # of learning, whose seconds are not known
    forwards = int(metadata.get("denoiser_forwards", queries * sampler.forwards))
    spent = Cost(queries, forwards, 0.0)
    (before,), (after,), cost = setup.measure_pairs(opened, [text], images, seed, progress, spent)
    run = {"seed": seed, "num_steps": sampler.num_steps, "guidance_scale": sampler.guidance_scale}
    if opened.diversity is not None:
        run["diversity"] = opened.diversity
    summary = summarise(before, after, None, cost, prompt=text, **setup.names, run=run)
    beside = opened.path if opened.path.is_dir() else opened.path.parent
    out = out or beside / (EVALUATION if prompt is None else f"evaluation-{slug(text)}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, summary)
    return summary, out

"""What was learned against the frozen model again: other pictures, another reward, another judge."""

from dataclasses import replace
from pathlib import Path

from diffalign.evaluation import Summary, summarise
from diffalign.files import EVALUATION, write_json
from diffalign.metrics import embedder
from diffalign.rewards import RewardError, load_reward
from diffalign.run.folders import slug
from diffalign.run.held_out import measure_pairs
from diffalign.run.loading import Setup, check_device, check_pictures, check_prompts, load_judge
from diffalign.run.opening import Opened
from diffalign.run.progress import Progress
from diffalign.settings.evaluation import JudgeChoice


def reevaluate(
    opened: Opened,
    prompt: str | None,
    progress: Progress,
    *,
    reward: str | None = None,
    judge: JudgeChoice = "auto",
    images: int = 64,
    seed: int = 0,
    device: str | None = None,
    out: Path | None = None,
) -> tuple[Summary, Path]:
    """Fresh pictures in pairs of the same noise; returns their figures and the JSON file that holds them.

    Arguments:
        prompt: where the artefact was learned for all prompts.
        reward: its name; that of learning by default.
        device: of a reward that is a network.
        out: the file; evaluation.json beside the artefact by default.

    Raises:
        ConfigError, PromptError, RewardError: if prompt, reward and judge do not fit each other or the model.
    """
    text, sampler, metadata = opened.check_prompt(prompt), opened.sampler, opened.metadata
    name = reward or metadata.get("reward", "")
    opened.noise(text)  # a search has none
    check_prompts([text], name, judge)
    try:
        function = load_reward(name, device=None if device is None else check_device(device))
    except RewardError as error:
        if reward is None:
            error.add_note("name the reward with --reward")
        raise
    check_pictures(sampler, name, judge)
    model = str(sampler.pipeline.config["_name_or_path"])
    verdicts = load_judge(judge, model, text)
    judge_name = None if verdicts is None else "world-scene"
    setup = Setup(sampler, function, {text: verdicts}, embedder(model), model, name, judge_name)
    before, after, cost = measure_pairs(setup, opened, [text], images, seed, progress)
    queries = int(metadata.get("queries", 0))
    forwards = cost["tuned"].denoiser_forwards + queries * sampler.forwards
    cost["tuned"] = replace(cost["tuned"], reward_queries=queries, denoiser_forwards=forwards)
    summary = summarise(
        before[0],
        after[0],
        None,
        cost,
        prompt=text,
        model=model,
        reward=name,
        judge=judge_name,
        run={"seed": seed, "num_steps": sampler.num_steps, "guidance_scale": sampler.guidance_scale},
    )
    beside = opened.path if opened.path.is_dir() else opened.path.parent
    out = out or beside / (EVALUATION if prompt is None else f"evaluation-{slug(text)}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, summary)
    return summary, out

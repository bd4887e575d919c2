"""`diffalign doctor`: does everything work here?"""

from dataclasses import asdict, replace

from rich.text import Text

from diffalign.cli.options import Positive, SamplingOptions
from diffalign.cli.progress import RunProgress
from diffalign.cli.tables import headroom, show, stderr
from diffalign.settings.fields import ConfigError
from diffalign.settings.plan import own_reward
from diffalign.settings.sampling import Sampling
from diffalign.world import WORLD_MODELS


def doctor(
    *,
    reward: str | None = None,
    prompts: str | None = None,
    seeds: Positive = 16,
    sampling: SamplingOptions = Sampling(),
) -> int:
    """Check that everything works here, and say what to do if not.

    Loads the model, makes three pictures in two steps, twice, and scores them; then makes the denoiser's
    decisions and asks for their probability again, which must be the same. Ends with OK and the exit
    code 0, or with what is wrong and 1. With --prompts it then says how much the noise decides of the reward,
    what the best of several seeds would gain, and which method that recommends.

        diffalign doctor
        diffalign doctor --model sd15 --device cuda
        diffalign doctor --model my/video-model --height 256 --width 256 --num-frames 8
        diffalign doctor --reward image-reward        # says what is missing, and how to install it
        diffalign doctor --prompts world/unusual      # 24 prompts × 16 seeds: what can other noise gain?

    Args:
        reward: The reward: a name of `diffalign rewards`, or your own as my_module:my_function; the
            world's for its models by default, and the size of the JPEG for other models, without --prompts.
        prompts: A set or file of prompts, to see how much the noise decides of their reward.
        seeds: How many pictures of each of these prompts, of the same noises for all.
    """
    from diffalign.run.asked import read_prompts
    from diffalign.run.self_test import self_test

    model = sampling.model
    if prompts is not None and reward is None and model not in WORLD_MODELS:
        raise ConfigError("how much of what does the noise decide? Name the reward with --reward")
    small = replace(sampling, num_steps=2, batch_size=3)
    reward = reward or (own_reward(model) if model in WORLD_MODELS else "jpeg-compressibility")
    texts = () if prompts is None else read_prompts(prompts, reward, "auto", model)
    faults = 0
    for name, check in self_test(small, reward):
        try:
            mark, line = Text("ok   ", style="green"), check()
        except (OSError, RuntimeError, ValueError) as error:
            mark, line = Text("FAULT", style="bold red"), str(error) or type(error).__name__
            faults += 1
        show(Text.assemble(mark, f" {name}: {line}"), {"check": name, "ok": not faults, "found": line})
        if faults:
            break
    if texts and not faults:
        from diffalign.run.headroom import measure_headroom

        with RunProgress(stderr(), len(texts) * seeds) as progress:
            found = measure_headroom(sampling, reward, texts, seeds, progress)
        show(headroom(found, reward), {"reward": reward, **asdict(found), "advice": found.advice})
        show(Text.assemble(("recommended: ", "bold"), found.advice))
    show(Text("see the fault above", style="red") if faults else Text("OK", style="bold green"))
    return 1 if faults else 0

"""`diffalign doctor`: does everything work here?"""

from dataclasses import replace

from rich.text import Text

from diffalign.cli.options import SamplingOptions
from diffalign.cli.tables import stdout
from diffalign.settings.sampling import Sampling
from diffalign.world import WORLD_MODELS


def doctor(*, reward: str | None = None, sampling: SamplingOptions = Sampling()) -> int:
    """Check that everything works here, and say what to do if not.

    Loads the model, makes three pictures in two steps, twice, and scores them; then makes the denoiser's
    decisions and asks for their probability again, which must be the same. Ends with OK and the exit
    code 0, or with what is wrong and 1.

        diffalign doctor
        diffalign doctor --model sd15 --device cuda
        diffalign doctor --model my/video-model --height 256 --width 256 --num-frames 8
        diffalign doctor --reward image-reward        # says what is missing, and how to install it

    Args:
        reward: The reward: a name of `diffalign rewards`, or your own as my_module:my_function; world-clip
            for the world by default, and the size of the JPEG for other models.
    """
    from diffalign.run.self_test import self_test

    model = sampling.model
    sampling = replace(sampling, num_steps=2, batch_size=3)
    reward = reward or ("world-clip" if model in WORLD_MODELS else "jpeg-compressibility")
    console, faults = stdout(), 0
    for name, check in self_test(sampling, reward):
        try:
            mark, line = Text("ok   ", style="green"), check()
        except (OSError, RuntimeError, ValueError) as error:
            mark, line = Text("FAULT", style="bold red"), str(error) or type(error).__name__
            faults += 1
        console.print(Text.assemble(mark, f" {name}: {line}"), soft_wrap=True)
        if faults:
            break
    console.print(Text("see the fault above", style="red") if faults else Text("OK", style="bold green"))
    return 1 if faults else 0

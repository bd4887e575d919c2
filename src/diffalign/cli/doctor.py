"""`diffalign doctor`: does everything work here?"""

from rich.text import Text

from diffalign.cli.tables import stdout
from diffalign.settings.sampling import Dtype, Sampling, Scheduler
from diffalign.world import WORLD_MODELS


def doctor(
    *,
    model: str = "world",
    model_config: str | None = None,
    reward: str | None = None,
    scheduler: Scheduler = "keep",
    device: str | None = None,
    dtype: Dtype | None = None,
) -> int:
    """Check that everything works here, and say what to do if not.

    Loads the model, makes three pictures in two steps, twice, and scores them; then makes the denoiser's
    decisions and asks for their probability again, which must be the same. Ends with OK and the exit
    code 0, or with what is wrong and 1.

        diffalign doctor
        diffalign doctor --model sd15 --device cuda
        diffalign doctor --reward image-reward        # says what is missing, and how to install it

    Args:
        model: The model: a name of `diffalign models`, the folder of a saved pipeline, a hub name, or a
            .safetensors file that holds a whole model.
        model_config: Of a single file, the name, folder or hub name of a pipeline of the same architecture.
        reward: The reward: a name of `diffalign rewards`, or your own as my_module:my_function; world-clip
            for the world by default, and the size of the JPEG for other models.
        scheduler: Which scheduler samples: the pipeline's own (keep), or DDIM.
        device: Where the model runs, such as cpu or cuda:0; the accelerator, if there is one, by default.
        dtype: The model's precision; float32 on a CPU and float16 elsewhere by default.
    """
    from diffalign.run.self_test import self_test

    sampling = Sampling(
        model,
        model_config,
        num_steps=2,
        batch_size=3,
        scheduler=scheduler,
        device=device,
        dtype=dtype,
    )
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

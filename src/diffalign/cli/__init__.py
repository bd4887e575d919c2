"""CLI: the command line. One file a command, which parses, calls other rooms and presents.

    diffalign find "a blue car on the moon"

Commands are imported when they are called, so that `diffalign --help` needs no torch.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

from cyclopts import App, Parameter, validators

from diffalign import __version__
from diffalign.cli.compare import compare
from diffalign.cli.distil import distil
from diffalign.cli.doctor import doctor
from diffalign.cli.errors import explain, is_mistake
from diffalign.cli.evaluate import evaluate
from diffalign.cli.generate import generate
from diffalign.cli.measure import measure
from diffalign.cli.models import models
from diffalign.cli.prompts import prompts
from diffalign.cli.report import report
from diffalign.cli.rewards import rewards
from diffalign.cli.search import search
from diffalign.cli.serve import serve
from diffalign.cli.settings import fill, spell_out
from diffalign.cli.study import study, study_results

_HELP = """Align diffusion models with a reward by reinforcement learning: their noise, or their weights.

Start here:

    diffalign doctor
    diffalign find "a blue car on the moon"
    diffalign generate runs/a-blue-car-on-the-moon -n 16
"""

app = App(
    name="diffalign",
    version=__version__,
    help=_HELP,
    help_format="markdown",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,  # `run` turns it into the exit code 130
    result_action="return_value",
)
#: As NoiseConfig, and so `find`, needs torch, it alone is imported when it is called.
_FIND = """Learn the initial noise that makes a prompt's pictures better, and show what it gained.

The model stays frozen. Its initial noise becomes a mixture (or one Gaussian) that moves to noise whose
pictures the reward likes. At the end fresh pictures, in pairs of the same noise before and after, say
what that gained, beside best-of-N search at equal cost. The folder keeps all that --resume needs: after
a kill, a run goes on to the same result.

    diffalign find "a blue car on the moon"
    diffalign find "four pandas" --queries 300 --seed 1 --out runs/pandas
    diffalign find --prompts world/unusual --preset paper
    diffalign find "a dog" --model sd15 --reward my_module:my_function
"""
app.command("diffalign.cli.find:find", name="find", help=_FIND, config=fill, sort_key=0)
_TUNE = """Learn the denoiser's weights, as a LoRA adapter, from rewards of its pictures of many prompts.

The objective (PG, PPO as in DDPO, DPOK, DPO) and the strategy (the whole trajectory, or B²-DiffuRL's
backward progressive training and branches) are independent choices; a preset names both. Held-out prompts
are looked at while it learns, and measured at the end: a reward that rises alone is an alarm.

    diffalign tune --prompts world/unusual --held-out world/heldout
    diffalign tune --preset dpok --prompts my-prompts.txt --rounds 20 --out runs/dpok
    diffalign tune --resume runs/dpok
"""
_NOISE_PPO = """Learn one generator of initial noise for many prompts, and measure it on held-out ones.

The model stays frozen. The generator reads the prompt's tokens and says which noise a picture starts
from, at next to no cost. Held-out prompts are looked at while it learns, and measured at the end, in
pairs of the same noise before and after. What it learns carries over to prompts that it never saw where
it learns from hundreds: many prompts with few pictures each teach more than few prompts with many.

    diffalign noise-ppo --prompts world/many --held-out world/heldout
    diffalign noise-ppo --resume runs/noise-ppo-default
    diffalign generate runs/noise-ppo-default --prompt "three pandas"
"""
app.command("diffalign.cli.noise_ppo:noise_ppo", name="noise-ppo", help=_NOISE_PPO, config=fill, sort_key=0)
app.command("diffalign.cli.tune:tune", name="tune", help=_TUNE, config=fill, sort_key=0)
_LIGHT: tuple[Callable[..., object], ...] = (
    search,
    compare,
    distil,
    generate,
    evaluate,
    measure,
    report,
    study,
    study_results,
    models,
    rewards,
    prompts,
    serve,
    doctor,
)
for _place, _command in enumerate(_LIGHT, start=1):
    app.command(_command, sort_key=_place)


app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(negative="")] = False,
    threads: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
) -> int | None:
    """See `_HELP`.

    Args:
        debug: show the traceback of an error.
        threads: CPU threads of torch; it chooses by default.
    """
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return app(tokens)


def _hush_libraries() -> None:
    """Before they are imported, as they look once; what the user has set himself stays."""
    # transformers says at every start which torchvision-based classes it does without
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # which kernels it does without
    if not sys.stderr.isatty():  # diffusers and transformers draw their loading bars into files too
        os.environ.setdefault("TQDM_DISABLE", "1")


def run(tokens: Sequence[str]) -> int:
    """Runs a command line. Returns its exit code: 0, 1 if doctor found a fault, 2 a mistake, 130 Ctrl-C."""
    _hush_libraries()
    try:
        return app.meta(spell_out(tokens)) or 0
    except BrokenPipeError:  # `diffalign prompts … | head`
        sys.stderr.close()
        return 0
    except (Exception, KeyboardInterrupt) as error:  # the one place where a user's mistake becomes a line
        interrupted = isinstance(error, KeyboardInterrupt)
        if "--debug" in tokens or not (interrupted or is_mistake(error)):
            raise
        explain(error)
        return 130 if interrupted else 2


def main() -> NoReturn:
    """The console script."""
    code = run(sys.argv[1:])
    overlap = sys.modules.get("diffalign.rewards.overlap")
    if overlap is not None and not overlap.wait_for_scoring(1.0):  # a reward hangs: do not wait
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


__all__ = ["app", "main", "run"]

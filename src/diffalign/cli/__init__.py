"""CLI: the command line. One file a command, which parses, calls other rooms and presents.

    diffalign find "a blue car on the moon"

They import other rooms when they are called, so that `diffalign --help` needs no torch.
"""

import os
import sys
import warnings
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
from diffalign.cli.learn import make_command
from diffalign.cli.measure import measure
from diffalign.cli.models import models
from diffalign.cli.prompts import prompts
from diffalign.cli.report import report
from diffalign.cli.rewards import rewards
from diffalign.cli.runs import runs
from diffalign.cli.serve import serve
from diffalign.cli.settings import check_resume, fill, refuse_fractions, spell_out
from diffalign.cli.study import study, study_results
from diffalign.cli.tables import OUTPUT, notice
from diffalign.settings.methods import METHODS

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
    config=(check_resume, refuse_fractions),
    default_parameter=Parameter(negative_iterable=()),
)
for _name, _row in METHODS.items():
    app.command(make_command(_name, _row), name=_name, config=(fill, refuse_fractions), sort_key=0)
_COMMANDS: tuple[Callable[..., object], ...] = (
    compare,
    distil,
    generate,
    evaluate,
    measure,
    report,
    runs,
    study,
    study_results,
    models,
    rewards,
    prompts,
    serve,
    doctor,
)
for _key, _command in enumerate(_COMMANDS, start=1):
    app.command(_command, sort_key=_key)


app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(negative="")] = False,
    threads: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> int | None:
    """See `_HELP`.

    Args:
        debug: Show the traceback of an error.
        threads: How many CPU threads torch uses; it chooses by default.
        as_json: Print results as lines of JSON, for scripts. Progress and notices go to stderr anyway.
        quiet: Leave out progress and notices.
    """
    OUTPUT.json, OUTPUT.quiet = as_json, quiet
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    code: int | None = app(tokens)
    return code


def hush_libraries() -> None:
    """Before they are imported, as they read these variables once; what the user has set stays. While they
    load, `diffalign.diffusion.quiet` does."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # which parts of a model an adapter leaves alone
    if not sys.stderr.isatty():  # diffusers and transformers draw their loading bars into files too
        os.environ.setdefault("TQDM_DISABLE", "1")


def run(tokens: Sequence[str]) -> int:
    """Runs a command line. Returns its exit code: 0, 1 if doctor found a fault, 2 a mistake, 130 Ctrl-C."""
    hush_libraries()
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
    # as a line, without the place in the code
    warnings.showwarning = lambda message, *_, **__: notice(str(message), style="yellow")
    code = run(sys.argv[1:])
    overlap = sys.modules.get("diffalign.rewards.overlap")
    if overlap is not None and not overlap.wait_for_scoring(1.0):  # a reward hangs: do not wait
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


__all__ = ["app", "main", "run"]

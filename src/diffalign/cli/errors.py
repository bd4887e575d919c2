"""Which errors are a user's mistake, and how they are shown: one red line, and what to do."""

import sys

from cyclopts import CycloptsError
from rich.text import Text

from diffalign.cli.tables import Terminal

#: The rooms' own errors. They are looked up among loaded modules: one that is not loaded raised nothing.
_MISTAKES = {
    "diffalign.diffusion.pipeline": "PipelineError",
    "diffalign.evaluation.sources": "SourceError",
    "diffalign.files": "ArtifactError",
    "diffalign.prompts": "UnknownPromptSetError PromptFileError",
    "diffalign.rewards": "RewardError",
    "diffalign.study": "StudyError",
    "diffalign.settings.fields": "ConfigError",
    "diffalign.world.grammar": "PromptError",
    "sqlite3": "OperationalError",  # a full disk, a file that is not ours
    "torch": "OutOfMemoryError",
}
#: Packages that come with an extra, and which.
EXTRAS = {
    "anyio": "rewards",
    "bert_score": "rewards",
    "httpx2": "rewards",
    "scipy": "rewards",
    "torchmetrics": "rewards",
    "jinja2": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}


def is_mistake(error: BaseException) -> bool:
    """Whether `error` says what a user or a machine did wrong, rather than that the code is."""
    if isinstance(error, ModuleNotFoundError):
        return _package(error) in EXTRAS
    kinds: list[type[BaseException]] = [CycloptsError, OSError]
    for module, names in _MISTAKES.items():
        if module in sys.modules:
            kinds += [getattr(sys.modules[module], name) for name in names.split()]
    return isinstance(error, tuple(kinds))


def _package(error: ModuleNotFoundError) -> str:
    return str(error.name).partition(".")[0]


def explain(error: BaseException) -> None:
    """Prints `error` to stderr, with the notes that were added to it on its way."""
    console = Terminal(stderr=True, highlight=False, soft_wrap=True)
    if isinstance(error, KeyboardInterrupt):
        line = Text("interrupted", style="bold yellow")
    else:
        message = str(error) or type(error).__name__
        if type(error).__name__ == "OutOfMemoryError":
            message = (
                "out of memory: use a smaller --batch-size, or of tune a smaller --micro-batch; in a run's "
                "config.yaml both may be changed before --resume"
            )
        if isinstance(error, ModuleNotFoundError):
            message += f"; pip install 'diffalign[{EXTRAS[_package(error)]}]'"
        line = Text.assemble(("error: ", "bold red"), message)
    console.print(line)
    for note in getattr(error, "__notes__", ()):
        console.print(Text(note))
    if isinstance(error, CycloptsError):
        command = " ".join(["diffalign", *(error.command_chain or ()), "--help"])
        console.print(Text(f"see: {command}"))

"""What is said of files that cannot be opened, and of errors of the libraries that open them."""

import re
from pathlib import Path

from diffalign.diffusion.pipeline import PipelineError

#: Suffixes of files whose weights are pickled.
PICKLED = (".bin", ".ckpt", ".pt", ".pth")


def refuse_pickled(path: str | Path, what: str) -> None:
    """Raises a `PipelineError` if a file is pickled; `what` it is stands before its name."""
    if str(path).endswith(PICKLED):
        raise PipelineError(
            f"the {what} {path} is pickled, which can run code, and is not opened; where you trust it, "
            "convert it to .safetensors"
        )


def said(error: Exception) -> str:
    """The first sentence of an error, in one line."""
    sentence = re.split(r"\.\s|(?<!:)\n", str(error).strip())[0].rstrip(".")
    return " ".join(sentence.split())

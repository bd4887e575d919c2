"""Libraries that load without a word of their own."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers


@contextmanager
def quietly() -> Iterator[None]:
    """Within it diffusers and transformers draw no bars of loading and say errors alone, and peft does not
    say which layers it left alone. Bars of downloads stay."""
    libraries = diffusers, transformers
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    downloads = not are_progress_bars_disabled()
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    if downloads:  # which transformers turns off too
        enable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You have passed exclude_modules", UserWarning)
            yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
        if not downloads:
            disable_progress_bars()

"""Where settings come from: command line, then a file, then the preset, then defaults.

cyclopts calls `fill` between reading the command line and making the settings; each source gives
values to those arguments that have none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from cyclopts import App, ArgumentCollection, Token
from cyclopts.config import Dict

from diffalign.settings.fields import ConfigError, preset
from diffalign.settings.methods import METHODS

#: What says which folder a --resume without one means: all else is the folder's own.
BESIDE_RESUME = ("--out", "--prompts", "PROMPT")


def spell_out(tokens: Sequence[str]) -> list[str]:
    """Gives a `--resume` without a folder an empty one, as an option must have a value."""
    spelled = list(tokens)
    for i, token in enumerate(spelled):
        if token == "--":
            break
        if token == "--resume" and (i + 1 == len(spelled) or spelled[i + 1].startswith("-")):
            spelled[i] = "--resume="
    return spelled


def fill(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Adds the settings of --config and of --preset to `arguments`."""
    if not commands:
        return
    name, by_name = commands[-1], {argument.name: argument for argument in arguments}
    if by_name["--resume"].tokens:
        allowed = ("--resume",) if by_name["--resume"].tokens[-1].value else ("--resume", *BESIDE_RESUME)
        extra = [flag for flag, argument in by_name.items() if argument.tokens and flag not in allowed]
        if extra:
            raise ConfigError(
                f"--resume takes all settings from the run's folder; leave out {', '.join(extra)}"
            )
        return
    if by_name["--config"].tokens:
        path = by_name["--config"].tokens[-1].value
        settings = {key: value for key, value in read_settings(path).items() if value is not None}
        if (writer := settings.pop("method", name)) != name:
            raise ConfigError(f"{path} holds settings of diffalign {writer}, not of diffalign {name}")
        text, names = settings.pop("prompt", None), settings.pop("prompts", None)
        if not (by_name["PROMPT"].tokens or by_name["--prompts"].tokens):
            if isinstance(names, str):
                by_name["--prompts"].append(Token(value=names, source=path))
            for each in names if isinstance(names, list) else [text] if text is not None else []:
                by_name["PROMPT"].append(Token(value=str(each), source=path))
        Dict(settings, source=path, use_commands_as_keys=False)(app, commands, arguments)
    chosen = by_name["--preset"].tokens[-1].value if by_name["--preset"].tokens else "default"
    if chosen != "default":  # whose values are the settings' own
        values = asdict(preset(METHODS[name].presets, chosen))
        Dict(values, source=f"the preset {chosen}", use_commands_as_keys=False)(app, commands, arguments)


def read_settings(path: Path | str) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        ConfigError: if there is no such file, or it holds no settings.
    """
    try:
        loaded = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds no settings; write lines such as 'queries: 150'")
    return {str(key): value for key, value in loaded.items()}

"""Where settings come from: command line, then a file, then the preset, then defaults.

cyclopts calls `fill` between reading the command line and making the settings; each source gives
values to those arguments that have none yet.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from cyclopts import App, ArgumentCollection, Token
from cyclopts.config import Dict

from diffalign.settings.fields import ConfigError, preset
from diffalign.settings.methods import METHODS
from diffalign.settings.reading import ReadError, read_yaml

#: What says which folder a --resume without one means: all else is the folder's own.
BESIDE_RESUME = ("--out", "--prompts", "PROMPT")
#: What a file of settings does not hold.
OF_THE_COMMAND_LINE = ("config", "overwrite", "dry_run", "resume")


def spell_out(tokens: Sequence[str]) -> list[str]:
    """Gives a `--resume` without a folder an empty one, as an option must have a value."""
    spelled = list(tokens)
    for i, token in enumerate(spelled):
        if token == "--":
            break
        if token == "--resume" and (i + 1 == len(spelled) or spelled[i + 1].startswith("-")):
            spelled[i] = "--resume="
    return spelled


def check_resume(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> bool:
    """Whether a run is to go on."""
    given = {argument.name: argument.tokens[-1].value for argument in arguments if argument.tokens}
    if "--resume" not in given:
        return False
    allowed = () if given["--resume"] else BESIDE_RESUME
    if extra := [flag for flag in given if flag not in ("--resume", *allowed)]:
        raise ConfigError(f"--resume takes all settings from the run's folder; leave out {', '.join(extra)}")
    return True


def fill(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Adds the settings of --config and of --preset to `arguments`."""
    if not commands or check_resume(app, commands, arguments):
        return
    name, by_name = commands[-1], {argument.name: argument for argument in arguments}
    nulls = set[str]()
    if by_name["--config"].tokens:
        path = by_name["--config"].tokens[-1].value
        read = {key.replace("-", "_"): value for key, value in read_settings(path).items()}
        settings = {key: value for key, value in read.items() if value is not None}
        nulls = {key for key, value in read.items() if value is None} & {"guidance_scale"}
        if (writer := settings.pop("method", name)) != name:
            raise ConfigError(f"{path} holds settings of diffalign {writer}, not of diffalign {name}")
        for flag in OF_THE_COMMAND_LINE:
            if flag in settings:
                raise ConfigError(f"{path} holds {flag}, which stands on the command line alone")
        prompts = _pop_prompts(settings, path)
        if not any(by_name[flag].tokens for flag in prompts):
            for flag, texts in prompts.items():
                for text in texts:
                    by_name[flag].append(Token(value=text, source=path))
        Dict(settings, source=path, use_commands_as_keys=False)(app, commands, arguments)
    chosen = by_name["--preset"].tokens[-1].value if by_name["--preset"].tokens else "default"
    if chosen != "default":  # whose values are the settings' own
        row = METHODS[name]
        settings = asdict(preset(row.presets, chosen))
        # null is a file's word for the model's own guidance
        settings |= {key: value for key, value in row.sampling.get(chosen, {}).items() if key not in nulls}
        Dict(settings, source=f"the preset {chosen}", use_commands_as_keys=False)(app, commands, arguments)


def _pop_prompts(settings: dict[str, Any], path: str) -> dict[str, list[str]]:
    """Takes the prompts from a file's settings, and the name of their set or file, each by its flag."""
    texts, names = ([settings.pop(name)] if name in settings else [] for name in ("prompt", "prompts"))
    if names and isinstance(names[0], list):
        texts, names = texts + names[0], []
    for text in texts + names:
        if not isinstance(text, str):
            raise ConfigError(f"in {path} a prompt must be text, not {text!r}")
    return {"PROMPT": texts, "--prompts": names}


def refuse_fractions(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuses a fraction for a whole number, which cyclopts would round."""
    for argument in arguments:
        for token in argument.tokens if int in (argument.hint, *get_args(argument.hint)) else ():
            if re.fullmatch(r"[+-]?\d*\.\d*[1-9]\d*", token.value):
                raise ConfigError(f"{argument.name} must be a whole number, not {token.value}")


def read_settings(path: Path | str) -> dict[str, Any]:
    """The settings in a YAML file."""
    try:
        loaded = read_yaml(Path(path))
    except OSError as error:
        raise ConfigError(f"cannot read the settings {path}: {error.strerror}") from error
    except ReadError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds no settings; write lines such as 'queries: 150'")
    for key, value in loaded.items():
        parts = value if isinstance(value, list) else [value]
        if not isinstance(key, str) or any(isinstance(part, list | dict) for part in parts):
            raise ConfigError(f"{path}: {key} is no setting; write a name, and a value or a list of values")
    return loaded

"""Where the settings of `find` come from: command line, then a file, then the preset, then defaults.

cyclopts calls `fill` between reading the command line and making the settings; each source gives
values to those arguments that have none yet.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from cyclopts import App, Argument, ArgumentCollection, Token
from cyclopts.config import Dict

from diffalign.cli.errors import UsageError

#: The paper's ablations: flag → the setting it replaces, and its value.
ABLATIONS = {"--no-calibration": ("--advantage", "none"), "--no-clipping": ("--clip-range", "0")}
#: What may stand beside --resume: all else is the folder's own.
_BESIDE_RESUME = ("--resume", "--out", "--prompts", "PROMPT")


def spell_out(tokens: Sequence[str]) -> list[str]:
    """Gives a `--resume` without a folder an empty one, as an option must have a value."""
    spelled = list(tokens)
    for place, token in enumerate(spelled):
        if token == "--":
            break
        if token == "--resume" and (place + 1 == len(spelled) or spelled[place + 1].startswith("-")):
            spelled[place] = "--resume="
    return spelled


def fill(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Adds the settings of --config, of the ablation flags and of --preset to `arguments`."""
    if not commands:
        return
    by_name = {argument.name: argument for argument in arguments}
    if by_name["--resume"].tokens:
        beside = _BESIDE_RESUME if commands[-1] == "find" else ("--resume", "--out")
        extra = [name for name, argument in by_name.items() if argument.tokens and name not in beside]
        if extra:
            raise UsageError(
                f"--resume takes all settings from the run's folder; leave out {', '.join(extra)}"
            )
        return
    if by_name["--config"].tokens:
        path = by_name["--config"].tokens[-1].value
        settings = read_settings(path)
        prompt = settings.pop("prompt", None)
        if prompt is not None and "PROMPT" not in by_name:
            raise UsageError(f"{path} holds settings of diffalign find, not of diffalign {commands[-1]}")
        if prompt is not None and not (by_name["PROMPT"].tokens or by_name["--prompts"].tokens):
            by_name["PROMPT"].append(Token(value=str(prompt), source=path))
        settings = {name: value for name, value in settings.items() if value is not None}
        texts = settings.pop("prompts", None)  # cyclopts would take it for the command of that name
        if texts is not None and not by_name["--prompts"].tokens:
            by_name["--prompts"].append(Token(value=str(texts), source=path))
        Dict(settings, source=path, use_commands_as_keys=False)(app, commands, arguments)
    for flag, (name, value) in ABLATIONS.items():
        if flag in by_name:
            _ablate(by_name[flag], by_name[name], value)
    preset = "default"
    if by_name["--preset"].tokens:
        preset = by_name["--preset"].tokens[-1].value
    if preset != "default":  # the settings' own values; loading the presets takes seconds
        from diffalign.methods import generator_preset, tune_preset
        from diffalign.methods import preset as noise_preset

        load: Any = {"tune": tune_preset, "noise-ppo": generator_preset}.get(commands[-1], noise_preset)
        source = f"the preset {preset}"
        values = asdict(load(preset))
        Dict(values, source=source, use_commands_as_keys=False)(app, commands, arguments)


def _ablate(flag: Argument, setting: Argument, value: str) -> None:
    if not any(token.implicit_value is True or token.value.lower() == "true" for token in flag.tokens):
        return
    if any(token.source == "cli" and token.value != value for token in setting.tokens):
        raise UsageError(f"{flag.name} means {setting.name} {value}; leave out one of the two")
    setting.tokens = [Token(keyword=flag.name, value=value, source=flag.name)]


def read_settings(path: Path | str) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        UsageError: if there is no such file, or it holds no settings.
    """
    try:
        loaded = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds no settings; write lines such as 'queries: 150'")
    return {str(key): value for key, value in loaded.items()}


def command_line(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The `find` command that asks for `settings`; what is as in `defaults` is left out."""
    words = ["diffalign", "find", str(settings["prompt"])]
    for name, value in settings.items():
        if name == "prompt" or value == defaults.get(name):
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, str(value)]
    return shlex.join(words)

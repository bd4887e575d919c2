"""`diffalign prompts`: the prompt sets, or the prompts of one."""

from rich.table import Table
from rich.text import Text

from diffalign.settings.fields import ConfigError


def prompts(name: str | None = None, /) -> None:
    """List the prompt sets, or the prompts of one.

    Elsewhere than on a terminal the prompts of a set are printed bare, one a line.

        diffalign prompts world/unusual

    Args:
        name: A set, or a .txt or .json file.
    """
    from diffalign.cli.tables import stdout
    from diffalign.prompts import list_prompt_sets, load_prompts

    console = stdout()
    if name is None:
        table = Table("set", "prompts", "what it is")
        for each in list_prompt_sets():
            found = load_prompts(each)
            table.add_row(each, str(len(found)), Text(found.description))
        console.print(table)
        return
    try:
        found = load_prompts(name)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error
    if not console.is_terminal:
        console.print(Text("\n".join(found.texts)), soft_wrap=True)
        return
    table = Table("prompt", "aspect", title=Text(f"{name}: {found.description}"), caption=Text(found.source))
    for prompt in found.prompts:
        table.add_row(Text(prompt.text), prompt.aspect or "")
    console.print(table)

"""`diffalign prompts`: the prompt sets, or the prompts of one."""

from rich.table import Table
from rich.text import Text

from diffalign.cli.tables import say, stdout


def prompts(name: str | None = None, /) -> None:
    """List the prompt sets, or the prompts of one.

    Elsewhere than on a terminal the prompts of a set are printed bare, one a line.

        diffalign prompts world/unusual

    Args:
        name: A set, or a .txt or .json file.
    """
    from diffalign.prompts import list_prompt_sets, load_prompts

    console = stdout()
    if name is None:
        table = Table("set", "prompts", "what it is")
        for each in list_prompt_sets():
            found = load_prompts(each)
            table.add_row(each, str(len(found)), Text(found.description))
        console.print(table)
        return
    found = load_prompts(name)
    if not console.is_terminal:
        say(console, *found.texts)
        return
    table = Table("prompt", "aspect", title=Text(f"{name}: {found.description}"), caption=Text(found.source))
    for prompt in found.prompts:
        table.add_row(Text(prompt.text), Text(prompt.aspect or ""))
    console.print(table)

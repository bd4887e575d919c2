"""`diffalign prompts`: the prompt sets, or the prompts of one."""

from rich.table import Table
from rich.text import Text

from diffalign.cli.tables import OUTPUT, say, show, stdout


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
        table, rows = Table("set", "prompts", "what it is"), []
        for each in list_prompt_sets():
            found = load_prompts(each)
            table.add_row(each, str(len(found)), Text(found.description))
            rows.append({"set": each, "prompts": len(found), "description": found.description})
        show(table, *rows)
        return
    found = load_prompts(name)
    if not (console.is_terminal or OUTPUT.json):
        say(console, *found.texts)
        return
    table = Table("prompt", "aspect", title=Text(f"{name}: {found.description}"), caption=Text(found.source))
    for prompt in found.prompts:
        table.add_row(Text(prompt.text), Text(prompt.aspect or ""))
    show(table, *({"prompt": prompt.text, "aspect": prompt.aspect} for prompt in found.prompts))

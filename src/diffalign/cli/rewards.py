"""`diffalign rewards`: what `--reward` takes."""

from rich.console import Group
from rich.table import Table

from diffalign.cli.tables import show


def rewards() -> None:
    """List the rewards.

    `--reward` also takes your own as my_module:my_function, imported from the working folder too: a
    function `(images, prompts) -> (B,)` of pictures `(B, 3, H, W)` in [0, 1]; higher is better.
    """
    from diffalign.rewards import REWARDS

    table = Table("reward", "what it is")
    for name, row in REWARDS.items():
        table.add_row(name, row.description)
    rows = ({"reward": name, "description": row.description} for name, row in REWARDS.items())
    show(Group(table, "or your own as my_module:my_function, (images, prompts) -> (B,)"), *rows)

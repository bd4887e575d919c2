"""`diffalign models`: what `--model` takes."""

from rich.console import Group
from rich.table import Table

from diffalign.cli.tables import show


def models() -> None:
    """List the models that have a short name.

    `--model` also takes the folder of a pipeline saved by diffusers, a hub name such as owner/model, or a
    single .safetensors file with `--model-config`.
    """
    from diffalign.diffusion import list_models

    table, found = Table("model", "what it is"), list_models()
    for name, description in found.items():
        table.add_row(name, description)
    rows = ({"model": name, "description": description} for name, description in found.items())
    show(Group(table, "or the folder of a saved pipeline, or a hub name such as owner/model"), *rows)

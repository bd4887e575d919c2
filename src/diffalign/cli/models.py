"""`diffalign models`: what `--model` takes."""

from rich.table import Table

from diffalign.cli.tables import stdout


def models() -> None:
    """List the models that have a short name.

    `--model` also takes the folder of a pipeline saved by diffusers, a hub name such as owner/model, or a
    single .safetensors file with `--model-config`.
    """
    from diffalign.diffusion import list_models

    table = Table("model", "what it is")
    for name, description in list_models().items():
        table.add_row(name, description)
    stdout().print(table, "or the folder of a saved pipeline, or a hub name such as owner/model", sep="\n")

"""`diffalign serve`: a reward for other processes and machines."""

import os
import secrets
from contextlib import closing
from typing import Annotated

from cyclopts import Parameter, validators
from rich.text import Text

from diffalign.cli.options import RUN
from diffalign.cli.tables import show
from diffalign.settings.fields import ConfigError


def serve(
    reward: Annotated[str, Parameter(name="REWARD", group=RUN.group)],
    /,
    *,
    host: Annotated[str, RUN] = "127.0.0.1",
    port: Annotated[int, Parameter(group=RUN.group, validator=validators.Number(gte=0, lte=65535))] = 8000,
    max_megabytes: Annotated[int, Parameter(group=RUN.group, validator=validators.Number(gte=1))] = 64,
    device: Annotated[str | None, RUN] = None,
) -> None:
    """Offer a reward over HTTP, so that a run elsewhere can use it.

    The token of the environment variable DIFFALIGN_REWARD_TOKEN must come with every request; without one,
    one is made and printed. There is no encryption: between machines, put it behind a tunnel or a proxy.

        diffalign serve image-reward --port 8000
        DIFFALIGN_REWARD_TOKEN=… diffalign find "a dog" --reward remote@http://127.0.0.1:8000

    Args:
        reward: A name of `diffalign rewards`, or your own as my_module:my_function.
        host: Where it listens; 127.0.0.1 is this machine alone.
        port: The port where it listens; 0 takes a free one.
        max_megabytes: How large a request may be, in megabytes.
        device: Where a reward that is a network runs; the accelerator, if there is one, by default.
    """
    from diffalign.rewards import load_reward
    from diffalign.rewards.remote import TOKEN
    from diffalign.rewards.server import RewardServer
    from diffalign.run.loading import check_device

    given = os.environ.get(TOKEN)
    token = given or secrets.token_urlsafe(24)
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{TOKEN} holds characters that no request can carry; take letters and digits")
    function = load_reward(reward, device=check_device(device))
    server = RewardServer(function, token, host=host, port=port, max_bytes=max_megabytes * 2**20)
    with closing(server):
        made = {} if given else {"token": token}
        export = "" if given else f"export {TOKEN}={token}\n"
        show(
            Text(f"{export}{reward} listens; use it with --reward remote@{server.url}"),
            {"reward": reward, "url": server.url, **made},
        )
        server.serve_forever()

"""A reward in another process or on another machine: pictures as PNG in JSON, scores back; no pickles.

    POST /score  {"id": "…", "images": ["base64 of a PNG", …], "prompts": ["…", …]}
              →  {"id": "…", "scores": […]}

Every request has a bearer token, and an id by which the server recognises a repeated request: pictures are
not scored twice, however often an answer is lost.
"""

import base64
import io
import os
import uuid
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards import RewardError
from diffalign.rewards.connection import Connection
from diffalign.rewards.scoring import as_pictures

TOKEN = "DIFFALIGN_REWARD_TOKEN"
SCHEMA = "diffalign.reward/1"
MAX_TOTAL_PIXELS = 4096 * 4096  # of a request, in all its pictures


class RemoteReward:
    """The reward that a `diffalign serve` elsewhere offers.

    Pictures travel with 8 bits a channel. A request that fails on the way, or for the moment, is repeated
    after a pause that doubles each time.

    Arguments:
        url: such as http://127.0.0.1:8000.
        token: that the server wants; that of the environment variable DIFFALIGN_REWARD_TOKEN by default.
        timeout: seconds to wait for an answer.
        retries: how often a request is repeated at most.
        backoff: seconds before the first repetition.
        batch_size: pictures in a request, at most; fewer of more than `MAX_TOTAL_PIXELS`.

    Raises:
        RewardError: if there is no url, one with credentials, or no token.
    """

    published = ""  # there is no public server

    def __init__(
        self,
        url: str = "",
        *,
        token: str | None = None,
        timeout: float = 120.0,
        retries: int = 8,
        backoff: float = 0.5,
        batch_size: int = 16,
    ) -> None:
        token = token or os.environ.get(TOKEN, "")
        self.connection = Connection(url, token, timeout=timeout, retries=retries, backoff=backoff)
        if not url.startswith(("http://", "https://")):
            raise RewardError(f"the reward remote needs a server, as remote@http://host:port, not {url!r}")
        if not token:
            raise RewardError(
                f"the reward remote needs a token; put the one that `diffalign serve` printed into {TOKEN}"
            )
        self.batch_size = batch_size

    def check_connection(self) -> None:
        """Checks that the server answers and accepts the token; raises a `RewardError` if it does not."""
        status, content = self.connection.check("", "start one: diffalign serve REWARD")
        if status == 401:
            raise RewardError(
                f"the server {self.connection.url} does not take the token; put the one that it printed into "
                f"{TOKEN}"
            )
        if status != 200 or SCHEMA.encode() not in content:
            raise RewardError(
                f"the server {self.connection.url} answers {status}, and is no `diffalign serve`"
            )

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(B,)` of pictures `(B, 3, H, W)` in [0, 1].

        Raises:
            RewardError: if the server does not answer, refuses, or answers something else.
        """
        if images.ndim != 4:
            raise RewardError(f"a remote reward reads pictures (B, 3, H, W), not {tuple(images.shape)}")
        files = [png(picture) for picture in as_pictures(images)]
        size = max(1, min(self.batch_size, MAX_TOTAL_PIXELS // (images.shape[2] * images.shape[3])))
        batches = [slice(start, start + size) for start in range(0, len(files), size)]
        bodies = [{"id": uuid.uuid4().hex, "images": files[it], "prompts": prompts[it]} for it in batches]
        answers = self.connection.post("/score", bodies, _scores)
        return torch.tensor([score for scores in answers for score in scores])


def png(picture: Image.Image) -> str:
    """The base64 of the picture's PNG."""
    file = io.BytesIO()
    picture.save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def _scores(body: dict[str, Any], answer: Any) -> list[float]:
    """The scores that a server answered to the request `body`.

    Raises:
        ValueError: if it answered something else.
    """
    scores = answer.get("scores") if isinstance(answer, dict) and answer.get("id") == body["id"] else None
    if not isinstance(scores, list) or len(scores) != len(body["images"]):
        raise ValueError("not one score a picture")
    return [float(score) for score in scores]

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

import httpx2 as httpx
import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards import RewardError
from diffalign.rewards.connection import Connection
from diffalign.rewards.scorer import as_pictures

TOKEN = "DIFFALIGN_REWARD_TOKEN"
SCHEMA = "diffalign.reward/1"
CHECK_SECONDS = 10.0  # to wait for a server at the start of a run, before anything is computed


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
        batch_size: pictures in a request.

    Raises:
        RewardError: if there is no url or no token.
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
        token = token or os.environ.get(TOKEN)
        if not url.startswith(("http://", "https://")):
            raise RewardError(f"the reward remote needs a server, as remote@http://host:port, not {url!r}")
        if not token:
            raise RewardError(
                f"the reward remote needs a token; put the one that `diffalign serve` printed into {TOKEN}"
            )
        self.batch_size = batch_size
        self.connection = Connection(url, token, timeout=timeout, retries=retries, backoff=backoff)

    def check_connection(self) -> None:
        """Checks that the server answers and accepts the token; raises a `RewardError` if it does not."""
        url, seconds = self.connection.url, min(CHECK_SECONDS, self.connection.timeout)
        try:
            with httpx.stream("GET", url, headers=self.connection.headers, timeout=seconds) as answer:
                status = answer.status_code
        except httpx.HTTPError as error:
            raise RewardError(
                f"no server answers at {url} ({type(error).__name__}); start one: diffalign serve REWARD"
            ) from error
        if status == 401:
            raise RewardError(
                f"the server {url} does not take the token; put the one that it printed into {TOKEN}"
            )

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(B,)` of pictures `(B, 3, H, W)` in [0, 1].

        Raises:
            RewardError: if the server does not answer, refuses, or answers something else.
        """
        if images.ndim != 4:
            raise RewardError(f"a remote reward reads pictures (B, 3, H, W), not {tuple(images.shape)}")
        files = [png(picture) for picture in as_pictures(images)]
        batches = [slice(start, start + self.batch_size) for start in range(0, len(files), self.batch_size)]
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

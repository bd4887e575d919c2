"""Serves a reward over HTTP, for `RemoteReward`."""

import asyncio
import base64
import hmac
import io
import json
from collections import OrderedDict
from concurrent.futures import Future
from threading import Thread
from typing import Any

import numpy as np
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from diffalign.rewards import RewardError, RewardFunction, score
from diffalign.rewards.overlap import fulfil
from diffalign.rewards.remote import SCHEMA
from diffalign.rewards.serving import Server, read_body

MAX_BYTES = 64 * 2**20  # of a request
MAX_IMAGES = 1024  # of a request
MAX_PIXELS = 4096 * 4096  # of a picture
MAX_TOTAL_PIXELS = 4 * MAX_PIXELS  # of all pictures of a request
REMEMBERED = 4096  # requests whose scores are kept, in case they are repeated


class RewardServer(Server):
    """Scores one request at a time, and each id once: a repeated request gets the same scores again.

    Arguments:
        reward: that scores.
        token: that each request must carry.
        host, port: the address to listen at; port 0 takes a free one.
        max_bytes: of a request, at most.

    Raises:
        ValueError: if the token is empty.
        OSError: if it cannot listen there.
    """

    def __init__(
        self,
        reward: RewardFunction,
        token: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if not token:
            raise ValueError("a reward server needs a token")
        self.reward, self.token, self.max_bytes = reward, token, max_bytes
        self._scored: OrderedDict[str, asyncio.Task[list[float]]] = OrderedDict()
        self._scoring = asyncio.Lock()
        routes = [Route("/score", self._answer, methods=["POST"]), Route("/{path:path}", self._greet)]
        super().__init__(Starlette(routes=routes, exception_handlers={HTTPException: _refuse}), host, port)

    def _check_token(self, request: Request) -> None:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            raise HTTPException(401, "the token is missing or wrong")

    async def _greet(self, request: Request) -> Response:
        """Answers that the server is up and accepts the token."""
        self._check_token(request)
        return JSONResponse({"schema": SCHEMA})

    async def _answer(self, request: Request) -> Response:
        """Answers with the scores of the request's pictures."""
        self._check_token(request)
        body = await read_body(request, self.max_bytes)
        name, images, prompts = await run_in_threadpool(_read, body)
        if (task := self._scored.get(name)) is None:
            task = self._scored[name] = asyncio.create_task(self._score(name, images, prompts))
            if len(self._scored) > REMEMBERED:
                self._scored.popitem(last=False)
        try:
            return JSONResponse({"id": name, "scores": await asyncio.shield(task)})
        except RewardError as error:
            raise HTTPException(422, str(error)) from error

    async def _score(self, name: str, images: Tensor, prompts: list[str]) -> list[float]:
        """The B scores of request `name`, which may be repeated if the reward fails."""
        future: Future[Tensor] = Future()
        try:
            async with self._scoring:
                # in a thread that does not keep the process alive, as a reward may hang
                scored = future, lambda batch: score(self.reward, *batch), (images, prompts)
                Thread(target=fulfil, args=scored, daemon=True).start()
                return (await asyncio.wrap_future(future)).tolist()
        except RewardError:
            self._scored.pop(name, None)
            raise


def _refuse(request: Request, error: Any) -> Response:
    """Says why, and ends the connection, as the request's body may be unread."""
    return JSONResponse({"error": error.detail}, error.status_code, {"Connection": "close"})


def _read(content: bytes) -> tuple[str, Tensor, list[str]]:
    """The id, the pictures `(B, 3, H, W)`, float32 in [0, 1], and the B prompts of a request.

    Raises:
        HTTPException: if the request has another form.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"this is no JSON: {error}") from error
    match body:
        case {"id": str(name), "images": [*files], "prompts": [*prompts]}:
            pass
        case _:
            raise HTTPException(400, "a request has an id, images and prompts")
    if not files or len(files) != len(prompts) or not all(isinstance(prompt, str) for prompt in prompts):
        raise HTTPException(
            400, f"{len(files)} images and {len(prompts)} prompts: one prompt an image, at least one"
        )
    if len(files) > MAX_IMAGES:
        raise HTTPException(413, f"a request has at most {MAX_IMAGES} images, not {len(files)}")
    try:
        images = [
            Image.open(io.BytesIO(base64.b64decode(it, validate=True)), formats=["PNG"]) for it in files
        ]
        sizes = [image.width * image.height for image in images]
        if max(sizes) > MAX_PIXELS or sum(sizes) > MAX_TOTAL_PIXELS:
            raise HTTPException(
                413, f"an image has at most {MAX_PIXELS} pixels, all of a request {MAX_TOTAL_PIXELS}"
            )
        if len({image.size for image in images}) > 1:
            raise HTTPException(400, "the images of a request must have one size")
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    except (ValueError, TypeError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise HTTPException(400, f"an image is the base64 of a PNG: {error}") from error
    return name, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, prompts

"""Serves a reward over HTTP, for `RemoteReward`."""

import asyncio
import base64
import hmac
import io
import json
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Thread
from typing import Any

import numpy as np
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from diffalign.rewards import RewardError, RewardFunction, score
from diffalign.rewards.overlap import fulfil
from diffalign.rewards.remote import MAX_TOTAL_PIXELS, SCHEMA
from diffalign.rewards.serving import Server, body_length, read_body

MAX_BYTES = 64 * 2**20  # of a request
MAX_IMAGES = 1024  # of a request
MAX_VALUES = 2**18  # of a request's JSON, by its commas and brackets, of which prompts have some too
MAX_NAME = 128  # characters of an id
REMEMBERED = 4096  # requests whose scores are kept, in case they are repeated
_SURROGATE = re.compile("[\ud800-\udfff]")  # what JSON can say and no text can hold


class RewardServer(Server):
    """Scores one request at a time, and each id once: a repeated request gets the same scores again.

    Pictures are decoded when it is their turn, and bodies that would not fit beside those that wait are read
    later, so that the memory it takes does not grow with the number of clients.

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
        self._scored: OrderedDict[str, Tensor] = OrderedDict()
        self._turn, self._room, self._held = asyncio.Lock(), asyncio.Condition(), 0
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
        async with self._room_for(body_length(request, self.max_bytes)):
            body = await read_body(request, self.max_bytes)
            async with self._turn:
                future: Future[tuple[str, Tensor]] = Future()
                # in a thread that does not keep the process alive, as a reward may hang
                Thread(target=fulfil, args=(future, self._score, body), daemon=True).start()
                try:
                    name, scores = await asyncio.wrap_future(future)
                except RewardError as error:
                    raise HTTPException(422, str(error)) from error
        return JSONResponse({"id": name, "scores": scores.tolist()})

    @asynccontextmanager
    async def _room_for(self, length: int) -> AsyncIterator[None]:
        """Waits until a body fits beside those that are held: in all they have what one may have."""
        async with self._room:
            await self._room.wait_for(lambda: self._held + length <= self.max_bytes)
            self._held += length
        try:
            yield
        finally:
            self._held -= length
            async with self._room:
                self._room.notify_all()

    def _score(self, body: bytearray) -> tuple[str, Tensor]:
        """The id and the scores `(B,)` of a request."""
        name, images, prompts = _read(body)
        if name not in self._scored:
            self._scored[name] = score(self.reward, images, prompts, copy=False)
            if len(self._scored) > REMEMBERED:
                self._scored.popitem(last=False)
        return name, self._scored[name]


def _refuse(request: Request, error: Any) -> Response:
    """Says why, and ends the connection, as the request's body may be unread."""
    return JSONResponse({"error": error.detail}, error.status_code, {"Connection": "close"})


def _read(content: bytearray) -> tuple[str, Tensor, list[str]]:
    """The id, the pictures `(B, 3, H, W)`, float32 in [0, 1], and the B prompts of a request; empties it.

    Raises:
        HTTPException: if the request has another form.
    """
    if sum(content.count(sign) for sign in b"[{,") > MAX_VALUES:  # an empty list takes 20 times its bytes
        raise HTTPException(413, f"the JSON of a request has at most {MAX_VALUES} commas and brackets")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"this is no JSON: {error}") from error
    finally:
        content.clear()
    match body:
        case {"id": str(name), "images": [*files], "prompts": [*prompts]}:
            pass
        case _:
            raise HTTPException(400, "a request has an id, images and prompts")
    if not files or len(files) != len(prompts):
        raise HTTPException(
            400, f"{len(files)} images and {len(prompts)} prompts: one prompt an image, at least one"
        )
    texts = (name, *prompts)
    if len(name) > MAX_NAME or not all(isinstance(it, str) and not _SURROGATE.search(it) for it in texts):
        raise HTTPException(400, f"prompts are texts, and an id is one of at most {MAX_NAME} characters")
    if len(files) > MAX_IMAGES:
        raise HTTPException(413, f"a request has at most {MAX_IMAGES} images, not {len(files)}")
    try:
        sizes = [_open(it).size for it in files]
        if sum(width * height for width, height in sizes) > MAX_TOTAL_PIXELS:
            raise HTTPException(413, f"the images of a request have at most {MAX_TOTAL_PIXELS} pixels in all")
        if len(set(sizes)) > 1:
            raise HTTPException(400, "the images of a request must have one size")
        pixels = np.empty((len(files), *reversed(sizes[0]), 3), np.uint8)
        for picture, file in zip(pixels, files, strict=True):
            picture[:] = _open(file).convert("RGB")
    except (ValueError, TypeError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise HTTPException(400, f"an image is the base64 of a PNG: {error}") from error
    return name, torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255), prompts


def _open(file: str) -> Image.Image:
    """The PNG of its base64; its head alone is read, so that none waits in memory decoded."""
    return Image.open(io.BytesIO(base64.b64decode(file, validate=True)), formats=["PNG"])

"""Serves a reward over HTTP, for `RemoteReward`."""

from __future__ import annotations

import base64
import binascii
import hmac
import io
import json
import threading
from collections import OrderedDict
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from diffalign.rewards import RewardError, RewardFunction, score
from diffalign.rewards.http import IDLE_SECONDS, Server
from diffalign.rewards.remote import SCHEMA

MAX_BYTES = 64 * 2**20  # of a request
MAX_PIXELS = 4096 * 4096  # of a picture
REMEMBERED = 4096  # requests whose scores are kept, in case they are repeated


class RequestError(ValueError):
    """A request cannot be answered.

    Arguments:
        status: of HTTP.
        message: for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RewardServer(Server):
    """Scores one request at a time, and each id once.

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
        self._scored: OrderedDict[str, Future[list[float]]] = OrderedDict()
        self._known, self._scoring = threading.Lock(), threading.Lock()
        super().__init__(_Handler, host, port)

    def scores(self, request: str, images: Tensor, prompts: list[str]) -> list[float]:
        """The B scores of a request; a repeated request gets the same scores again.

        Arguments:
            request: its id.
            images: `(B, 3, H, W)`, float32 in [0, 1].
            prompts: of the images, B.

        Raises:
            RewardError: if the reward fails; then the request may be repeated.
        """
        with self._known:
            known = self._scored.get(request)
            future: Future[list[float]] = known or Future()
            if known is None:
                self._scored[request] = future
                while len(self._scored) > REMEMBERED:
                    self._scored.popitem(last=False)
        if known is not None:
            return known.result()
        try:
            with self._scoring:
                future.set_result(score(self.reward, images, prompts).tolist())
        except RewardError as error:
            with self._known:
                self._scored.pop(request, None)
            future.set_exception(error)
        return future.result()


class _Handler(BaseHTTPRequestHandler):
    server: RewardServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answers that the server is up and accepts the token."""
        if self._allowed():
            self._answer(200, {"schema": SCHEMA})
        else:
            self._refuse()

    def do_POST(self) -> None:
        """Answers with the scores of the request's pictures."""
        if not self._allowed():
            return self._refuse()
        try:
            body = self._body()
            request, images, prompts = _read(body)
            self._answer(200, {"id": request, "scores": self.server.scores(request, images, prompts)})
        except RequestError as error:
            self._answer(error.status, {"error": str(error)})
        except RewardError as error:
            self._answer(422, {"error": str(error)})
        return None

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode())

    def _refuse(self) -> None:
        self._answer(401, {"error": "the token is missing or wrong"})

    def _body(self) -> Any:
        if self.path != "/score":
            raise RequestError(404, "there is /score alone")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise RequestError(411, "the length of the request is missing")
        if int(length) > self.server.max_bytes:
            raise RequestError(413, f"a request has at most {self.server.max_bytes} bytes, not {length}")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RequestError(400, f"this is no JSON: {error}") from error

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status != 200:  # the request's body may be unread
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing: a line for each request would hide what matters."""


def _read(body: Any) -> tuple[str, Tensor, list[str]]:
    """The id, the pictures `(B, 3, H, W)` and the prompts of a request.

    Raises:
        RequestError: if the request has another form.
    """
    types = {"id": str, "images": list, "prompts": list}
    if not isinstance(body, dict) or any(not isinstance(body.get(key), kind) for key, kind in types.items()):
        raise RequestError(400, "a request has an id, images and prompts")
    files, prompts = body["images"], body["prompts"]
    if not files or len(files) != len(prompts) or not all(isinstance(prompt, str) for prompt in prompts):
        raise RequestError(
            400, f"{len(files)} images and {len(prompts)} prompts: one prompt an image, at least one"
        )
    pictures = [_picture(file) for file in files]
    if len({picture.shape for picture in pictures}) > 1:
        raise RequestError(400, "the images of a request must have one size")
    return body["id"], torch.stack(pictures), prompts


def _picture(file: Any) -> Tensor:
    """A picture `(3, H, W)` in [0, 1] from the base64 of its PNG."""
    if not isinstance(file, str):
        raise RequestError(400, "an image is the base64 of a PNG")
    try:
        with Image.open(io.BytesIO(base64.b64decode(file, validate=True)), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RequestError(413, f"an image has at most {MAX_PIXELS} pixels")
            pixels = np.asarray(image.convert("RGB"))
    except (
        binascii.Error,
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise RequestError(400, f"an image is the base64 of a PNG: {error}") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255

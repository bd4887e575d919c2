"""Requests to a server that may be slow, busy or gone for a while: JSON over HTTP, with retries, and in
parallel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import requests

from diffalign.rewards import RewardError
from diffalign.rewards.overlap import fulfil

RETRIED = (408, 429, 500, 502, 503, 504)  # statuses of what may succeed later
LONGEST_PAUSE = 30.0  # seconds between two tries
MESSAGE_LENGTH = 300  # characters of a server's answer that an error quotes
Answer = TypeVar("Answer")
Question = TypeVar("Question")


class Connection:
    """A connection to one server, which several threads may use.

    Arguments:
        url: of the server.
        token: for the header Authorization; none is sent if it is empty.
        timeout: seconds to wait for an answer.
        retries: how often a request is repeated at most.
        backoff: seconds before the first repetition; the pause doubles each time, up to `LONGEST_PAUSE`,
            unless the server names one.

    Raises:
        RewardError: if no request can carry the token.
    """

    def __init__(self, url: str, token: str, *, timeout: float, retries: int, backoff: float) -> None:
        self.url, self.timeout, self.retries, self.backoff = url.rstrip("/"), timeout, retries, backoff
        if not (token.isascii() and token.isprintable()):
            raise RewardError("the token holds characters that no request can carry; give the printed one")
        self.session = requests.Session()
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, body: dict[str, Any], read: Callable[[Any], Answer]) -> Answer:
        """Posts `body` to `path`, and returns `read` of the JSON that is answered.

        Arguments:
            read: raises ValueError if the answer has another form, and the request is repeated.

        Raises:
            RewardError: if the server refuses, or there is no answer after all tries.
        """
        for attempt in range(self.retries + 1):
            pause = min(self.backoff * 2**attempt, LONGEST_PAUSE)
            try:
                answer = self.session.post(f"{self.url}{path}", json=body, timeout=self.timeout)
                if answer.status_code == 200:
                    return read(answer.json())
                fault = f"answered {answer.status_code}: {answer.text[:MESSAGE_LENGTH]}"
                if answer.status_code not in RETRIED:
                    break
                retry_after = answer.headers.get("Retry-After", "")
                pause = min(float(retry_after), LONGEST_PAUSE) if retry_after.isdigit() else pause
            except requests.JSONDecodeError as error:
                fault = f"answered no JSON: {error}"
            except requests.RequestException as error:  # also an answer that is cut off
                fault = f"did not answer: {error}"
            except ValueError as error:
                fault = f"answered something else than was asked: {error}"
            if attempt < self.retries:
                time.sleep(pause)
        raise RewardError(f"the server {self.url} {fault}")


def answers(ask: Callable[[Question], Answer], questions: Sequence[Question], at_once: int) -> list[Answer]:
    """`ask(question)` for each of `questions`, in their order, from `at_once` threads.

    The threads do not keep the process alive, whatever they wait for.

    Raises:
        Exception: what `ask` raises for the first question that fails; questions not begun are dropped.
    """
    queue = SimpleQueue[tuple[Question, Future[Answer]]]()
    futures: list[Future[Answer]] = [Future() for _ in questions]
    for task in zip(questions, futures, strict=True):
        queue.put(task)

    def _work() -> None:
        with suppress(Empty):
            while True:
                question, future = queue.get_nowait()
                fulfil(future, ask, question)

    for _ in range(min(max(1, at_once), len(questions))):
        Thread(target=_work, daemon=True).start()
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()

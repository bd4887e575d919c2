"""Questions to a server that may be slow, busy or gone for a while: JSON over HTTP, asked again; and several
questions at once."""

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

BUSY = (408, 429, 500, 502, 503, 504)  # worth another try
LONGEST_PAUSE = 30.0  # seconds
Answer = TypeVar("Answer")
Question = TypeVar("Question")


class Connection:
    """To one server; safe to use from several threads.

    Arguments:
        url: of the server.
        token: for the header Authorization; none is sent if it is empty.
        timeout: seconds to wait for an answer.
        retries: further tries of a question.
        backoff: seconds before the first of them; then twice as many each time, up to 30, or what the
            server asks for.
    """

    def __init__(self, url: str, token: str, *, timeout: float, retries: int, backoff: float) -> None:
        self.url, self.timeout, self.retries, self.backoff = url.rstrip("/"), timeout, retries, backoff
        if not (token.isascii() and token.isprintable()):
            raise RewardError("the token holds characters that no request can carry; give the printed one")
        self.session = requests.Session()
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, path: str, body: dict[str, Any], read: Callable[[Any], Answer]) -> Answer:
        """Posts `body` to `path`; what `read` makes of the answer.

        Arguments:
            read: raises ValueError if the answer is something else than was asked; then it is asked again.

        Raises:
            RewardError: if the server refuses, or there is no answer after all tries.
        """
        for turn in range(self.retries + 1):
            pause = min(self.backoff * 2**turn, LONGEST_PAUSE)
            try:
                answer = self.session.post(f"{self.url}{path}", json=body, timeout=self.timeout)
                if answer.status_code == 200:
                    return read(answer.json())
                fault = f"answered {answer.status_code}: {answer.text[:300]}"
                if answer.status_code not in BUSY:
                    break
                asked = answer.headers.get("Retry-After", "")
                pause = min(float(asked), LONGEST_PAUSE) if asked.isdigit() else pause
            except requests.JSONDecodeError as error:
                fault = f"answered no JSON: {error}"
            except requests.RequestException as error:  # also an answer that is cut off
                fault = f"did not answer: {error}"
            except ValueError as error:
                fault = f"answered something else than was asked: {error}"
            if turn < self.retries:
                time.sleep(pause)
        raise RewardError(f"the server {self.url} {fault}")


def answers(ask: Callable[[Question], Answer], questions: Sequence[Question], at_once: int) -> list[Answer]:
    """What `ask` says of each of `questions`, so many of which are open at a time.

    Its threads do not keep the process alive, whatever they wait for.

    Raises:
        whatever `ask` raises first in their order; then what was not begun is not asked.
    """
    asked = SimpleQueue[tuple[Question, Future[Answer]]]()
    futures: list[Future[Answer]] = [Future() for _ in questions]
    for task in zip(questions, futures, strict=True):
        asked.put(task)

    def _work() -> None:
        with suppress(Empty):
            while True:
                question, future = asked.get_nowait()
                fulfil(future, ask, question)

    for _ in range(min(max(1, at_once), len(questions))):
        Thread(target=_work, daemon=True).start()
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()

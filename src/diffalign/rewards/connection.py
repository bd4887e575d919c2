"""Requests to a server that may be slow, busy or gone for a while: JSON over HTTP, with retries, and in
parallel."""

import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import httpx2 as httpx
from anyio.from_thread import start_blocking_portal

from diffalign.rewards import RewardError

RETRIED = (408, 429, 500, 502, 503, 504)  # statuses of what may succeed later
LONGEST_PAUSE = 30.0  # seconds between two tries
CHECK_SECONDS = 10.0  # to wait for a server at the start of a run, before anything is computed
MAX_BYTES = 2**20  # of a server's answer
MESSAGE_LENGTH = 300  # characters of a server's answer that an error quotes
Body = dict[str, Any]
Answer = TypeVar("Answer")
Found = TypeVar("Found")


class Connection:
    """Asks one server, which several threads may do at once. No redirect is followed, nothing unpacked.

    Arguments:
        url: of the server.
        token: for the header Authorization; none is sent if it is empty.
        timeout: seconds within which an answer must be there, whole.
        retries: how often a request is repeated at most.
        backoff: seconds before the first repetition; the pause doubles each time, up to `LONGEST_PAUSE`,
            unless the server names one.

    Raises:
        RewardError: if the url is none or holds credentials, or no request can carry the token.
    """

    def __init__(self, url: str, token: str, *, timeout: float, retries: int, backoff: float) -> None:
        if "@" in url or "?" in url:  # not quoted, as it may be secret
            raise RewardError(
                "a server's address holds no name, password or query, as runs record it; put what it wants "
                "into the variable of the environment that the reward reads"
            )
        if not (token.isascii() and token.isprintable()):
            raise RewardError("the token holds characters that no request can carry; give the printed one")
        try:
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise RewardError(f"{url!r} is no address of a server: {error}") from error
        self.url, self.timeout, self.retries, self.backoff = url.rstrip("/"), timeout, retries, backoff
        self._ssl = httpx.create_ssl_context()  # once, as it takes 40 ms
        self._answered = False  # ever
        self.headers = {"Accept-Encoding": "identity"}  # a small answer that unpacks to a great one is none
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def check(self, path: str, remedy: str) -> tuple[int, bytes]:
        """Status and content of the answer to a GET of `path`.

        Raises:
            RewardError: if there is none in time, with the remedy.
        """
        seconds = min(CHECK_SECONDS, self.timeout)
        try:
            return self._run(lambda client: self._ask(client, "GET", path, None, seconds))[:2]
        except (TimeoutError, ValueError, httpx.HTTPError) as error:
            fault = str(error) or type(error).__name__
            raise RewardError(f"no server answers at {self.url} ({fault}); {remedy}") from error

    def post(
        self, path: str, bodies: Sequence[Body], read: Callable[[Body, Any], Answer], at_once: int = 1
    ) -> list[Answer]:
        """Posts each of `bodies` to `path`; returns `read(body, answer)` of the JSON answers, in order.

        Arguments:
            read: raises ValueError if the answer has another form, and the request is repeated.
            at_once: requests that are sent in parallel.

        Raises:
            RewardError: if the server refuses, or there is no answer after all tries; the rest is dropped.
        """
        turn = asyncio.Semaphore(max(1, at_once))

        async def post_all(client: httpx.AsyncClient) -> list[Answer]:
            async def post(body: Body) -> Answer:
                async with turn:
                    return await self._post(client, path, body, read)

            return await asyncio.gather(*map(post, bodies))

        return self._run(post_all)

    def _run(self, ask: Callable[[httpx.AsyncClient], Awaitable[Found]]) -> Found:
        async def run() -> Found:
            async with httpx.AsyncClient(headers=self.headers, timeout=None, verify=self._ssl) as client:
                return await ask(client)

        # an event loop of its own, as one may run in this thread already; Ctrl-C cancels what runs in it
        with start_blocking_portal() as portal:
            return portal.call(run)

    async def _ask(
        self, client: httpx.AsyncClient, method: str, path: str, body: Body | None, seconds: float
    ) -> tuple[int, bytes, str]:
        """Status, content and Retry-After of an answer, which is whole within `seconds`."""
        content = bytearray()
        async with asyncio.timeout(seconds), client.stream(method, self.url + path, json=body) as answer:
            self._answered = True
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES} bytes")
        return answer.status_code, bytes(content), answer.headers.get("Retry-After", "")

    async def _post(
        self, client: httpx.AsyncClient, path: str, body: Body, read: Callable[[Body, Any], Answer]
    ) -> Answer:
        for attempt in range(self.retries + 1):
            pause = min(self.backoff * 2**attempt, LONGEST_PAUSE)
            try:
                status, content, retry_after = await self._ask(client, "POST", path, body, self.timeout)
                if status == 200:
                    return read(body, json.loads(content))
                fault = f"answered {status}: {content.decode(errors='replace')[:MESSAGE_LENGTH]!r}"
                if status not in RETRIED:
                    break
                pause = min(float(retry_after), LONGEST_PAUSE) if retry_after.isdigit() else pause
            except TimeoutError:
                fault = f"did not answer within {self.timeout:g} s"
            except httpx.HTTPError as error:  # also an answer that is cut off
                fault = f"did not answer: {error or type(error).__name__}"
                if isinstance(error, httpx.ConnectError) and not self._answered:
                    break
            except json.JSONDecodeError as error:
                fault = f"answered no JSON: {error}"
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                fault = f"answered something else than was asked: {error}"
            if attempt < self.retries:
                warnings.warn(f"the server {self.url} {fault}; asking again in {pause:g} s", stacklevel=2)
                await asyncio.sleep(pause)
        raise RewardError(f"the server {self.url} {fault}")

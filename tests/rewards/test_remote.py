"""A reward over HTTP: what is lost is asked for again, what is scored is not scored twice."""

import asyncio
import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from torch import Tensor

from diffalign.rewards import RewardError, load_reward, score
from diffalign.rewards.remote import TOKEN, RemoteReward
from diffalign.rewards.server import RewardServer


class Brightness:
    """Counts how often each picture was scored."""

    def __init__(self) -> None:
        self.seen: Counter[float] = Counter()

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        found = images.mean((1, 2, 3))
        self.seen.update(round(value, 4) for value in found.tolist())
        return found


@pytest.fixture
def served() -> Iterator[Any]:
    made = []

    def start(reward: Any, **more: Any) -> RewardServer:
        server = RewardServer(reward, "secret", **more)
        made.append((server, threading.Thread(target=server.serve_forever, daemon=True)))
        made[-1][1].start()
        return server

    yield start
    for server, thread in made:
        server.close()
        thread.join(20)


def grey(value: int, n: int = 1) -> Tensor:
    return torch.full((n, 3, 4, 4), value / 255)


def test_scores_are_those_of_the_reward(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = served(load_reward("jpeg-incompressibility"))
    monkeypatch.setenv(TOKEN, "secret")
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    own = score(load_reward(f"remote@{server.url}"), images, ["a"] * 5)
    assert torch.equal(own, score(load_reward("jpeg-incompressibility"), images, ["a"] * 5))
    parts = RemoteReward(server.url, batch_size=2)
    assert torch.equal(score(parts, images, ["a"] * 5), own)


def test_of_1000_requests_with_faults_none_is_lost_or_scored_twice(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward, faults, turn, own = Brightness(), Counter[str](), [0], Starlette.__call__

    async def call(self: Starlette, scope: Any, receive: Any, send: Any) -> None:
        turn[0] += 1
        status = {5: 429, 8: 500, 10: 503}.get(turn[0] % 17)
        if status is not None:
            faults[str(status)] += 1
            await JSONResponse({"error": "injected"}, status, {"Connection": "close"})(scope, receive, send)
            return
        messages: list[Any] = []

        async def keep(message: Any) -> None:
            messages.append(message)

        await own(self, scope, receive, keep)
        turn[0] += 1
        fault = (
            {3: "lost", 7: "slow", 11: "garbled"}.get(turn[0] % 13) if messages[0]["status"] == 200 else None
        )
        if fault is not None:
            faults[fault] += 1
        if fault == "slow":  # later than the client waits
            await asyncio.sleep(0.2)
        if fault == "lost":
            (open_to_it,) = (
                it for it in server._uvicorn.server_state.connections if it.client == scope["client"]
            )
            open_to_it.transport.abort()
        elif fault == "garbled":  # an end in the middle of the body
            await send(messages[0])
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
        else:
            for message in messages:
                await send(message)

    monkeypatch.setattr(Starlette, "__call__", call)
    server = served(reward)
    url, found = server.url, {}

    def ask(worker: int) -> None:
        client = RemoteReward(url, token="secret", timeout=0.1, retries=20, backoff=0.001)
        for number in range(worker, 1000, 4):
            # each request's grey is its own: 1000 values of 4 × 4 pixels with 8 bits
            image = grey(number // 16)
            image[0, :, 0, : number % 16 % 4] = 1
            image[0, :, 1, : number % 16 // 4] = 1
            found[number] = (float(client(image, ["a"])[0]), round(float(image.mean()), 4))

    workers = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert len(found) == 1000
    assert all(abs(own - expected) < 1e-3 for own, expected in found.values())
    assert sum(reward.seen.values()) == 1000
    assert set(faults) == {"lost", "slow", "garbled", "429", "500", "503"}


def test_without_the_token_there_is_no_answer(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = Brightness()
    server = served(reward)
    with pytest.raises(RewardError, match=r"answered 401: .*the token is missing or wrong"):
        RemoteReward(server.url, token="guess")(grey(1), ["a"])
    assert httpx.post(f"{server.url}/score", json={}, timeout=5).status_code == 401
    assert httpx.get(server.url, timeout=5).status_code == 401
    assert not reward.seen
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(RewardError, match="needs a token"):
        RemoteReward(server.url)
    with pytest.raises(RewardError, match="remote@http"):
        load_reward("remote")


def png(width: int = 4, height: int = 4, kind: str = "png") -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"no json", 400, "no JSON"),
        (b"[]", 400, "an id, images and prompts"),
        ({"id": "1", "images": [], "prompts": []}, 400, "at least one"),
        ({"id": "1", "images": [png()], "prompts": ["a", "b"]}, 400, "one prompt an image"),
        ({"id": "1", "images": ["!"], "prompts": ["a"]}, 400, "base64 of a PNG"),
        ({"id": "1", "images": [base64.b64encode(b"text").decode()], "prompts": ["a"]}, 400, "of a PNG"),
        ({"id": "1", "images": [png(kind="gif")], "prompts": ["a"]}, 400, "of a PNG"),
        ({"id": "1", "images": [png(), png(8)], "prompts": ["a", "b"]}, 400, "one size"),
        ({"id": "1", "images": [png(5000, 5000)], "prompts": ["a"]}, 413, "pixels"),
        (
            {"id": "1", "images": [png(3000, 3000), png(3000, 3000)], "prompts": ["a", "b"]},
            413,
            "pixels in all",
        ),
        ({"id": "1", "images": ["é"], "prompts": ["a"]}, 400, "base64 of a PNG"),
        ({"id": "1", "images": [png()[:60]], "prompts": ["a"]}, 400, "base64 of a PNG"),
        ({"id": "1", "images": [1], "prompts": ["a"]}, 400, "base64 of a PNG"),
        ({"id": "1" * 200, "images": [png()], "prompts": ["a"]}, 400, "at most 128 characters"),
        (b'{"id": "\\ud800", "images": ["' + png().encode() + b'"], "prompts": ["a"]}', 400, "are texts"),
        (b'{"id": "1", "images": ["' + png().encode() + b'"], "prompts": ["\\ud800"]}', 400, "are texts"),
        (b"[" * 90_000, 400, "no JSON"),
        (b'{"a":' * 15_000, 400, "no JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", 400, "no JSON"),
        (b"\xff\xfe\xff", 400, "no JSON"),
        (b" " * 200_000, 413, "at most 100000 bytes"),
    ],
)
def test_what_is_no_request_is_refused(served: Any, body: Any, status: int, said: str) -> None:
    reward = Brightness()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": "Bearer secret"}
    server = served(reward, max_bytes=100_000)
    answer = httpx.post(f"{server.url}/score", content=content, headers=headers, timeout=10)
    assert answer.status_code == status and said in answer.json()["error"]
    assert not reward.seen


def test_json_that_takes_20_times_its_bytes_is_refused(served: Any) -> None:
    content, headers = b"[" + b"[]," * 2**17 + b"[]]", {"Authorization": "Bearer secret"}
    answer = httpx.post(f"{served(Brightness()).url}/score", content=content, headers=headers, timeout=10)
    assert answer.status_code == 413 and "commas and brackets" in answer.json()["error"]


def test_large_pictures_travel_in_smaller_requests(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("remote", "server"):
        monkeypatch.setattr(f"diffalign.rewards.{module}.MAX_TOTAL_PIXELS", 40)
    reward = Brightness()
    client = RemoteReward(served(reward).url, token="secret")
    assert client(torch.cat([grey(0, 2), grey(255, 3)]), ["a"] * 5).tolist() == [0, 0, 1, 1, 1]


def test_bodies_wait_until_there_is_room(served: Any) -> None:
    release, reward = threading.Event(), Brightness()

    def slowly(images: Tensor, prompts: list[str]) -> Tensor:
        assert release.wait(20)
        return reward(images, prompts)

    body = json.dumps({"id": "a", "images": [png()], "prompts": ["a" * 1000]})
    server = served(slowly, max_bytes=2 * len(body))
    found = []

    def ask(name: str) -> None:
        answer = httpx.post(
            f"{server.url}/score",
            content=body.replace("a", name, 1),
            headers={"Authorization": "Bearer secret"},
            timeout=20,
        )
        found.append(answer.status_code)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "bcdefg"]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while server._held < 2 * len(body):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.3)
    assert server._held == 2 * len(body) and not found
    release.set()
    for thread in threads:
        thread.join(20)
    assert found == [200] * 6 and server._held == 0 and sum(reward.seen.values()) == 6


def test_a_reward_that_fails_is_named_at_once(served: Any) -> None:
    def bad(images: Tensor, prompts: list[str]) -> Tensor:
        return torch.full((len(images),), float("nan"))

    client = RemoteReward(served(bad).url, token="secret")
    with pytest.raises(RewardError, match=r"answered 422: .*the reward bad returned nan"):
        client(grey(1), ["a"])
    begun = time.monotonic()
    with pytest.raises(RewardError, match="did not answer"):
        RemoteReward("http://127.0.0.1:9", token="secret")(grey(1), ["a"])
    assert time.monotonic() - begun < 3  # one that never answered is not asked again


def test_a_client_that_goes_away_is_no_news(served: Any, capfd: pytest.CaptureFixture[str]) -> None:
    import socket
    import struct

    def slowly(images: Tensor, prompts: list[str]) -> Tensor:
        time.sleep(0.2)
        return images.mean((1, 2, 3))

    server = served(slowly)
    body = json.dumps({"id": "a", "images": [png()], "prompts": ["a"]}).encode()
    head = f"POST /score HTTP/1.1\r\nAuthorization: Bearer secret\r\nContent-Length: {len(body)}\r\n\r\n"
    client = socket.create_connection(server.address, timeout=5)
    client.sendall(head.encode() + body)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # with a reset
    time.sleep(0.5)
    assert capfd.readouterr().err == ""
    own = RemoteReward(server.url, token="secret")
    own.check_connection()
    assert score(own, grey(255), ["a"]).tolist() == [1.0]
    with pytest.raises(RewardError, match="does not take the token"):
        RemoteReward(server.url, token="another").check_connection()


def test_a_port_that_is_taken_is_named(served: Any) -> None:
    server = served(Brightness())
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:.*give another port"):
        RewardServer(Brightness(), "secret", port=server.address[1])


def test_a_token_that_no_header_carries_is_refused() -> None:
    with pytest.raises(RewardError, match="no request can carry"):
        RemoteReward("http://127.0.0.1:1", token="…")


@pytest.mark.parametrize("name", ["remote", "vlm"])
@pytest.mark.parametrize(
    "address",
    ["http://me:hunter2@127.0.0.1:9", "http://hunter2@host", "http://host?key=hunter2", "ftp://a:hunter2@h"],
)
def test_credentials_in_an_address_are_refused_and_not_quoted(name: str, address: str) -> None:
    for text in (
        f"{name}@{address}#model",
        f"jpeg-compressibility + 0.5*{name}@{address}#model",
        f"{name}@{address}",
    ):
        with pytest.raises(RewardError, match="no name, password or query") as caught:
            load_reward(text)
        assert "hunter2" not in str(caught.value)

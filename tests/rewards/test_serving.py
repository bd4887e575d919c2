"""What servers bear: silence, floods, half requests, Ctrl-C; and what a client bears of its server."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import torch
from starlette.responses import Response
from starlette.routing import Route

from diffalign.rewards import RewardError, serving
from diffalign.rewards import server as server_module
from diffalign.rewards.remote import RemoteReward
from diffalign.rewards.server import RewardServer

from .test_remote import Brightness, grey, png, served

__all__ = ["served"]  # a fixture
BOMB = zlib.compress(bytes(2**28), wbits=31)  # gzip of 268 MB in 260 kB
HEAD = "POST /score HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer secret\r\n"


def answered(server: RewardServer, sent: str) -> bytes:
    """What comes back until the server ends the connection."""
    with socket.create_connection(server.address, timeout=10) as client:
        client.sendall(sent.encode())
        return b"".join(iter(lambda: client.recv(4096), b""))


HALF = f"{HEAD}Content-Length: 100\r\n\r\n{{"


@pytest.mark.parametrize(("sent", "status"), [("", b""), ("GET / HT", b""), (HALF, b"HTTP/1.1 408 ")])
@pytest.mark.parametrize("drip", [False, True])
def test_a_late_connection_ends(
    served: Any, monkeypatch: pytest.MonkeyPatch, sent: str, status: bytes, drip: bool
) -> None:
    monkeypatch.setattr(serving, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(serving, "BODY_SECONDS", 0.5)
    server = served(Brightness())
    begun = time.monotonic()
    with socket.create_connection(server.address, timeout=10) as client:
        client.sendall(sent.encode())
        while drip and not select.select([client], [], [], 0.1)[0]:
            client.sendall(b"x")
            assert time.monotonic() - begun < 5
        try:
            assert client.recv(4096).startswith(status)
        except ConnectionResetError:
            assert not status
    assert 0.4 < time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("", 411),
        ("Transfer-Encoding: chunked\r\n", 411),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 411),
        ("Content-Length: 1e3\r\n", 400),
        ("Content-Length: 99999999999\r\n", 413),
    ],
)
def test_a_length_is_said_and_small(served: Any, lines: str, status: int) -> None:
    server = served(Brightness())
    reply = answered(server, f"{HEAD}{lines}\r\n")
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    assert not re.search(rb"(?i)server:|python|uvicorn|starlette", reply)


def test_half_a_request_is_no_news(served: Any, capfd: pytest.CaptureFixture[str]) -> None:
    server = served(Brightness())
    with socket.create_connection(server.address, timeout=5) as client:
        client.sendall(f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.2)
    assert b" 400 " in answered(server, "\x00\r\n\r\n")
    time.sleep(0.3)
    assert capfd.readouterr().err == ""


def test_strangers_lock_nobody_out(served: Any) -> None:
    server = served(Brightness())
    held = [socket.create_connection(server.address, timeout=5) for _ in range(serving.MAX_CONNECTIONS + 88)]
    for client in held:
        with suppress(OSError):  # it was ended for another
            client.sendall(b"POST /score HTTP/1.1\r\n")
    begun = time.monotonic()
    assert RemoteReward(server.url, token="secret", retries=0)(grey(255), ["a"]).tolist() == [1.0]
    assert time.monotonic() - begun < 5
    assert len(server._uvicorn.server_state.connections) <= serving.MAX_CONNECTIONS
    for client in held:
        client.close()


def test_requests_that_are_answered_are_not_ended_for_others(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 4)
    release, found = threading.Event(), list[float]()

    def slowly(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        assert release.wait(20)
        return images.mean((1, 2, 3))

    server = served(slowly)
    ask = lambda: found.extend(RemoteReward(server.url, token="secret")(grey(255), ["a"]).tolist())  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert httpx.get(server.url).status_code == 503
    release.set()
    for thread in threads:
        thread.join(20)
    assert found == [1.0] * 4
    assert httpx.get(server.url).status_code == 401


def test_who_reads_no_reply_is_gone(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "READ_SECONDS", 0.5)
    server = served(Brightness())
    server._uvicorn.config.app.router.routes[:0] = [Route("/great", lambda _: Response(bytes(2**25)))]
    with socket.create_connection(server.address, timeout=5) as client:
        client.sendall(b"GET /great HTTP/1.1\r\nHost: here\r\n\r\n")
        end = time.monotonic() + 10
        time.sleep(0.2)
        while server._uvicorn.server_state.connections:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_pictures_are_counted_before_they_are_decoded(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_TOTAL_PIXELS", 40)
    monkeypatch.setattr(server_module, "MAX_IMAGES", 4)
    server = served(Brightness())

    def status(n: int, width: int) -> int:
        body = {"id": f"{n} {width}", "images": [png(width)] * n, "prompts": ["a"] * n}
        headers = {"Authorization": "Bearer secret"}
        return httpx.post(f"{server.url}/score", json=body, headers=headers).status_code

    assert [status(*it) for it in ((2, 4), (3, 4), (4, 2), (5, 1))] == [200, 413, 200, 413]


def test_others_wait_while_one_is_scored(served: Any) -> None:
    scoring, most = [0], [0]
    checked = threading.Event()

    def slowly(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        scoring[0] += 1
        most[0] = max(most[0], scoring[0])
        assert checked.wait(20)
        time.sleep(0.05)
        scoring[0] -= 1
        return images.mean((1, 2, 3))

    server = served(slowly)
    found: list[float] = []
    ask = lambda value: found.extend(RemoteReward(server.url, token="secret")(grey(value), ["a"]).tolist())  # noqa: E731
    threads = [threading.Thread(target=ask, args=(value,)) for value in (0, 255, 51)]
    for thread in threads:
        thread.start()
    RemoteReward(server.url, token="secret").check_connection()
    checked.set()
    for thread in threads:
        thread.join(20)
    assert most == [1] and sorted(found) == pytest.approx([0, 0.2, 1])


def test_ctrl_c_ends_a_server_whose_reward_hangs_and_scripts_read_where_it_listens(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text("import time\ndef reward(images, prompts):\n    time.sleep(100)\n")
    line = [sys.executable, "-m", "diffalign", "--json", "serve", "hanging:reward", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("DIFFALIGN_REWARD_TOKEN", None)
    server = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
        # a shell that runs the tests in the background lets them ignore it
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert server.stdout is not None and server.stderr is not None
        found = json.loads(server.stdout.readline())
        client = RemoteReward(found["url"], token=found["token"], retries=0)
        said: list[str] = []

        def ask() -> None:
            try:
                client(grey(1), ["a"])
            except RewardError as error:
                said.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 130
        assert server.stderr.read().strip() == "interrupted"
        asking.join(20)
        assert said  # the client is not left waiting
    finally:
        server.kill()
        server.wait(20)


class Odd(BaseHTTPRequestHandler):
    """Answers what its server's `kind` says."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind, here = self.server.kind, f"http://127.0.0.1:{self.server.server_address[1]}"  # type: ignore[attr-defined, misc]
        self.server.asked += 1  # type: ignore[attr-defined]
        if kind == "elsewhere":
            self.reply(307, Location=f"{here}/there")
        elif kind == "endless":
            self.reply(200)
            while True:
                self.wfile.write(b" " * 65536)
        elif kind == "slow":
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
            while True:
                self.wfile.write(b"X: y\r\n")
                time.sleep(0.1)
        elif kind == "drip":
            self.reply(200)
            while True:
                self.wfile.write(b" ")
                time.sleep(0.1)
        elif kind == "bomb":
            self.reply(200, **{"Content-Encoding": "gzip"})
            self.wfile.write(BOMB)
        elif kind == "scores":
            self.reply(200)
            self.wfile.write(self.server.content)  # type: ignore[attr-defined]
        else:
            self.reply(429 if self.server.asked == 1 else 200, **{"Retry-After": "1"})  # type: ignore[attr-defined]
            self.wfile.write(json.dumps({"scores": [1]}).encode())

    do_GET = do_POST

    def reply(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[Any]:
    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        kind, asked, content = "", 0, b""

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("elsewhere", "answered 307"),
        ("endless", "more than 1048576 bytes"),
        ("slow", r"did not answer within 0\.5 s"),
        ("drip", r"did not answer within 0\.5 s"),
        ("bomb", "answered something else than was asked"),
    ],
)
def test_a_client_is_not_led_on(odd: Any, kind: str, said: str) -> None:
    odd.kind = kind
    client = RemoteReward(f"http://127.0.0.1:{odd.server_address[1]}", token="secret", timeout=0.5, retries=0)
    begun = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(RewardError, match=said):
            client(grey(1), ["a"])
        with pytest.raises(RewardError, match=r"answers [23]0., and is no|no server answers"):
            client.check_connection()
        assert odd.asked == 2 and tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "scores",
    [
        *("1", "[]", "[[[1]]]", "[{}]", "[null]", '["x"]'),
        *("[1" + "0" * 400 + "]", "[" + "9" * 5000 + "]", "[" * 10**5),
    ],
)
def test_scores_that_are_no_numbers_are_an_answer_to_nothing(
    odd: Any, monkeypatch: pytest.MonkeyPatch, scores: str
) -> None:
    monkeypatch.setattr("uuid.UUID.hex", "1")
    odd.kind, odd.content = "scores", b'{"id": "1", "scores": ' + scores.encode() + b"}"
    client = RemoteReward(f"http://127.0.0.1:{odd.server_address[1]}", token="secret", retries=0)
    with pytest.raises(RewardError, match="answered"):
        client(grey(1), ["a"])


def test_a_client_waits_as_long_as_it_is_told(odd: Any) -> None:
    client = RemoteReward(f"http://127.0.0.1:{odd.server_address[1]}", token="secret", backoff=60, retries=1)
    begun = time.monotonic()
    with (
        pytest.warns(UserWarning, match=r"answered 429.*asking again in 1 s"),
        pytest.raises(RewardError, match="not one score a picture"),
    ):
        client(grey(1), ["a"])
    assert odd.asked == 2 and 0.9 < time.monotonic() - begun < 10


def test_where_nobody_answers_it_is_said_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(RewardError, match=r"no server answers at http://127\.0\.0\.1:9 .*diffalign serve"):
        RemoteReward("http://127.0.0.1:9", token="secret").check_connection()
    assert time.monotonic() - begun < 3
    with pytest.raises(RewardError, match="is no address of a server"):
        RemoteReward("http://here:port", token="secret")


def test_a_client_asks_where_an_event_loop_runs(served: Any) -> None:  # as in a notebook
    import asyncio

    server = served(Brightness())

    async def cell() -> list[float]:
        return RemoteReward(server.url, token="secret")(grey(255), ["a"]).tolist()

    assert asyncio.run(cell()) == [1.0]

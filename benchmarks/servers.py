"""What the servers and their clients bear: memory under hostile requests and answers, many clients, kills.

    python benchmarks/servers.py memory     # peak of a reward server, and growth of its client
    python benchmarks/servers.py load       # 50 clients with 6 requests of 8 pictures each
    python benchmarks/servers.py votes      # 100 voters, while the study's server is killed twice

Everything stays on this machine's loopback. Each prints a line of JSON a figure, and fails where one is not
as it must be. Memory is read from /proc, so that `memory` needs Linux.
"""

import argparse
import base64
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2 as httpx
import numpy as np
import torch
from PIL import Image

from diffalign.rewards import RewardError
from diffalign.rewards.remote import TOKEN, RemoteReward
from diffalign.study.votes import Votes

DIFFALIGN = (sys.executable, "-m", "diffalign")
REWARD = "def mean(images, prompts):\n    return images.mean((1, 2, 3))\n"
SERVER_MB, CLIENT_MB = 1000, 200  # at most
HEADERS = {"Authorization": "Bearer secret"}
SECONDS = 5.0  # that the client below waits


@contextmanager
def started(line: list[object], folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that serves, and its address."""
    server = subprocess.Popen(
        [*DIFFALIGN, *map(str, line)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, TOKEN: "secret"},
    )
    try:
        assert server.stdout is not None
        yield server, next(found[0] for it in server.stdout if (found := re.search(r"http://[\w.:]+", it)))
    finally:
        server.kill()
        server.wait(20)


@contextmanager
def reward_server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "given.py").write_text(REWARD)
        with started(["serve", "given:mean", "--port", 0], Path(folder)) as server:
            yield server


def megabytes(pid: int | str, field: str) -> float:
    """VmHWM, the peak, or VmRSS of a process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def say(**figures: object) -> None:
    print(json.dumps(figures, ensure_ascii=False), flush=True)


def png(side: int, noise: bool = False) -> str:
    file, pixels = io.BytesIO(), np.zeros((side, side, 3), np.uint8)
    if noise:
        pixels = np.random.default_rng(side).integers(0, 256, pixels.shape, np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def request(name: str, n: int, picture: str) -> bytes:
    return json.dumps({"id": name, "images": [picture] * n, "prompts": ["a"] * n}).encode()


def memory(options: argparse.Namespace) -> None:
    black, empty = png(4096), b"[" + b"[]," * (20 * 2**20) + b"[]]"
    noisy = png(1000, noise=True)  # 16 are 64 MB, nearly all that a request may have
    requests = {
        "12 pictures of 4096²": (request("a", 12, black), 413),
        "one of 4096²": (request("b", 1, black), 200),
        "16 of 1000², noise": (request("c", 16, noisy), 200),
        "60 MB of empty lists": (empty, 413),
        "60 MB of open lists": (b"[" * (60 * 2**20), 413),
        "deep JSON": (b"[" * 200_000, 400),
        "a number of 5,000 digits": (b'{"id": ' + b"9" * 5000 + b"}", 400),
        "base64 that is not ASCII": ('{"id": "d", "images": ["é"], "prompts": ["a"]}'.encode(), 400),
    }
    with reward_server() as (server, url):
        before = megabytes(server.pid, "VmRSS")

        def post(kind: str) -> None:
            content, status = requests[kind]
            content = content.replace(b'"id": "', b'"id": "%d' % random.randrange(10**9), 1)
            found = httpx.post(f"{url}/score", content=content, headers=HEADERS, timeout=300).status_code
            assert found == status, (kind, found)

        for kind in requests:
            post(kind)
            say(request=kind, status=requests[kind][1], peak_mb=round(megabytes(server.pid, "VmHWM")))
        held = [socket.create_connection(httpx.URL(url).netloc.decode().split(":")) for _ in range(600)]
        for stranger in held:
            with suppress(OSError):  # it was ended for another
                stranger.sendall(b"POST /score HTTP/1.1\r\n")
        begun = time.monotonic()
        post("one of 4096²")
        say(half_open=len(held), answered_after_s=round(time.monotonic() - begun, 2))
        with ThreadPoolExecutor(8) as pool:
            list(
                pool.map(post, 4 * [kind for kind, (content, _) in requests.items() if len(content) > 10**5])
            )
        peak = megabytes(server.pid, "VmHWM")
        say(server_idle_mb=round(before), server_peak_mb=round(peak), with_clients_at_once=8)
    assert peak < SERVER_MB
    with ExitStack() as stack:
        urls = [stack.enter_context(answering(answer)) for answer in ANSWERS.values()]
        line = [sys.executable, __file__, "client", *urls]
        said = json.loads(subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout)
    for kind, (grown, seconds, error) in zip(ANSWERS, said, strict=True):
        say(answer=kind, client_growth_mb=round(grown, 1), seconds=round(seconds, 1), error=error[:90])
        assert grown < CLIENT_MB and seconds < SECONDS + 3


def client(options: argparse.Namespace) -> None:
    """In a process of its own: by how much it grew so far, the time and the error of each request."""
    images, before, said = torch.zeros(1, 3, 8, 8), megabytes("self", "VmRSS"), []
    for url in options.urls:
        begun = time.monotonic()
        try:
            RemoteReward(url, token="secret", timeout=SECONDS, retries=0)(images, ["a"])
        except RewardError as error:
            said.append((megabytes("self", "VmHWM") - before, time.monotonic() - begun, str(error)))
    print(json.dumps(said))


def endless(stranger: socket.socket) -> None:
    stranger.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        stranger.sendall(b" " * 2**16)


def endless_head(stranger: socket.socket) -> None:
    stranger.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        stranger.sendall(b"X: " + b"y" * 2**10 + b"\r\n")


def drip(stranger: socket.socket) -> None:
    stranger.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        stranger.sendall(b" ")
        time.sleep(0.1)


def bomb(stranger: socket.socket) -> None:
    content = zlib.compress(bytes(2**29), wbits=31)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(content)}\r\n\r\n"
    stranger.sendall(head.encode() + content)


def redirect(stranger: socket.socket) -> None:
    stranger.sendall(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.2:9/\r\nContent-Length: 0\r\n\r\n")


ANSWERS = {
    "endless": endless,
    "endless head": endless_head,
    "drip": drip,
    "gzip bomb": bomb,
    "redirect": redirect,
}


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that gives one answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError), server.accept()[0] as stranger:
                stranger.recv(2**16)
                answer(stranger)

        threading.Thread(target=serve, daemon=True).start()
        yield "http://{}:{}".format(*server.getsockname())


def load(options: argparse.Namespace) -> None:
    images = torch.rand(options.pictures, 3, options.side, options.side)
    expected = (images.mul(255).round() / 255).mean((1, 2, 3))

    def ask(url: str) -> int:
        reward = RemoteReward(url, token="secret")
        answers = [reward(images, ["a"] * len(images)) for _ in range(options.requests)]
        return sum(torch.allclose(answer, expected, atol=1e-4) for answer in answers)

    with reward_server() as (server, url), ThreadPoolExecutor(options.clients) as pool:
        begun = time.monotonic()
        answered = sum(pool.map(ask, [url] * options.clients))
        seconds, peak = time.monotonic() - begun, megabytes(server.pid, "VmHWM")
    asked = options.clients * options.requests
    say(
        clients=options.clients,
        asked=asked,
        answered=answered,
        seconds=round(seconds, 1),
        peak_mb=round(peak),
    )
    assert answered == asked


def votes(options: argparse.Namespace) -> None:
    acknowledged: dict[str, dict[int, tuple[str, str]]] = {}
    count, done = [0], threading.Event()

    def vote(number: int) -> None:
        rng, answers = random.Random(number), {}
        with httpx.Client(base_url=url, follow_redirects=True, timeout=20) as browser:
            while not done.is_set():
                try:
                    shown = browser.get("/vote")
                    if shown.url.path == "/":
                        browser.post("/start", data={"consent": "yes"})
                    elif shown.url.path == "/end":
                        break
                    elif shown.status_code == 200:
                        both = rng.choice(("left", "tie", "right")), rng.choice(("left", "tie", "right"))
                        form = dict(zip(("alignment", "quality"), both, strict=True))
                        if browser.post(shown.url.path, data=form, follow_redirects=False).status_code == 303:
                            answers[int(shown.url.path.rpartition("/")[2])] = both
                            count[0] += 1
                except httpx.HTTPError:
                    time.sleep(0.5)
            (cookie,) = browser.cookies.jar
            acknowledged[str(cookie.value)] = answers

    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "study"
        for source in ("a", "b"):
            (folder / source).mkdir()
            for number in range(options.questions):
                Image.new("RGB", (32, 32), (number, 99, ord(source))).save(folder / source / f"{number}.png")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        line: list[object] = ["study", folder / "a", folder / "b", "--prompt", "a dog"]
        line += ["--out", out, "--port", port]
        total, begun = options.voters * options.questions, time.monotonic()
        with ThreadPoolExecutor(options.voters) as pool:
            try:
                for kill in range(1, options.kills + 2):
                    with started(line, folder):
                        if kill == 1:
                            voting = [pool.submit(vote, number) for number in range(options.voters)]
                        while not all(it.done() for it in voting):
                            if kill <= options.kills and count[0] > total * kill / (options.kills + 1):
                                break
                            time.sleep(0.01)
                    line[1:5] = [] if kill == 1 else line[1:5]
                [it.result() for it in voting]
            finally:
                done.set()
        study = Votes(out)
        kept = sum(
            (found := study.answers(voter).get(shown.number)) is not None
            and (found.alignment, found.quality) == answers[place]
            for voter, answers in acknowledged.items()
            for place, shown in enumerate(study.dealt(voter), 1)
            if place in answers
        )
        stored = study.all()
        doubled = len(stored) - len({(it.voter, it.question) for it in stored})
        study.close()
    said = sum(map(len, acknowledged.values()))
    figures = {"acknowledged": said, "kept": kept, "stored": len(stored), "doubled": doubled}
    say(voters=len(acknowledged), kills=options.kills, **figures, seconds=round(time.monotonic() - begun, 1))
    assert kept == said and not doubled and len(stored) == total and len(acknowledged) == options.voters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    numbers = {
        memory: {},
        load: {"clients": 50, "requests": 6, "pictures": 8, "side": 128},
        votes: {"voters": 100, "questions": 10, "kills": 2},
    }
    for command, flags in numbers.items():
        its = commands.add_parser(command.__name__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        its.set_defaults(command=command)
        for flag, default in flags.items():
            its.add_argument(f"--{flag}", type=int, default=default, help=" ")
    its = commands.add_parser("client", help=argparse.SUPPRESS)
    its.add_argument("urls", nargs="+")
    its.set_defaults(command=client)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()

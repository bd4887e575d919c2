"""Folders of pictures, served studies, a client that keeps its cookie, and a real browser."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPMessage
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from diffalign.evaluation.sources import matched, read_source
from diffalign.study.questions import Design
from diffalign.study.server import StudyServer
from diffalign.study.votes import Votes, create

PROMPTS = ("two dogs", "a red cat")
SOURCES = ("ours-secret", "frozen-secret")


def paint(path: Path, shade: int) -> None:
    """A PNG whose metadata says where it comes from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((32, 32, 3), shade, np.uint8)
    pixels[:16, :16] = (shade * 7 % 256, 255 - shade, 80)
    told = PngImagePlugin.PngInfo()
    told.add_text("Software", f"made by {path.parent.parent.name}")
    Image.fromarray(pixels).save(path, pnginfo=told)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two sources with three pictures of two prompts each; no two pictures are the same."""
    shade = 10
    for source in SOURCES:
        for prompt in PROMPTS:
            for position in range(3):
                paint(tmp_path / source / prompt.replace(" ", "-") / f"seed0-{position:03d}.png", shade)
                shade += 15
    return [tmp_path / source for source in SOURCES]


@pytest.fixture
def make(tmp_path: Path, folders: list[Path]) -> Iterator[Callable[..., Votes]]:
    """Makes a study of the folders and opens it."""
    with ExitStack() as stack:

        def made(mode: Any = "pairs", **settings: Any) -> Votes:
            sources = [read_source(str(folder)) for folder in folders]
            prompts = matched(sources)
            design = Design(
                mode=mode,
                sources=SOURCES,
                prompts=tuple(prompts),
                counts=tuple(prompts.values()),
                **settings,
            )
            create(tmp_path / "study", design, sources)
            votes = Votes(tmp_path / "study")
            stack.callback(votes.close)
            return votes

        yield made


@pytest.fixture
def serve() -> Iterator[Callable[[Votes], StudyServer]]:
    started: list[tuple[StudyServer, threading.Thread]] = []

    def start(votes: Votes) -> StudyServer:
        server = StudyServer(votes)
        started.append((server, threading.Thread(target=server.serve_forever, daemon=True)))
        started[-1][1].start()
        return server

    yield start
    for server, thread in started:
        server.close()
        thread.join(20)


#: The browser has the protocol's pipes at 3 and 4.
LAUNCH = """
import os, sys
for given, high in zip(sys.argv[1:3], (100, 101)):
    os.dup2(int(given), high)
os.dup2(100, 3)
os.dup2(101, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page(NamedTuple):
    """What came back, after redirects."""

    status: int
    url: str
    content: bytes
    headers: HTTPMessage

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def pictures(self) -> list[str]:
        return re.findall(r'src="(/picture/[^"]+)"', self.text)

    @property
    def place(self) -> int:
        """Of the question that is shown."""
        return int(self.url.rpartition("/")[2])


class Client:
    """A browser as far as cookies and redirects go."""

    def __init__(self, url: str) -> None:
        self.url, self.jar = url, CookieJar()
        self._open = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar)).open

    def get(self, path: str, data: bytes | None = None) -> Page:
        try:
            answer = self._open(self.url + path, data, timeout=20)
        except HTTPError as error:
            answer = error
        with answer:
            return Page(answer.status or 0, answer.url, answer.read(), answer.headers)

    def post(self, path: str, **fields: str) -> Page:
        return self.get(path, urlencode(fields).encode())

    def begin(self) -> Page:
        return self.post("/start", consent="yes")

    def vote(self, place: int, alignment: str, quality: str) -> Page:
        return self.post(f"/vote/{place}", alignment=alignment, quality=quality)


class Browser:
    """Chromium without a window, led over the DevTools protocol by a pipe: JSON that ends in a zero byte.

    Clicks and keys go in where a mouse's and a keyboard's would.
    """

    def __init__(self, program: str, profile: Path, width: int = 1000, height: int = 800) -> None:
        read, their_write = os.pipe()
        their_read, self._write = os.pipe()
        flags = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", f"--window-size={width},{height}"),
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(their_read), str(their_write), program, *flags, "about:blank"],
            pass_fds=(their_read, their_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_read)
        os.close(their_write)
        self._read, self._left, self._calls, self._session = read, b"", 0, ""
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(it["targetId"] for it in targets if it["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def close(self) -> None:
        self._process.kill()
        self._process.wait(20)
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **parameters: Any) -> Any:
        self._calls += 1
        message: dict[str, Any] = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 30
        while True:
            answer = json.loads(self._message(end))
            if answer.get("id") == self._calls:
                assert "result" in answer, answer
                return answer["result"]

    def _message(self, end: float) -> bytes:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self._read, 1 << 16) if ready else b""
            if not chunk:
                raise TimeoutError("the browser does not answer")
            self._left += chunk
        message, _, self._left = self._left.partition(b"\0")
        return message

    def run(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Waits until a script says true; pages that come and go meanwhile are no fault."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            found = self.call("Runtime.evaluate", expression=f"!!({script})", returnByValue=True)
            if found["result"].get("value") is True:
                return
            time.sleep(0.02)
        raise TimeoutError(f"never true: {script}; at {self.run('location.href')}")

    def at(self, path: str) -> None:
        """Waits until a page and its pictures are there."""
        self.until(
            f"location.pathname == {json.dumps(path)} && document.readyState == 'complete' && "
            "[...document.images].every(it => it.complete && it.naturalWidth)"
        )

    def go(self, url: str, path: str) -> None:
        self.call("Page.navigate", url=url)
        self.at(path)

    def click(self, selector: str) -> None:
        """In the middle of an element, whatever lies on top there."""
        box = self.run(
            f"(() => {{const it = document.querySelector({json.dumps(selector)}); "
            "it.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "const box = it.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        given = {"key": key, "windowsVirtualKeyCode": 13 if key == "Enter" else ord(key.upper())}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r" if key == "Enter" else key, **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    found = Browser(program, tmp_path / "profile")
    yield found
    found.close()

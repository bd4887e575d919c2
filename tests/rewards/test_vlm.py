"""A vision-language model as the judge: what its answers mean, and faults on the way."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from PIL import Image

from diffalign.rewards import RewardError, load_reward, score
from diffalign.rewards.vlm import VlmJudge, parsed


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("7", 0.7),
        ("Score: 8.5/10", 0.85),
        ("10", 1.0),
        ("0", 0.0),
        ("- 9.", 0.9),
        ("**9**, as the car is blue.", 0.9),
        ("9, as there are 2 cars", 0.9),
        ("<think>There are 2 cars …</think>9", 0.9),
        ("There are 2 cars, where 3 were asked for.</think>\n\n8", 0.8),
        ("There are 2 cars. Score: 9", 0.9),
        ("There are 2 cars. Score: **9**, not 3", 0.9),
        ("For 2 of 3 cars I'd give it 7 out of 10.", 0.7),
        ("There are 2 cars, so 9.", 0.9),
        ("On a 10-point scale: 4", 0.4),
    ],
)
def test_the_verdict_counts(said: str, expected: float) -> None:
    assert parsed(said) == pytest.approx(expected)


@pytest.mark.parametrize(
    "said",
    [
        *(
            "",
            "good",
            "11",
            "100 %",
            "5 %",
            "the year 2024",
            "-5",
            "−5",
            "Score: -5",
            "5-6",
            "8,5",
            "8/100",
            "1.2.3",
        ),
        *("<think>There are 2", "<think>2</think>", "There are 2 cars in", "<think>1</think>5<think>2"),
    ],
)
def test_an_answer_without_a_verdict_is_none(said: str) -> None:
    with pytest.raises(ValueError, match="no number from 0 to 10"):
        parsed(said)


@pytest.mark.parametrize("part", ["1", "1.", "-", "1/", "score", "score ", " ", "<think>", "out of ", "1-"])
def test_an_answer_is_read_in_linear_time(part: str) -> None:
    begun = time.monotonic()
    with suppress(ValueError):
        parsed(part * (100_000 // len(part)))
    assert time.monotonic() - begun < 2


class Faulty(ThreadingHTTPServer):
    """Answers how bright the picture is, from 0 to 10, after the faults that it is told of."""

    daemon_threads = True
    status = 404  # of its list of models

    def __init__(self, faults: list[Any]) -> None:
        self.faults, self.asked, self.lock = faults, list[dict[str, Any]](), threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Faulty

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "slow":
            time.sleep(0.6)
        url = body["messages"][0]["content"][1]["image_url"]["url"]
        image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        said: Any = f"{image.getpixel((0, 0))[0] / 25.5:.1f}"  # type: ignore[index]
        said = fault.removeprefix("says ") if str(fault).startswith("says ") else said
        content = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]})
        content = {"no json": "<html>", "no choice": "{}"}.get(str(fault), content)
        self.send_response(fault if isinstance(fault, int) else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[Any]:
    made = []

    def start(*faults: Any) -> Faulty:
        made.append(Faulty(list(faults)))
        threading.Thread(target=made[-1].serve_forever, daemon=True).start()
        return made[-1]

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def test_faults_are_asked_again(faulty: Any) -> None:
    server = faulty(429, 500, "slow", "no json", "no choice", "says good", "says 11", 503)
    judge = VlmJudge(f"{server.url}#tiny", timeout=0.3, backoff=0.01, retries=8)
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    values = score(judge, images, ["a", "b", "c"])
    torch.testing.assert_close(values, torch.tensor([0.0, 0.5, 1.0]), atol=0.01, rtol=0)
    assert len(server.asked) == 3 + 8
    asked = server.asked[-1]
    assert asked["model"] == "tiny" and asked["temperature"] == 0
    assert "from 0 (not at all) to 10" in asked["messages"][0]["content"][0]["text"]


def test_what_stays_wrong_is_said(faulty: Any) -> None:
    image = torch.zeros(1, 3, 8, 8)
    with pytest.raises(RewardError, match="answered 404"):
        VlmJudge(f"{faulty(404).url}#tiny")(image, ["a"])
    with pytest.raises(RewardError, match="no number from 0 to 10 in 'good'"):
        VlmJudge(f"{faulty('says good', 'says good').url}#tiny", retries=1, backoff=0.01)(image, ["a"])
    with pytest.raises(RewardError, match="needs a server and a model"):
        load_reward("vlm@http://127.0.0.1:9/v1")


def test_a_judge_that_is_not_there_is_said_before_it_is_asked(faulty: Any) -> None:
    begun = time.monotonic()
    with pytest.raises(RewardError, match=r"no server answers at http://127\.0\.0\.1:9/v1 .*its address"):
        load_reward("vlm@http://127.0.0.1:9/v1#tiny")
    assert time.monotonic() - begun < 3
    server = faulty()
    load_reward(f"vlm@{server.url}#tiny")
    server.status = 401
    with pytest.raises(RewardError, match="does not take the key; put its key into OPENAI_API_KEY"):
        load_reward(f"vlm@{server.url}#tiny")

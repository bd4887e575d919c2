"""The judge over HTTP, asked of a real OpenAI-compatible server with a tiny LLaVA."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
import torch

from diffalign.rewards import RewardError, load_reward, score
from diffalign.rewards.scoring import as_pictures
from diffalign.rewards.vlm import VlmJudge, parsed

from .tiny import PROMPTS, pictures, save_llava


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a LLaVA that counts, and the address that serves it."""
    folder = tmp_path_factory.mktemp("llava")
    save_llava(folder, counts=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    server = subprocess.Popen(
        [program, "serve", folder, "--device", "cpu", "--dtype", "float32", "--port", str(port)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(240):
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except httpx.HTTPError:
                assert server.poll() is None, "the server ended"
                time.sleep(0.25)
        yield folder, f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait(10)


def test_the_judge_says_what_the_model_says(served: tuple[Path, str]) -> None:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    folder, url = served
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    processor = LlavaProcessor.from_pretrained(folder)
    images, prompts, expected = pictures(12), PROMPTS * 4, []
    for image, prompt in zip(as_pictures(images), prompts, strict=True):
        content = [
            {"type": "text", "text": f"How well does it show {prompt}?"},
            {"type": "image", "image": image},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        said = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        expected.append(parsed(processor.decode(said[0, inputs["input_ids"].shape[1] :])))
    # a short question, in which a tiny network still sees the picture
    judge = VlmJudge(f"{url}#{folder}", question="How well does it show {prompt}?")
    scores = score(judge, images, prompts)
    torch.testing.assert_close(scores, torch.tensor(expected))
    assert len(set(expected)) > 1


def test_a_model_that_is_not_there_is_said(served: tuple[Path, str]) -> None:
    with pytest.raises(RewardError, match="answered 400"):
        score(load_reward(f"vlm@{served[1]}#another"), pictures(1), PROMPTS[:1])

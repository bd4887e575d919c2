"""A vision-language model as the judge, over any OpenAI-compatible endpoint.

The model is asked how well the picture shows the prompt, on a scale from 0 (not at all) to 10 (exactly); the
score is its verdict, over 10: the number that its answer, after any reasoning in <think>, begins with; else
the last one that is marked ("Score: 8", "8/10"); else the one that it ends with. If it is none from 0 to
10, the model is asked again.

References: FIND's future work (Chen et al., ACM MM 2024), https://arxiv.org/abs/2407.19453
"""

import os
import re
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards import RewardError
from diffalign.rewards.connection import Connection
from diffalign.rewards.remote import png
from diffalign.rewards.scorer import by_frame

KEY = "OPENAI_API_KEY"
QUOTED = 200  # characters of an answer that an error quotes
SCALE = 10  # the best mark
TOKENS = 16  # of an answer, at most: a number, and a few words around it
QUESTION = (
    "The picture was made for the description “{prompt}”. Check each thing, its number, its colour, its "
    "place and the background. How well does it show the description, from 0 (not at all) to "
    f"{SCALE} (exactly)? Answer with the number alone."
)
_OUT_OF = re.compile(r"\s?(?:/|out of)\s?(?=\d)")
#: What looks like one number, whole, with what marks it: "Score: 8", "**8/10**".
_NUMBER = re.compile(
    r"(?P<label>\b(?:score|rating|verdict|answer)(?: is)?\W{0,8}?)?(?<![\w.,/−-])(?P<number>[\d.,/−-]*\d)"
    r"(?!\s?%|[\w−-])",
    re.ASCII | re.IGNORECASE,
)
_WORD = re.compile(r"\w")
_MARK = re.compile(r"(\d+(?:\.\d+)?)(/10)?", re.ASCII)


class VlmJudge:
    """How well a vision-language model finds that the picture shows the prompt, from 0 to 1.

    Arguments:
        endpoint: the server's address, up to and with /v1, then # and the model's name:
            http://127.0.0.1:8000/v1#llava.
        key: that the server wants; that of the environment variable OPENAI_API_KEY by default, or none.
        question: with {prompt} in it.
        timeout: seconds to wait for an answer.
        retries: how often a question is repeated at most.
        backoff: seconds before the first repetition.
        at_once: questions that are sent in parallel.

    Raises:
        RewardError: if the endpoint has no address, one with credentials, or no model.
    """

    published = ""  # there is no public server

    def __init__(
        self,
        endpoint: str = "",
        *,
        key: str | None = None,
        question: str = QUESTION,
        timeout: float = 120.0,
        retries: int = 6,
        backoff: float = 0.5,
        at_once: int = 8,
    ) -> None:
        url, _, model = endpoint.partition("#")
        key = os.environ.get(KEY, "") if key is None else key
        self.connection = Connection(url, key, timeout=timeout, retries=retries, backoff=backoff)
        if not url.startswith(("http://", "https://")) or not model:
            raise RewardError(
                "the reward vlm needs a server and a model, as vlm@http://host:port/v1#model, "
                f"not {endpoint!r}"
            )
        self.model, self.question, self.at_once = model, question, at_once

    def check_connection(self) -> None:
        """Checks that a server answers and accepts the key; raises a `RewardError` if it does not."""
        status, _ = self.connection.check("/models", "start one, or give its address")
        if status in (401, 403):
            raise RewardError(
                f"the server {self.connection.url} does not take the key; put its key into {KEY}"
            )

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(B,)` of pictures `(B, 3, H, W)` in [0, 1]; of video the mean of its frames'.

        Raises:
            RewardError: if the server refuses, or a picture gets no number after all tries.
        """
        return by_frame(self._scores, images, prompts)

    def _scores(self, pictures: list[Image.Image], prompts: list[str]) -> Tensor:
        bodies = [self._question(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
        return torch.tensor(self.connection.post("/chat/completions", bodies, _read, self.at_once))

    def _question(self, picture: Image.Image, prompt: str) -> dict[str, Any]:
        content = [
            {"type": "text", "text": self.question.format(prompt=prompt)},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(picture)}"}},
        ]
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": TOKENS}


def _read(body: dict[str, Any], answer: Any) -> float:
    """The score in the JSON of a chat completion."""
    try:
        text = str(answer["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no choice with a message in {str(answer)[:QUOTED]}") from error
    return parsed(text)


def parsed(text: str) -> float:
    """The score in the text of an answer, from 0 to 1.

    Raises:
        ValueError: if it holds no verdict from 0 to 10.
    """
    verdict = _OUT_OF.sub("/", text.rpartition("</think>")[2])
    found = [] if "<think>" in verdict else list(_NUMBER.finditer(verdict))
    if found and _WORD.search(verdict, 0, found[0].start()):
        marked = [it for it in found if it["label"] or "/" in it["number"]]
        found = marked[-1:] or [it for it in found[-1:] if not _WORD.search(verdict, it.end())]
    mark = _MARK.fullmatch(found[0]["number"]) if found else None
    if mark is None or float(mark[1]) > SCALE:
        raise ValueError(f"no number from 0 to {SCALE} in {text[:QUOTED]!r}")
    return float(mark[1]) / SCALE

"""Prompts are encoded once each and by themselves, then joined as the pipeline would have encoded all."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import cpu_offload_with_hook
from torch import Tensor

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import seeded_noise
from diffalign.diffusion.encoding import Encodings, by_prompt, texts, unread
from tests.device import ELSEWHERE, elsewhere


class Reader:
    """A pipeline whose encodings are as long as their prompts, if `ragged`."""

    def __init__(self, ragged: bool = False) -> None:
        self.ragged, self.asked = ragged, list[list[str]]()

    def encode_prompt(
        self, prompt: Any, negative_prompt: Any = None, instruction: Any = None, prompt_embeds: Any = None
    ) -> Any:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        self.asked.append(prompts)
        length = max(map(len, prompts)) if self.ragged else 4
        states = torch.stack([torch.full((length, 2), float(len(text))) for text in prompts])
        return states, [torch.ones(len(text)) for text in prompts], None, torch.zeros(7, 3)


def read(reader: Reader, encodings: Encodings, prompts: Any, **given: Any) -> Any:
    with encodings.of(reader):  # type: ignore[arg-type]
        return reader.encode_prompt(prompts, **given)


def test_each_prompt_is_encoded_once_and_alone() -> None:
    reader, encodings = Reader(), Encodings()
    states, lists, nothing, shared = read(reader, encodings, ["a", "bcd", "a"])
    assert reader.asked == [["a"], ["bcd"]]
    assert states[:, 0, 0].tolist() == [1, 3, 1] and states.shape == (3, 4, 2)
    assert [len(item) for item in lists] == [1, 3, 1]
    assert nothing is None and shared.shape == (7, 3)  # positions, which are no sample's
    read(reader, encodings, "bcd")
    assert len(reader.asked) == 2
    assert "encode_prompt" not in vars(reader)


def test_the_last_encodings_alone_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffalign.diffusion.encoding.KEPT", 2)
    reader, encodings = Reader(), Encodings()
    states, *_ = read(reader, encodings, ["a", "bc", "def", "bc"])
    assert states[:, 0, 0].tolist() == [1, 2, 3, 2]
    assert reader.asked == [["a"], ["bc"], ["def"]]
    read(reader, encodings, ["a", "bc"])  # "def" was asked for longest ago
    assert reader.asked[3:] == [["a"]]


def test_what_else_it_is_given_counts() -> None:
    reader, encodings = Reader(), Encodings()
    read(reader, encodings, ["a", "b"], negative_prompt=["x", "y"])
    read(reader, encodings, ["a", "b"], negative_prompt=["x", "x"])
    assert reader.asked == [["a"], ["b"], ["b"]]
    read(reader, encodings, ["a", "b"], instruction=["of", "two lines"])  # which is no text a prompt
    assert reader.asked[3:] == [["a"], ["b"]]
    read(reader, encodings, ["a", "b"], prompt_embeds=torch.zeros(2))
    assert reader.asked[5:] == [["a", "b"]]  # embeddings that are given are the pipeline's to read


def test_prompts_of_other_lengths_are_batches_of_their_own() -> None:
    reader, encodings, sizes = Reader(ragged=True), Encodings(), list[int]()

    def make(latents: Tensor, prompts: Sequence[str]) -> Tensor:
        states = read(reader, encodings, list(prompts))[0]
        sizes.append(len(states))
        return latents + states[:, -1, :1]

    made = by_prompt(make, torch.zeros(3, 1), ["a", "bcd", "a"])
    assert made[:, 0].tolist() == [1, 3, 1] and sizes == [2, 1]
    sizes.clear()
    by_prompt(make, torch.zeros(2, 1), ["bcd", "bcd"])
    assert sizes == [2]


def test_negative_prompts_are_one_a_prompt() -> None:
    call = {"negative_prompt": "ugly", "negative_prompt_2": None, "height": 8}
    assert texts(["a", "b"], call) == {
        "prompt": ["a", "b"],
        "negative_prompt": ["ugly", "ugly"],
        "negative_prompt_2": None,
        "height": 8,
    }


def test_a_new_token_is_read_though_its_prompt_was_encoded_before(tiny_pipeline_folder: Path) -> None:
    pipeline: Any = load_pipeline(tiny_pipeline_folder, device="cpu")
    sampler = Sampler(pipeline, num_steps=2)
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(1))
    before = sampler(noise, "a dog <mine>")
    width = pipeline.text_encoder.config.hidden_size
    pipeline.load_textual_inversion({"<mine>": torch.full((width,), 3.0)}, token="<mine>")
    after = sampler(noise, "a dog <mine>")
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, Sampler(pipeline, num_steps=2)(noise, "a dog <mine>"))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_encodings_of_any_mode_can_be_learned_from(mode: Any, tiny_pipeline_folder: Path) -> None:
    pipeline: Any = load_pipeline(tiny_pipeline_folder, device="cpu")
    encodings = Encodings()
    with mode(), encodings.of(pipeline):
        pipeline.encode_prompt(["a dog"], "cpu", 1, False)
    with encodings.of(pipeline):
        states = pipeline.encode_prompt(["a dog"], "cpu", 1, False)[0]
    assert not states.is_inference() and not states.requires_grad


class Words:
    """A tokenizer that knows two words, and joins what it does not know to one token, as some do."""

    unk_token_id: int | None = 0
    known = ("", "dog", "cat")

    def __call__(self, text: str, **options: Any) -> Any:
        ids = [self.known.index(word) if word in self.known else 0 for word in text.split()]
        return SimpleNamespace(input_ids=ids)

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(self.known[i] for i in ids)


def test_prompts_that_no_tokenizer_knows_a_word_of() -> None:
    pipeline = SimpleNamespace(tokenizer=Words(), tokenizer_2=None)
    assert unread(pipeline, ["a dog", "two cat"]) is None
    assert "knows no word of “一只狗”" in str(unread(pipeline, ["一只狗"]))
    assert "knows no word of 2 of 3 prompts, such as “хи”" in str(unread(pipeline, ["a dog", "хи", "字"]))
    assert len(str(unread(pipeline, ["字 " * 3000]))) < 300
    pipeline.tokenizer_2 = Words()
    pipeline.tokenizer_2.known = ("", "хи")
    assert unread(pipeline, ["хи", "dog"]) is None  # one of them reads each
    pipeline.tokenizer_2.unk_token_id = None
    assert unread(pipeline, ["字"]) is None and unread(SimpleNamespace(), ["字"]) is None


def test_text_encoders_may_stay_on_the_cpu(tiny_pipeline_folder: Path) -> None:
    pipeline: Any = load_pipeline(tiny_pipeline_folder, device="meta", offload=True)
    assert pipeline.unet.device.type == pipeline.vae.device.type == "meta"
    assert pipeline.text_encoder.device.type == "cpu" and pipeline.config["text_encoder"][0] == "transformers"
    assert load_pipeline(tiny_pipeline_folder, device="meta").text_encoder.device.type == "meta"


def test_text_encoders_go_back_though_encoding_fails(tiny_pipeline_folder: Path) -> None:
    with elsewhere(load_pipeline(tiny_pipeline_folder, device="cpu"), but=["text_encoder"]) as pipeline:
        encoder, seen = pipeline.text_encoder, list[torch.device]()

        def fail(*_: Any) -> None:
            seen.append(encoder.device)
            raise MemoryError

        hook = encoder.register_forward_pre_hook(fail)
        with pytest.raises(MemoryError), Encodings().of(pipeline):
            pipeline.encode_prompt(["a dog"], ELSEWHERE, 1, False)
        assert seen == [ELSEWHERE] and encoder.device.type == "cpu"
        hook.remove()
        cpu_offload_with_hook(encoder, "cpu")  # as enable_model_cpu_offload does: it is not ours to move
        encoder.register_forward_pre_hook(fail)
        with pytest.raises(Exception), Encodings().of(pipeline):  # noqa: B017
            pipeline.encode_prompt(["a dog"], torch.device("cpu"), 1, False)
        assert seen[1:] == [torch.device("cpu")]

"""Rewards that are networks: tiny checkpoints in the published layout, against reference computations."""

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffalign.rewards import RewardError, load_reward, score
from diffalign.rewards.scoring import as_pictures

from .tiny import (
    PROMPTS,
    pictures,
    save_aesthetic,
    save_clip,
    save_hps,
    save_image_reward,
    save_llava,
    save_viclip,
)

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def prepared(side: int, images: Tensor) -> Tensor:
    """By PIL and numpy alone: resized with bicubic, normalised."""
    resized = [image.resize((side, side), Image.Resampling.BICUBIC) for image in as_pictures(images)]
    pixels = torch.tensor(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2)
    return (pixels / 255 - MEAN) / STD


def test_clip_is_that_of_transformers(tmp_path: Path) -> None:
    model = save_clip(tmp_path)
    reward = load_reward(f"clip@{tmp_path}")
    tokens = reward.tokenizer(PROMPTS, padding=True, return_tensors="pt")  # type: ignore[attr-defined]
    with torch.inference_mode():
        logits = model(**tokens, pixel_values=prepared(32, pictures())).logits_per_image
        expected = 100 * logits.diag() / model.logit_scale.exp()
    torch.testing.assert_close(score(reward, pictures(), PROMPTS), expected, atol=1e-4, rtol=0)


def test_pickscore_scales_the_cosine(tmp_path: Path) -> None:
    model = save_clip(tmp_path)
    scale = float(model.logit_scale.detach().exp())
    expected = scale * score(load_reward(f"clip@{tmp_path}"), pictures(), PROMPTS) / 100
    own = load_reward(f"pickscore@{tmp_path}")
    torch.testing.assert_close(score(own, pictures(), PROMPTS), expected, atol=1e-4, rtol=0)


def test_aesthetic_is_linear_in_the_embedding(tmp_path: Path) -> None:
    weights = save_aesthetic(tmp_path)
    reward = load_reward(f"aesthetic@{tmp_path}")
    x = load_reward(f"clip@{tmp_path / 'clip'}").embed_images(as_pictures(pictures()))  # type: ignore[attr-defined]
    for number in (0, 2, 4, 6, 7):
        x = x @ weights[f"layers.{number}.weight"].T + weights[f"layers.{number}.bias"]
    torch.testing.assert_close(score(reward, pictures(), PROMPTS), x[:, 0].detach(), atol=1e-4, rtol=0)


def test_hps_is_open_clips(tmp_path: Path) -> None:
    reference = save_hps(tmp_path)
    reward = load_reward(f"hps@{tmp_path}")
    tokenizer = reward.tokenizer  # type: ignore[attr-defined]
    tokens = tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids
    text = reference.text(tokens, tokenizer.eos_token_id)
    with torch.no_grad():
        expected = (reference.image(prepared(32, pictures())) * text).sum(-1)
        torch.testing.assert_close(score(reward, pictures(), PROMPTS), expected, atol=1e-4, rtol=0)


def test_hps_sees_the_whole_picture_on_black() -> None:
    from diffalign.rewards.hps import fitted

    (image,) = as_pictures(pictures(1)[..., :20])  # 40 high and 20 wide
    pixels = fitted(image, 32)
    black = -MEAN / STD
    torch.testing.assert_close(pixels[..., :8], black.expand(3, 32, 8))
    torch.testing.assert_close(pixels[..., 24:], black.expand(3, 32, 8))
    inside = torch.tensor(np.asarray(image.resize((16, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    torch.testing.assert_close(pixels[..., 8:24], (inside / 255 - MEAN) / STD)


def vision(weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """timm's vision transformer with one head, written out."""
    w = {n.removeprefix("blip.visual_encoder."): v for n, v in weights.items() if "visual" in n}

    def norm(x: Tensor, at: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{at}.weight"], w[f"{at}.bias"], 1e-6)

    def linear(x: Tensor, at: str) -> Tensor:
        return x @ w[f"{at}.weight"].T + w[f"{at}.bias"]

    x = F.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=8).flatten(2).mT
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + w["pos_embed"]
    for number in range(2):
        at = f"blocks.{number}"
        q, k, v = linear(norm(x, f"{at}.norm1"), f"{at}.attn.qkv").chunk(3, -1)
        x = x + linear((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v, f"{at}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{at}.norm2"), f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
    return norm(x, "norm")


def test_image_reward_is_the_published_network(tmp_path: Path) -> None:
    weights, bert = save_image_reward(tmp_path)
    reward = load_reward(f"image-reward@{tmp_path}")
    tokens = reward.tokenizer(  # type: ignore[attr-defined]
        PROMPTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    with torch.no_grad():
        seen = vision(weights, prepared(32, pictures()))
        x = bert(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2]),
        ).last_hidden_state[:, 0]
        for number in (0, 2, 4, 6, 7):
            x = x @ weights[f"mlp.layers.{number}.weight"].T + weights[f"mlp.layers.{number}.bias"]
    expected = (x[:, 0] - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(score(reward, pictures(), PROMPTS), expected, atol=1e-4, rtol=1e-4)


def test_jpeg_rewards_are_the_file_s_size() -> None:
    sizes = []
    for image in as_pictures(pictures()):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95)
        sizes.append(len(file.getvalue()) / 1000)
    assert score(load_reward("jpeg-incompressibility"), pictures(), PROMPTS).tolist() == pytest.approx(sizes)
    assert score(load_reward("jpeg-compressibility"), pictures(), PROMPTS).tolist() == pytest.approx(
        [-size for size in sizes]
    )


@pytest.mark.parametrize("frames", [1, 3, 4, 9])
def test_viclip_is_the_published_network(frames: int, tmp_path: Path) -> None:
    reference, reward = save_viclip(tmp_path), load_reward(f"viclip@{tmp_path}")
    video = pictures(2 * frames, 40).unflatten(0, (2, frames))
    chosen = {1: [0], 3: [0, 0, 1, 2], 4: [0, 1, 2, 3], 9: [0, 2, 4, 6]}[frames]
    rounded = (video[:, chosen] * 255).round() / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    pixels = (F.interpolate(rounded.flatten(0, 1), (32, 32), mode="bilinear") - mean) / std
    tokenizer = reward.tokenizer  # type: ignore[attr-defined]
    tokens = tokenizer(PROMPTS[:2], padding="max_length", max_length=12, return_tensors="pt").input_ids
    with torch.no_grad():
        text = reference.text(tokens, tokenizer.eos_token_id)
        expected = (reference.video(pixels.unflatten(0, (2, -1))) * text).sum(-1)
        torch.testing.assert_close(score(reward, video, PROMPTS[:2]), expected, atol=1e-4, rtol=0)
        if frames == 1:
            torch.testing.assert_close(score(reward, video[:, 0], PROMPTS[:2]), expected, atol=1e-4, rtol=0)


def test_bert_score_recalls_the_prompt_in_what_llava_says(tmp_path: Path) -> None:
    llava, deberta = save_llava(tmp_path)
    reward = load_reward(f"bert-score@{tmp_path}")
    tokenizer = reward.processor.tokenizer  # type: ignore[attr-defined]
    asked = f"USER: {'<image>' * 16}\nAnswer concisely: what is going on in this image? ASSISTANT:"
    ids = tokenizer(asked, return_tensors="pt").input_ids
    told = []
    for pixels in prepared(32, pictures()):
        said = llava.generate(input_ids=ids, pixel_values=pixels[None], max_new_tokens=64, do_sample=False)
        told.append(tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True).strip())
    assert len(set(told)) == 3 and all(told)
    assert reward.describe(as_pictures(pictures())) == told  # type: ignore[attr-defined]

    def embedded(text: str) -> Tensor:
        tokens = reward.scorer._tokenizer(text, return_tensors="pt").input_ids  # type: ignore[attr-defined]
        return F.normalize(deberta(input_ids=tokens).last_hidden_state[0], dim=-1)

    with torch.no_grad():
        expected = []
        for prompt, text in zip(PROMPTS, told, strict=True):
            cosines = embedded(f"The image contains {prompt}") @ embedded(text).T
            expected.append(cosines[1:-1].max(1).values.mean())  # the ends count nothing
    torch.testing.assert_close(score(reward, pictures(), PROMPTS), torch.stack(expected), atol=1e-4, rtol=0)


def test_bert_score_of_a_picture_of_which_nothing_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    save_llava(tmp_path)
    reward = load_reward(f"bert-score@{tmp_path}")
    monkeypatch.setattr(reward, "describe", lambda images: ["", "a blue car", ""])
    first, second, third = score(reward, pictures(), PROMPTS).tolist()
    assert first == third == 0 != second


def test_video_gets_the_mean_of_its_frames(tmp_path: Path) -> None:
    save_clip(tmp_path)
    reward, frames = load_reward(f"clip@{tmp_path}"), pictures(6)
    each = score(reward, frames, [PROMPTS[0]] * 4 + [PROMPTS[1]] * 2)
    video = frames.unflatten(0, (3, 2))
    expected = each.view(3, 2).mean(1)
    found = score(reward, video, [PROMPTS[0], PROMPTS[0], PROMPTS[1]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_batches_and_offload_change_nothing(tmp_path: Path) -> None:
    from diffalign.rewards.clip import ClipScore

    save_clip(tmp_path)
    whole = ClipScore(tmp_path)(pictures(5), ["a cat"] * 5)
    parts = ClipScore(tmp_path, batch_size=2, offload=True)
    torch.testing.assert_close(parts(pictures(5), ["a cat"] * 5), whole, atol=1e-4, rtol=0)
    half = ClipScore(tmp_path, dtype=torch.bfloat16)(pictures(5), ["a cat"] * 5)
    torch.testing.assert_close(half, whole, atol=3, rtol=0)


def test_the_jpeg_of_a_video(tmp_path: Path) -> None:
    reward = load_reward("jpeg-incompressibility")
    each = score(reward, pictures(4), ["a cat"] * 4).view(2, 2).mean(1)
    torch.testing.assert_close(score(reward, pictures(4).unflatten(0, (2, 2)), ["a cat"] * 2), each)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip")
    whole = (tmp_path / "clip" / "model.safetensors").read_bytes()
    (tmp_path / "clip" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    save_hps(tmp_path / "hps")
    (tmp_path / "hps" / "HPS_v2.1_compressed.pt").write_text("version https://git-lfs.github.com/spec/v1")
    for name in ("clip", "hps"):
        with pytest.raises(RewardError, match="damaged") as found:
            load_reward(f"{name}@{tmp_path / name}")
        assert not re.search("weights_only|safe=|arbitrary", str(found.value))


def test_damage_in_the_cache_is_no_absence() -> None:
    from diffalign.rewards.checkpoints import DamagedError, local_first

    def load(local: bool) -> Any:
        raise DamagedError("x.safetensors is damaged")

    with pytest.raises(DamagedError, match="is damaged"):
        local_first(load, "owner/name")
    with pytest.raises(RewardError, match="there is no folder /no/such"):
        load_reward("clip@/no/such")


def test_a_part_that_is_missing_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffalign.rewards import aesthetic, checkpoints, clip

    save_aesthetic(tmp_path / "layers")
    shutil.move(tmp_path / "layers" / "clip", tmp_path / "clip")
    asked: list[tuple[str, bool]] = []

    def load_clip(self: Any, source: str) -> Any:
        asked.append((source, self.local))
        if self.local:
            raise OSError("not in the cache")
        return clip.ClipScore.load_clip(self, str(tmp_path / "clip"))

    monkeypatch.setattr(checkpoints, "hub_answers", lambda: True)
    monkeypatch.setattr(aesthetic.Aesthetic, "load_clip", load_clip)
    reward = load_reward(f"aesthetic@{tmp_path / 'layers'}")
    assert asked == [("openai/clip-vit-large-patch14", True), ("openai/clip-vit-large-patch14", False)]
    assert score(reward, pictures(), PROMPTS).isfinite().all()


def test_hps_of_version_2_is_read_from_a_folder_alone(tmp_path: Path) -> None:
    from diffalign.rewards import hps

    save_hps(tmp_path)
    new = score(load_reward(f"hps@{tmp_path}"), pictures(), PROMPTS)
    (tmp_path / "HPS_v2.1_compressed.pt").rename(tmp_path / "HPS_v2_compressed.pt")
    assert torch.equal(score(load_reward(f"hps@{tmp_path}"), pictures(), PROMPTS), new)
    assert not any("v2_" in name for name in hps.FILES)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("clip", "pickscore", "hps", "image-reward", "aesthetic", "bert-score", "viclip"):
        with pytest.raises(RewardError, match=r"cannot load .*NAME@FOLDER"):
            load_reward(f"{name}@{tmp_path}")
    with pytest.raises(RewardError, match="has no checkpoints"):
        load_reward(f"jpeg-compressibility@{tmp_path}")


def test_find_learns_a_video_from_viclip(tmp_path: Path, tiny_video_pipeline: Any) -> None:
    from diffalign import find
    from diffalign.metrics import frame_consistency
    from diffalign.metrics.features import feature_reader

    save_viclip(tmp_path / "viclip")
    save_clip(tmp_path / "clip")
    reward = load_reward(f"viclip@{tmp_path / 'viclip'}")
    sampling = {"num_steps": 2, "batch_size": 3, "call": {"num_frames": 4}}
    run = find(tiny_video_pipeline, "a blue car", reward, queries=10, batch=3, **sampling)
    rounds = list(run)
    assert rounds[-1].queries == 10 and all(round.rewards.abs().max() <= 1 for round in rounds)
    video = run.learner.environment(run.result.sample(2, seed=0), "a blue car")
    torch.testing.assert_close(
        score(reward, video, ["a blue car"] * 2),
        torch.cat([score(reward, one[None], ["a blue car"]) for one in video]),
        atol=1e-4,
        rtol=0,
    )
    steady = frame_consistency(video, feature_reader(f"clip@{tmp_path / 'clip'}"))
    assert steady.shape == (2,) and (steady <= 1 + 1e-6).all()


def test_frame_consistency_is_a_reward_of_videos(tmp_path: Path) -> None:
    from diffalign.metrics import frame_consistency
    from diffalign.metrics.features import feature_reader

    save_clip(tmp_path)
    reward = load_reward(f"frame-consistency@{tmp_path}", device="cpu")
    video = torch.rand(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    video[1] = video[1, :1]  # which stands still
    values = score(reward, video, ["a", "b", "c"])
    torch.testing.assert_close(values, frame_consistency(video, feature_reader(f"clip@{tmp_path}")))
    assert values[1] == pytest.approx(1) and values[0] < 1
    for wrong in (video[:, :1], video[:, 0]):
        with pytest.raises(RewardError, match="two frames or more"):
            score(reward, wrong, ["a", "b", "c"])

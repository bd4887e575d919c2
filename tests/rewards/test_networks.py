"""Rewards that are networks: tiny checkpoints in the published layout, against reference computations."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffalign.rewards import RewardError, load_reward, score
from diffalign.rewards.scorer import as_pictures

from .tiny import PROMPTS, pictures, save_clip, save_hps, save_image_reward

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
    save_clip(tmp_path / "clip")
    random, weights, width = torch.Generator().manual_seed(0), {}, 10
    for number, out in ((0, 8), (2, 6), (4, 5), (6, 4), (7, 1)):  # the published numbers
        weights[f"layers.{number}.weight"] = torch.randn(out, width, generator=random)
        weights[f"layers.{number}.bias"] = torch.randn(out, generator=random)
        width = out
    torch.save(weights, tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
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


def test_batches_and_offload_change_nothing(tmp_path: Path) -> None:
    from diffalign.rewards.clip import ClipScore

    save_clip(tmp_path)
    whole = ClipScore(tmp_path)(pictures(5), ["a cat"] * 5)
    parts = ClipScore(tmp_path, batch_size=2, offload=True)
    torch.testing.assert_close(parts(pictures(5), ["a cat"] * 5), whole, atol=1e-4, rtol=0)
    half = ClipScore(tmp_path, dtype=torch.bfloat16)(pictures(5), ["a cat"] * 5)
    torch.testing.assert_close(half, whole, atol=3, rtol=0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("clip", "pickscore", "hps", "image-reward", "aesthetic"):
        with pytest.raises(RewardError, match=r"cannot load .*NAME@FOLDER"):
            load_reward(f"{name}@{tmp_path}")
    with pytest.raises(RewardError, match="has no checkpoints"):
        load_reward(f"jpeg-compressibility@{tmp_path}")

"""Tiny checkpoints with random weights, in the file layout of the published ones."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def pictures(n: int = 3, side: int = 40) -> Tensor:
    """Smooth pictures `(n, 3, side, side)`, as JPEG and resizing know them."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    return nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


CHAT = (
    "{% for message in messages %}USER: {% for part in message.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% else %}<image>{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)
PROMPTS = ["a blue car", "three dogs on the moon", "a cat"]


def clip_model(side: int = 32, heads: int = 2) -> Any:
    """A CLIP with 2 layers a tower and the world's vocabulary."""
    from transformers import CLIPConfig, CLIPModel

    from recipes.world.models import build_tokenizer

    tokenizer = build_tokenizer()
    shared = {"num_hidden_layers": 2, "num_attention_heads": heads, "hidden_act": "gelu"}
    config = CLIPConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "image_size": side,
            "patch_size": 8,
            **shared,
        },
        text_config={
            **{"hidden_size": 12, "intermediate_size": 20, "vocab_size": len(tokenizer), **shared},
            "max_position_embeddings": tokenizer.model_max_length,
            "eos_token_id": tokenizer.eos_token_id,
        },
        projection_dim=10,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config).eval()
        for parameter in model.parameters():  # far from the near zero of initialisation
            if parameter.ndim:
                nn.init.normal_(parameter, std=0.3)
    return model


def save_clip(folder: Path, side: int = 32) -> Any:
    """Model, tokenizer and image processor, as `from_pretrained` reads them."""
    from transformers import CLIPImageProcessorPil

    from recipes.world.models import build_tokenizer

    model = clip_model(side)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    return model


def save_aesthetic(folder: Path) -> dict[str, Tensor]:
    """The layers with the published numbers, and a CLIP in `clip/`."""
    save_clip(folder / "clip")
    random, weights, width = torch.Generator().manual_seed(0), {}, 10
    for number, out in ((0, 8), (2, 6), (4, 5), (6, 4), (7, 1)):
        weights[f"layers.{number}.weight"] = torch.randn(out, width, generator=random)
        weights[f"layers.{number}.bias"] = torch.randn(out, generator=random)
        width = out
    torch.save(weights, folder / "sac+logos+ava1-l14-linearMSE.pth")
    return weights


class OpenClip(nn.Module):
    """The forward pass of open_clip's ViT CLIP, written on torch's own attention."""

    def __init__(self, weights: dict[str, Tensor], heads: int, quick: bool = False) -> None:
        super().__init__()
        self.w, self.heads, self.quick = weights, heads, quick

    def layers(self, x: Tensor, prefix: str, mask: Tensor | None) -> Tensor:
        w, number = self.w, 0
        while f"{prefix}.{number}.ln_1.weight" in w:
            at, width = f"{prefix}.{number}", x.shape[-1]
            attention = nn.MultiheadAttention(width, self.heads, batch_first=True)
            attention.load_state_dict(
                {
                    n: w[f"{at}.attn.{n}"]
                    for n in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
                }
            )
            y = self.norm(x, f"{at}.ln_1")
            x = x + attention(y, y, y, need_weights=False, attn_mask=mask)[0]
            y = self.norm(x, f"{at}.ln_2") @ w[f"{at}.mlp.c_fc.weight"].T + w[f"{at}.mlp.c_fc.bias"]
            y = y * (1.702 * y).sigmoid() if self.quick else nn.functional.gelu(y)
            x = x + y @ w[f"{at}.mlp.c_proj.weight"].T + w[f"{at}.mlp.c_proj.bias"]
            number += 1
        return x

    def norm(self, x: Tensor, at: str) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], self.w[f"{at}.weight"], self.w[f"{at}.bias"])

    def video(self, frames: Tensor) -> Tensor:
        """ViCLIP's, `(B, T, 3, H, W)`: patches of all frames beside each other, each with place and time."""
        w, (B, T) = self.w, frames.shape[:2]
        kernel = w["visual.conv1.weight"]  # one frame deep
        x = nn.functional.conv3d(frames.transpose(1, 2), kernel, stride=kernel.shape[2:])
        x = x.flatten(3).permute(0, 2, 3, 1) + w["visual.positional_embedding"][1:]
        times = w["visual.temporal_positional_embedding"]
        x = x + (times if T > 1 else times.mean(1, keepdim=True)).unsqueeze(2)
        whole = w["visual.class_embedding"] + w["visual.positional_embedding"][0]
        x = self.norm(torch.cat([whole.expand(B, 1, -1), x.flatten(1, 2)], 1), "visual.ln_pre")
        x = self.norm(self.layers(x, "visual.transformer.resblocks", None)[:, 0], "visual.ln_post")
        return nn.functional.normalize(x @ w["visual.proj"], dim=-1)

    def image(self, pixels: Tensor) -> Tensor:
        w = self.w
        x = nn.functional.conv2d(pixels, w["visual.conv1.weight"], stride=w["visual.conv1.weight"].shape[-1])
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([w["visual.class_embedding"].expand(len(x), 1, -1), x], 1)
        x = self.norm(x + w["visual.positional_embedding"], "visual.ln_pre")
        x = self.norm(self.layers(x, "visual.transformer.resblocks", None)[:, 0], "visual.ln_post")
        return nn.functional.normalize(x @ w["visual.proj"], dim=-1)

    def text(self, tokens: Tensor, end: int) -> Tensor:
        w, length = self.w, tokens.shape[1]
        x = w["token_embedding.weight"][tokens] + w["positional_embedding"][:length]
        mask = torch.full((length, length), float("-inf")).triu(1)
        x = self.norm(self.layers(x, "transformer.resblocks", mask), "ln_final")
        x = x[torch.arange(len(x)), (tokens == end).int().argmax(1)] @ w["text_projection"]
        return nn.functional.normalize(x, dim=-1)


def open_clip_weights(tokens: int, length: int) -> dict[str, Tensor]:
    """In open_clip's layout, for a vocabulary of so many `tokens` and texts of that `length`."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int, std: float = 0.3) -> Tensor:
        return std * torch.randn(shape, generator=random)

    def tower(prefix: str, width: int) -> dict[str, Tensor]:
        found = {}
        for number in range(2):
            at = f"{prefix}.resblocks.{number}"
            shapes = {
                "attn.in_proj": (3 * width, width),
                "attn.out_proj": (width, width),
                "mlp.c_fc": (2 * width, width),
                "mlp.c_proj": (width, 2 * width),
            }
            for name, shape in shapes.items():
                joint = "_" if name.endswith("in_proj") else "."
                found[f"{at}.{name}{joint}weight"], found[f"{at}.{name}{joint}bias"] = (
                    normal(*shape),
                    normal(shape[0]),
                )
            for name in ("ln_1", "ln_2"):
                found |= {f"{at}.{name}.weight": 1 + normal(width), f"{at}.{name}.bias": normal(width)}
        return found

    weights = {
        "logit_scale": torch.tensor(4.6),
        "visual.class_embedding": normal(32),
        "visual.positional_embedding": normal(17, 32),
        "visual.conv1.weight": normal(32, 3, 8, 8),
        "visual.proj": normal(32, 10),
        "positional_embedding": normal(length, 16),
        "token_embedding.weight": normal(tokens, 16),
        "text_projection": normal(16, 10),
        **tower("visual.transformer", 32),
        **tower("transformer", 16),
    }
    for name, width in (("visual.ln_pre", 32), ("visual.ln_post", 32), ("ln_final", 16)):
        weights |= {f"{name}.weight": 1 + normal(width), f"{name}.bias": normal(width)}
    return weights


def save_hps(folder: Path) -> OpenClip:
    """HPS_v2.1_compressed.pt in open_clip's layout, with 16 heads, and a tokenizer."""
    from recipes.world.models import build_tokenizer

    tokenizer = build_tokenizer()
    weights = open_clip_weights(len(tokenizer), tokenizer.model_max_length)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 0, "state_dict": weights}, folder / "HPS_v2.1_compressed.pt")
    tokenizer.save_pretrained(folder)
    return OpenClip(weights, 16)


def save_image_reward(folder: Path) -> tuple[dict[str, Tensor], Any]:
    """ImageReward.pt, med_config.json and a vocabulary; returns the weights and the text tower as a BERT."""
    from transformers import BertConfig, BertModel

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "blue",
        "car",
        "three",
        "dogs",
        "on",
        "the",
        "moon",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*words, "cat"]) + "\n")
    random = torch.Generator().manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 3,  # with the two that the publishers added
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        is_decoder=True,
        add_cross_attention=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    bert = BertModel(config, add_pooling_layer=False)
    # BLIP's text tower knows no types of tokens
    bert.embeddings.token_type_embeddings.weight.data.zero_()
    own = {name: value for name, value in bert.state_dict().items() if "token_type" not in name}
    weights = {f"blip.text_encoder.{name}": value for name, value in own.items()}
    width = 16  # of one head
    at = "blip.visual_encoder"
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}.cls_token": (1, 1, width),
        f"{at}.pos_embed": (1, 17, width),
        f"{at}.patch_embed.proj.weight": (width, 3, 8, 8),
        f"{at}.patch_embed.proj.bias": (width,),
        f"{at}.norm.weight": (width,),
        f"{at}.norm.bias": (width,),
    }
    for number in range(2):
        block = {"norm1": None, "norm2": None, "attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        block |= {"mlp.fc1": (80, width), "mlp.fc2": (width, 80)}
        for name, shape in block.items():
            shapes[f"{at}.blocks.{number}.{name}.weight"] = shape or (width,)
            shapes[f"{at}.blocks.{number}.{name}.bias"] = (shape or (width,))[:1]
    for number, (one, other) in zip(
        (0, 2, 4, 6, 7), ((16, 12), (12, 8), (8, 6), (6, 4), (4, 1)), strict=True
    ):
        shapes |= {f"mlp.layers.{number}.weight": (other, one), f"mlp.layers.{number}.bias": (other,)}
    weights |= {name: torch.empty(shape) for name, shape in shapes.items()}
    weights = {name: 0.3 * torch.randn(value.shape, generator=random) for name, value in weights.items()}
    bert.load_state_dict({name: weights[f"blip.text_encoder.{name}"] for name in own}, strict=False)
    bert.config.is_decoder = False  # it attends to the picture, but in both directions to the prompt
    torch.save(weights, folder / "ImageReward.pt")
    described = {**config.to_dict(), "encoder_width": width, "vocab_size": len(words) + 1}
    (folder / "med_config.json").write_text(json.dumps(described))
    return weights, bert.eval()


def save_viclip(folder: Path) -> OpenClip:
    """model.safetensors with the publishers' names, 4 frames and one head a tower, and a tokenizer."""
    from safetensors.torch import save_file

    from recipes.world.models import build_tokenizer

    tokenizer, random = build_tokenizer(), torch.Generator().manual_seed(1)
    weights = open_clip_weights(len(tokenizer), 12)
    weights["visual.conv1.weight"] = weights["visual.conv1.weight"].unsqueeze(2)
    weights["visual.temporal_positional_embedding"] = 0.3 * torch.randn(1, 4, 32, generator=random)
    del weights["logit_scale"]
    published = {
        name.replace("visual.", "vision_encoder.") if "visual" in name else f"text_encoder.{name}": value
        for name, value in weights.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(published | {"temp": torch.tensor(0.01)}, folder / "model.safetensors")
    tokenizer.save_pretrained(folder)
    return OpenClip(weights, 1, quick=True)


def save_llava(folder: Path, counts: bool = False) -> Any:
    """A LLaVA with its processor's files, and a DeBERTa in `deberta/`.

    Arguments:
        counts: whether it says nothing but numbers from 0 to 9.
    """
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        DebertaConfig,
        DebertaModel,
        DebertaTokenizer,
        LlamaConfig,
        LlamaTokenizer,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    letters = "abcdefghijklmnopqrstuvwxyzAEIRSTU:,?\n"
    numbers = [f"▁{number}" for number in range(10)]
    words = ["<unk>", "<s>", "</s>", "<pad>", "<image>", "▁", "▁blue", "▁car", "▁dogs", "▁moon", *letters]
    words += numbers
    tokenizer = LlamaTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[],
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
    pieces = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", "Ġ", *letters]
    comparing = DebertaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])
    shared = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        llava = LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **shared),
                text_config=LlamaConfig(vocab_size=len(words), **ends, **shared),
                image_token_index=words.index("<image>"),
                image_seq_length=16,
            )
        )
        deberta = DebertaModel(DebertaConfig(vocab_size=len(pieces), pad_token_id=1, **relative, **shared))
        for parameter in [*llava.parameters(), *deberta.parameters()]:
            if parameter.ndim > 1:  # far from the near zero of initialisation
                nn.init.normal_(parameter, std=0.3)
    if counts:
        llava.lm_head.weight.data[: -len(numbers)] = 0
        for layer in llava.model.language_model.layers:  # so that the picture decides, not the last word
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                part.weight.data *= 10
    llava.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    own = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(CLIPImageProcessorPil(**size), tokenizer, chat_template=CHAT, **own).save_pretrained(
        folder
    )
    deberta.save_pretrained(folder / "deberta")
    comparing.save_pretrained(folder / "deberta")
    return llava.eval(), deberta.eval()

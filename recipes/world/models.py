"""The world's untrained models: standard classes, sized for two CPU cores."""

import string
from collections import Counter
from itertools import pairwise

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
    UNet3DConditionModel,
)
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from diffalign.world.grammar import COUNTS, MOTION_PHRASES, PLURAL
from diffalign.world.scenes import BACKGROUNDS, IMAGE_SIZE, SUBJECTS, TINTS

LATENT_CHANNELS = 8
LATENT_SIZE = IMAGE_SIZE // 8
MAX_TOKENS = 16
FLOW_SHIFT = 1.0  # of the steps' times towards the noise
WORDS = (
    *("a", "an", *COUNTS, *SUBJECTS, *PLURAL.values(), *TINTS, *BACKGROUNDS),
    *("and", "on", "the", "left", "right", "of", "above", "below"),
)
#: Of the prompts of videos.
VIDEO_WORDS = (*WORDS, "walking", *" ".join(MOTION_PHRASES.values()).split())


def build_tokenizer(known: tuple[str, ...] = WORDS) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of the `known` words is one token; other text falls to letters.

    Byte-pair encoding learned here, with ties broken by the alphabet: `BpeTrainer` breaks them
    otherwise in each process, and a model is only worth the numbering that it was trained with.
    """
    words = [(*word[:-1], f"{word[-1]}</w>") for word in sorted(set(known))]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in words for pair in pairwise(word)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        words = [_merged(word, best) for word in words]
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(a + b for a, b in merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`word` with each occurrence of `pair` as one piece."""
    pieces: list[str] = []
    for piece in word:
        if pieces and (pieces[-1], piece) == pair:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return tuple(pieces)


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """CLIP with an 8-pixel-patch ViT; its text tower is the denoiser's text encoder."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=8,
        projection_dim=128,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def build_vae() -> AutoencoderKL:
    """Eightfold autoencoder; few channels at full resolution, where they cost most."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=16,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """Denoiser of 8×8 latents with text attention at 4×4."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_video_unet() -> UNet3DConditionModel:
    """Denoiser of 8×8 latents of 8 frames; its layers in space are those of `build_unet`, one a block."""
    return UNet3DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
        cross_attention_dim=128,
        attention_head_dim=16,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction, as in its version 2."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def build_flow_scheduler() -> DPMSolverMultistepScheduler:
    """Euler's method for the flow's equation, in the class whose interface Stable Diffusion's pipeline knows.

    The first-order solver's step is x + (t' − t) v, also the last, to t' = 0.
    """
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=FLOW_SHIFT,
        solver_order=1,
        final_sigmas_type="zero",
        steps_offset=1,  # without effect on a flow's times, but the pipeline warns of another
    )

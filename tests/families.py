"""Tiny pipelines of the real classes of every family, with random weights; a second a family, or less.

Each is made on the spot, with the components of its published models; `FAMILIES` has its call's arguments.
"""

import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers as D
import torch
import transformers as T

SCRATCH = tempfile.TemporaryDirectory()
CHARACTERS = [chr(i) for i in range(33, 127)]
STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
CHAT = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n'}}{% if m['content'] is string %}"
    "{{m['content']}}{% else %}{% for c in m['content'] %}{% if c['type']=='text' %}{{c['text']}}{% endif %}"
    "{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)

# Text: tokenizers of single characters, and encoders


def clip_tokenizer() -> Any:
    tokens = ["<|startoftext|>", "<|endoftext|>", *CHARACTERS, *(c + "</w>" for c in CHARACTERS)]
    return T.CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)


def clip(hidden: int = 32, kind: Any = T.CLIPTextModel) -> Any:
    tokenizer = clip_tokenizer()
    config = T.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config)


def t5_tokenizer() -> Any:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T.T5Tokenizer(vocab=special + [(c, -3.0) for c in CHARACTERS], extra_ids=0, model_max_length=512)


def t5(kind: Any = T.T5EncoderModel, config: Any = T.T5Config) -> Any:
    sizes = {"vocab_size": 128, "d_model": 32, "d_ff": 37, "d_kv": 8, "num_layers": 2, "num_heads": 4}
    return kind(config(**sizes, relative_attention_num_buckets=8, decoder_start_token_id=0))


def umt5() -> Any:
    return t5(T.UMT5EncoderModel, T.UMT5Config)


def bytes_vocabulary() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {token: i for i, token in enumerate(bytes_to_unicode().values())}


def qwen_tokenizer() -> Any:
    tokenizer = T.Qwen2Tokenizer(vocab=bytes_vocabulary(), merges=[], model_max_length=2048)
    names = ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in names]})
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3(kind: Any, layers: int) -> Any:
    config = T.Qwen3Config(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=300,
        max_position_embeddings=1024,
    )
    return kind(config)


def llama_tokenizer() -> Any:
    tokens = ["<unk>", "<s>", "</s>", "▁", *CHARACTERS, "\n"]
    tokenizer = T.LlamaTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=1024)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def gemma_tokenizer() -> Any:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *CHARACTERS, "\n"]
    return T.GemmaTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=1024)


def gemma() -> Any:
    config = T.Gemma2Config(
        head_dim=16,
        hidden_size=8,
        intermediate_size=16,
        max_position_embeddings=1024,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_key_value_heads=2,
        vocab_size=128,
        attn_implementation="eager",
    )
    return T.Gemma2Model(config)


# Parts that several families share


def ddim(**changes: Any) -> Any:
    given = {**STABLE_DIFFUSION, "clip_sample": False, "set_alpha_to_one": False, **changes}
    return D.DDIMScheduler(**given)


def flow(**changes: Any) -> Any:
    return D.FlowMatchEulerDiscreteScheduler(**changes)


def vae(latent: int = 4, blocks: int = 2, **changes: Any) -> Any:
    return D.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8,) * blocks,
        layers_per_block=1,
        latent_channels=latent,
        norm_num_groups=4,
        sample_size=16,
        **changes,
    )


def shifted_vae(latent: int = 4) -> Any:
    return vae(
        latent,
        blocks=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )


def unet(**changes: Any) -> Any:
    given = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return D.UNet2DConditionModel(**given | changes)


def text_time_unet(**changes: Any) -> Any:
    return unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        attention_head_dim=(2, 4),
        **changes,
    )


# Families


def stable_diffusion() -> Any:
    scheduler = D.PNDMScheduler(**STABLE_DIFFUSION, skip_prk_steps=True, set_alpha_to_one=False)
    return D.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_2() -> Any:
    pipeline = stable_diffusion()
    pipeline.scheduler = ddim(prediction_type="v_prediction")
    return pipeline


def stable_diffusion_xl() -> Any:
    return D.StableDiffusionXLPipeline(
        vae=vae(force_upcast=True),
        text_encoder=clip(),
        text_encoder_2=clip(kind=T.CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=text_time_unet(cross_attention_dim=64, projection_class_embeddings_input_dim=80),
        scheduler=D.EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="leading"),
        add_watermarker=False,
    )


def latent_consistency() -> Any:
    schedule = {name: value for name, value in STABLE_DIFFUSION.items() if name != "steps_offset"}
    return D.LatentConsistencyModelPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet(time_cond_proj_dim=32),
        scheduler=D.LCMScheduler(**schedule, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )


def pixart() -> Any:
    transformer = D.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        norm_type="ada_norm_single",
    )
    scheduler = D.DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    return D.PixArtSigmaPipeline(
        transformer=transformer,
        vae=vae(),
        scheduler=scheduler,
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


def sana() -> Any:
    transformer = D.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=8,
    )
    autoencoder = D.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    scheduler = D.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return D.SanaPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=scheduler,
        text_encoder=gemma(),
        tokenizer=gemma_tokenizer(),
    )


def stable_diffusion_3() -> Any:
    transformer = D.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    projected = T.CLIPTextModelWithProjection
    return D.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=flow(shift=3.0),
        vae=shifted_vae(),
        text_encoder=clip(kind=projected),
        text_encoder_2=clip(kind=projected),
        text_encoder_3=t5(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer(),
        image_encoder=None,
        feature_extractor=None,
    )


def flux() -> Any:
    transformer = D.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    )
    return D.FluxPipeline(
        transformer=transformer,
        scheduler=flow(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, shift=3.0),
        vae=shifted_vae(1),
        text_encoder=clip(),
        text_encoder_2=t5(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        image_encoder=None,
        feature_extractor=None,
    )


def flux_2() -> Any:
    transformer = D.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=256,
        axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=False,
    )
    autoencoder = D.AutoencoderKLFlux2(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return D.Flux2KleinPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=flow(use_dynamic_shifting=True),
        text_encoder=qwen3(T.Qwen3ForCausalLM, 28),
        tokenizer=qwen_tokenizer(),
        is_distilled=False,
    )


def z_image() -> Any:
    transformer = D.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=16,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[2048, 128, 128],
    )
    with torch.no_grad():  # which it leaves to a checkpoint
        transformer.x_pad_token.fill_(1)
        transformer.cap_pad_token.fill_(1)
    return D.ZImagePipeline(
        transformer=transformer,
        vae=vae(16, scaling_factor=0.3611, shift_factor=0.1159),
        scheduler=flow(shift=3.0),
        text_encoder=qwen3(T.Qwen3Model, 2),
        tokenizer=qwen_tokenizer(),
    )


def lumina_2() -> Any:
    transformer = D.Lumina2Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=8,
        num_layers=1,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        ffn_dim_multiplier=None,
        norm_eps=1e-5,
        scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2],
        cap_feat_dim=8,
    )
    return D.Lumina2Pipeline(
        transformer=transformer,
        vae=shifted_vae(),
        scheduler=flow(shift=6.0),
        text_encoder=gemma(),
        tokenizer=gemma_tokenizer(),
    )


def qwen_image() -> Any:
    transformer = D.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    autoencoder = D.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    encoder = T.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": 300,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            "rope_theta": 1e6,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
        hidden_size=16,
        vocab_size=300,
        vision_end_token_id=259,
        vision_start_token_id=258,
        vision_token_id=260,
    )
    return D.QwenImagePipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=flow(),
        text_encoder=T.Qwen2_5_VLForConditionalGeneration(encoder),
        tokenizer=qwen_tokenizer(),
    )


def aura_flow() -> Any:
    transformer = D.AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        out_channels=4,
        pos_embed_max_size=256,
    )
    return D.AuraFlowPipeline(
        transformer=transformer,
        vae=vae(),
        scheduler=flow(shift=1.73),
        text_encoder=umt5(),
        tokenizer=t5_tokenizer(),
    )


def cog_view_4() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    vocabulary = bytes_vocabulary()
    for token in ("<|endoftext|>", "[gMASK]", "<sop>"):
        vocabulary[token] = len(vocabulary)
    tokens = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special = [(token, vocabulary[token]) for token in ("[gMASK]", "<sop>")]
    tokens.post_processor = TemplateProcessing(single="[gMASK] <sop> $A", special_tokens=special)
    end = "<|endoftext|>"
    tokenizer = T.PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token=end, eos_token=end, padding_side="left"
    )
    encoder = T.GlmConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=256,
    )
    transformer = D.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=4,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
    )
    scheduler = flow(
        base_shift=0.25,
        max_shift=0.75,
        base_image_seq_len=256,
        use_dynamic_shifting=True,
        time_shift_type="linear",
    )
    return D.CogView4Pipeline(
        transformer=transformer,
        vae=vae(),
        scheduler=scheduler,
        text_encoder=T.GlmForCausalLM(encoder),
        tokenizer=tokenizer,
    )


def kolors() -> Any:
    import sentencepiece
    from diffusers.pipelines.kolors import ChatGLMModel, ChatGLMTokenizer
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    folder = Path(SCRATCH.name)  # saving copies its file
    words = folder / "words.txt"
    words.write_text("a red dog on the moon\nthree cats and a blue car\n" * 50 + " ".join(CHARACTERS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(words),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=130,
        character_coverage=1.0,
        model_type="bpe",
        pad_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = ChatGLMTokenizer(str(folder / "tokenizer.model"))
    encoder = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=200,
        hidden_size=32,
        ffn_hidden_size=13,
        kv_channels=8,
        num_attention_heads=4,
        seq_length=8192,
        add_qkv_bias=True,
        add_bias_linear=False,
        multi_query_attention=True,
        multi_query_group_num=2,
        rmsnorm=True,
        original_rope=True,
        post_layer_norm=True,
    )
    reader = ChatGLMModel(encoder).float()
    with torch.no_grad():  # it leaves its weights to a checkpoint
        for parameter in reader.parameters():
            parameter.fill_(1) if parameter.ndim == 1 else parameter.normal_(std=0.1)
    denoiser = text_time_unet(
        cross_attention_dim=8,
        projection_class_embeddings_input_dim=80,
        encoder_hid_dim=32,
        encoder_hid_dim_type="text_proj",
    )
    return D.KolorsPipeline(
        unet=denoiser,
        vae=vae(),
        scheduler=D.EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="leading"),
        text_encoder=reader,
        tokenizer=tokenizer,
        image_encoder=None,
        feature_extractor=None,
    )


def hunyuan_dit() -> Any:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase]
    tokens += [f"##{c}" for c in string.ascii_lowercase]
    tokenizer = T.BertTokenizer(vocab={t: i for i, t in enumerate(tokens)}, model_max_length=77)
    encoder = T.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=37,
    )
    transformer = D.HunyuanDiT2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=32,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        hidden_size=24,
        activation_fn="gelu-approximate",
        text_len=77,
        text_len_t5=256,
    )
    schedule = {**STABLE_DIFFUSION, "beta_end": 0.018, "prediction_type": "v_prediction"}
    return D.HunyuanDiTPipeline(
        transformer=transformer,
        vae=vae(blocks=4),
        scheduler=D.DDPMScheduler(**schedule),
        text_encoder=T.BertModel(encoder),
        tokenizer=tokenizer,
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


# Of videos


def model_scope() -> Any:
    denoiser = D.UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    return D.TextToVideoSDPipeline(
        unet=denoiser, vae=vae(), text_encoder=clip(), tokenizer=clip_tokenizer(), scheduler=ddim()
    )


def animate_diff() -> Any:
    motion = D.MotionAdapter(
        block_out_channels=(8, 8),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=4,
    )
    return D.AnimateDiffPipeline(
        unet=unet(norm_num_groups=2, attention_head_dim=8),
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        motion_adapter=motion,
        scheduler=ddim(beta_schedule="linear"),
        feature_extractor=None,
        image_encoder=None,
    )


def cog_video_x() -> Any:
    transformer = D.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=226,
    )
    autoencoder = D.AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    scheduler = D.CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
    )
    return D.CogVideoXPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=scheduler,
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


def wan() -> Any:
    autoencoder = D.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    transformer = D.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=1,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=1024,
    )
    scheduler = D.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return D.WanPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=scheduler,
        text_encoder=umt5(),
        tokenizer=t5_tokenizer(),
    )


def ltx() -> Any:
    transformer = D.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=32,
    )
    scaling = (True, True, False, False)
    autoencoder = D.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=scaling,
        decoder_spatio_temporal_scaling=scaling,
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    return D.LTXPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=flow(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


def hunyuan_video() -> Any:
    transformer = D.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    autoencoder = D.AutoencoderKLHunyuanVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        act_fn="silu",
        norm_num_groups=4,
        scaling_factor=0.476986,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=True,
    )
    tokenizer = llama_tokenizer()
    encoder = T.LlamaConfig(
        vocab_size=len(tokenizer) + 2,
        hidden_size=16,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        pad_token_id=tokenizer.pad_token_id,
    )
    return D.HunyuanVideoPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=flow(shift=7.0),
        text_encoder=T.LlamaModel(encoder),
        tokenizer=tokenizer,
        text_encoder_2=clip(hidden=8),
        tokenizer_2=clip_tokenizer(),
    )


def allegro() -> Any:
    """Whose decoder works in tiles of 320 pixels, and so makes grey ones of videos as small as these."""
    transformer = D.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=32,
    )
    autoencoder = D.AutoencoderKLAllegro(
        in_channels=3,
        out_channels=3,
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return D.AllegroPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=D.EulerAncestralDiscreteScheduler(**STABLE_DIFFUSION),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


def mochi() -> Any:
    transformer = D.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        out_channels=None,
        qk_norm="rms_norm",
        text_embed_dim=32,
        time_embed_dim=4,
        activation_fn="swiglu",
        max_sequence_length=256,
    )
    transformer.pos_frequencies.data.zero_()  # which it leaves to a checkpoint
    autoencoder = D.AutoencoderKLMochi(
        latent_channels=12,
        out_channels=3,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    )
    return D.MochiPipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=flow(invert_sigmas=True),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


_SMALL: dict[str, Any] = {"height": 16, "width": 16}
_LARGE: dict[str, Any] = {"height": 32, "width": 32}
_WHOLE: dict[str, Any] = {"use_resolution_binning": False}
#: By the name of its maker, the arguments of a family's call.
FAMILIES: dict[Callable[[], Any], dict[str, Any]] = {
    stable_diffusion: {},
    stable_diffusion_2: {},
    stable_diffusion_xl: {},
    latent_consistency: {},
    pixart: {**_SMALL, **_WHOLE},
    sana: {**_LARGE, **_WHOLE},
    stable_diffusion_3: _SMALL,
    flux: _SMALL,
    flux_2: _SMALL,
    z_image: _LARGE,
    lumina_2: _SMALL,
    qwen_image: {**_LARGE, "negative_prompt": "bad", "true_cfg_scale": 4.0},
    aura_flow: _LARGE,
    cog_view_4: _SMALL,
    kolors: {},
    hunyuan_dit: {**_SMALL, **_WHOLE},
    model_scope: {**_SMALL, "num_frames": 2},
    animate_diff: {"num_frames": 2},
    cog_video_x: {**_SMALL, "num_frames": 8},
    wan: {**_SMALL, "num_frames": 5},
    ltx: {**_LARGE, "num_frames": 9},
    hunyuan_video: {**_SMALL, "num_frames": 5},
    mochi: {**_SMALL, "num_frames": 7},
}
BY_NAME = {make.__name__: (make, call) for make, call in FAMILIES.items()}


def save_family(name: str, folder: Path) -> Path:
    """Writes the family called `name`, the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = BY_NAME[name][0]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder

"""BERTScore of a description: LLaVA describes the picture, DeBERTa compares the description with the prompt.

    score = recall = mean over the prompt's tokens of their greatest cosine with a token of the description

Checkpoints: llava-hf/llava-1.5-7b-hf (Llama 2 licence), microsoft/deberta-xlarge-mnli (MIT).
Deviations:  LLaVA 1.5, which transformers loads, instead of the first; pictures are not made JPEGs before.
References:  Black et al. (ICLR 2024), section 5.2, https://arxiv.org/abs/2305.13301
             Zhang et al. (ICLR 2020), https://arxiv.org/abs/1904.09675
"""

from pathlib import Path
from typing import Any

import torch
from bert_score import BERTScorer
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from diffalign.rewards.scorer import Scorer

QUESTION = "USER: <image>\nAnswer concisely: what is going on in this image? ASSISTANT:"  # DDPO's
ANSWER = "The image contains {prompt}"  # DDPO's
FILES = ["*.json", "*.txt", "*.safetensors", "pytorch_model.bin"]  # of DeBERTa
TOKENS = 64  # of a description, at most: a sentence or two
LAYER = 40  # of DeBERTa, as bert-score recommends
CONTEXT = 512  # tokens that DeBERTa was trained on


class BertScore(Scorer):
    """How much of the prompt a description of the picture holds, from −1 to 1; about 0.5 to 0.9.

    Arguments:
        checkpoint: of LLaVA; a folder may hold the DeBERTa too, in `deberta/`.

    Further arguments and errors are those of `Scorer`.
    """

    published = "llava-hf/llava-1.5-7b-hf"
    others = ("microsoft/deberta-xlarge-mnli",)

    def load(self) -> nn.Module:
        """LLaVA and DeBERTa; LLaVA's processor and DeBERTa's tokenizer are loaded beside them."""
        config = self.read(LlavaConfig, self.checkpoint)
        self.processor = LlavaProcessor(
            self.read(CLIPImageProcessorPil, self.checkpoint),
            self.read(AutoTokenizer, self.checkpoint),
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=1,  # the one of the whole picture
        )
        llava = self.read(LlavaForConditionalGeneration, self.checkpoint, dtype=torch.float32)
        deberta = Path(self.checkpoint) / "deberta"
        if not deberta.is_dir():
            source = self.others[0]
            deberta = Path(snapshot_download(source, allow_patterns=FILES, local_files_only=self.local))
        self.scorer = scorer_of(deberta)
        return nn.ModuleDict({"llava": llava, "deberta": self.scorer._model})

    def describe(self, images: list[Image.Image]) -> list[str]:
        """LLaVA's descriptions of B pictures, B texts, by greedy decoding."""
        inputs = self.processor(images=images, text=[QUESTION] * len(images), return_tensors="pt")
        network: Any = self.network
        tokens = network["llava"].generate(**self.to_device(**inputs), max_new_tokens=TOKENS, do_sample=False)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(answers, skip_special_tokens=True)]

    def score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """See `Scorer.score`; a picture with an empty description gets 0."""
        descriptions, scores = self.describe(images), torch.zeros(len(images))
        described = [index for index, text in enumerate(descriptions) if text]
        if described:
            self.scorer.device = self.device
            _, recall, _ = self.scorer.score(
                [descriptions[index] for index in described],
                [ANSWER.format(prompt=prompts[index]) for index in described],
                batch_size=self.batch_size,
            )
            scores[described] = recall.float()
        return scores


def scorer_of(folder: Path) -> BERTScorer:
    """bert-score with the DeBERTa in `folder`, on the CPU."""
    layers = AutoConfig.from_pretrained(folder).num_hidden_layers
    scorer = BERTScorer(str(folder), num_layers=min(LAYER, layers), device="cpu", use_fast_tokenizer=True)
    # bert-score cuts texts at this length, which overflows in tokenizers that have no limit
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, CONTEXT)
    return scorer

"""The LAION aesthetic predictor: five linear layers on a CLIP's embedding of the picture.

Checkpoint: trl-lib/ddpo-aesthetic-predictor, aesthetic-model.pth (Apache-2.0), as LAION published it, on
openai/clip-vit-large-patch14 (MIT).
References: Schuhmann (2022), https://github.com/christophschuhmann/improved-aesthetic-predictor
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor, nn
from transformers import CLIPModel

from diffalign.rewards.checkpoints import weights_of
from diffalign.rewards.clip import ClipScore

FILES = ("aesthetic-model.safetensors", "aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth")


class Aesthetic(ClipScore):
    """How beautiful people would find the picture, whatever the prompt; from 1 to 10.

    Arguments:
        checkpoint: of the layers; a folder may hold the CLIP too, in `clip/`.

    Further arguments and errors are those of `Scorer`.
    """

    published = "trl-lib/ddpo-aesthetic-predictor"
    others = (ClipScore.published,)
    precise = ("aesthetic",)

    def load(self) -> CLIPModel:
        """The CLIP, with the layers on top."""
        weights = weights_of(self.checkpoint, FILES, self.local)
        folder = Path(self.checkpoint) / "clip"
        network = self.load_clip(str(folder) if folder.is_dir() else ClipScore.published)
        # the published layers' numbers count the dropout between them
        numbers = sorted({int(name.split(".")[1]) for name in weights})
        head = nn.Sequential(*(nn.Linear(*weights[f"layers.{n}.weight"].shape[::-1]) for n in numbers))
        state = {
            f"{index}.{kind}": weights[f"layers.{number}.{kind}"]
            for index, number in enumerate(numbers)
            for kind in ("weight", "bias")
        }
        head.load_state_dict(state)
        network.add_module("aesthetic", head)
        return network

    def score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """See `Scorer.score`."""
        scores: Tensor = self.network.aesthetic(self.embed_images(images))
        return scores[:, 0]

"""The LAION aesthetic predictor: five linear layers on a CLIP's embedding of the picture.

Checkpoint: trl-lib/ddpo-aesthetic-predictor, aesthetic-model.pth (Apache-2.0), as LAION published it, on
openai/clip-vit-large-patch14 (MIT).
References: Schuhmann (2022), https://github.com/christophschuhmann/improved-aesthetic-predictor
"""

from pathlib import Path

from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from diffalign.rewards.checkpoints import linear_layers, weights_of
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
        network.add_module("aesthetic", linear_layers(weights, "layers."))
        return network

    def score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """See `Scorer.score`."""
        scores: Tensor = self.network.aesthetic(self.embed_images(images))
        return scores[:, 0]

"""How steady a video is, as a reward: the mean cosine between CLIP's embeddings of successive frames.

Checkpoints: those of `clip`; FIND's table 5 takes ViT-L/14's.
References: Esser et al. (ICCV 2023), section 4.1, https://arxiv.org/abs/2302.03011
"""

from torch import Tensor

from diffalign.rewards.clip import ClipScore
from diffalign.rewards.frames import frame_consistency
from diffalign.rewards.scoring import RewardError, as_pictures


class FrameConsistency(ClipScore):
    """From −1 to 1, whatever the prompt; a video that stands still has 1, so it is no reward by itself."""

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(B,)` of video `(B, F, 3, H, W)`.

        Raises:
            RewardError: if it is given pictures, or videos of one frame.
        """
        if images.ndim != 5 or images.shape[1] < 2:
            raise RewardError("frame-consistency is of videos with two frames or more")
        return frame_consistency(images, lambda frames: self.image_features(as_pictures(frames)))

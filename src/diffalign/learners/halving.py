r"""Successive halving: many noises, of which those that promise less are left on the way.

    n_0 noises take k_1 steps, the best n_1 of their estimates x̂_0 go on to k_2 steps, … ,
    the best n_R are drawn in full, and the best of those are kept;   n_0 + … + n_R = queries

n_i is about half of n_{i−1}, and k_i = ⌈share_i T⌉: before about two fifths of the steps the reward of an
estimate says little of that of its picture (docs/find.md has correlations).

Symbols:    x̂_0 = the picture that the denoiser expects, T = steps of the sampler, R = looks
References: Karnin, Koren and Somekh (ICML 2013), sequential halving
            Jamieson and Talwalkar (AISTATS 2016), https://arxiv.org/abs/1502.07943
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from diffalign.diffusion.estimates import Estimates
from diffalign.learners.contract import Request, Update, check_rewards
from diffalign.learners.search import SearchLearner
from diffalign.rollout import INITIAL_NOISE, Rollout, sample_noise

SHARES = 0.4, 0.6  # of the steps, after which it looks


class Halving(SearchLearner):
    """Of estimates as many are scored as of pictures, and their rewards are kept apart.

    Attributes:
        noises, latents: of those that go on, x_T and x_t, `(n, *latent)`.
        estimates: what carries latents on; without it all pictures are whole, and it is best-of-N.
    """

    remembered = "noises", "latents"
    estimates: Estimates | None = None

    def prepare(self) -> None:
        super().prepare()
        self.noises = self.latents = torch.empty(0, *self.environment.latent_shape)

    @property
    def looks(self) -> list[int]:
        """The steps k_i after which it looks, fewer than all; one where two could not halve."""
        steps = 1 if self.estimates is None else self.estimates.num_steps
        looks = sorted({k for share in SHARES if (k := math.ceil(share * steps)) < steps})
        return looks if 5 * self.config.keep <= self.total else looks[:1]

    @property
    def sizes(self) -> list[int]:
        """n_i, from the first to that of pictures."""
        left, looks = self.total, len(self.looks)
        sizes = [max(self.config.keep, left // (2 ** (looks + 1) - 1))]
        for _ in range(looks - 1):
            sizes.insert(0, 2 * sizes[0])
        return [left - sum(sizes), *sizes] if looks else [left]

    @property
    def looking(self) -> bool:
        """Whether the next samples are estimates."""
        return self.rounds < len(self.looks)

    def note(self, rewards: Tensor) -> None:
        """Of pictures alone: rewards of estimates are no reason to stop."""
        if len(self.best.rewards):
            super().note(rewards)

    def ask(self) -> Request:
        """All that are left."""
        return self.next_samples(self.sizes[self.rounds])

    def sample(self, request: Request) -> Iterator[Rollout]:
        """Carries latents on to the next look, or draws the pictures of what is left."""
        x_T, x_t, prompt = self.noises, self.latents, self.prompts[0]
        if not self.rounds:
            x_T = x_t = self.draw(request)
        for start in range(0, len(x_T), self.environment.batch_size):
            batch = slice(start, start + self.environment.batch_size)
            numbers = request.groups[batch]
            if self.estimates is None or not self.looking:
                yield sample_noise(self.environment, prompt, x_T[batch], numbers)
                continue
            prompts = (prompt,) * len(numbers)
            after, pictures = self.estimates(x_t[batch], self._steps(), prompts)
            x, nothing = torch.stack([x_T[batch], after]), torch.zeros(len(numbers), 1)
            yield Rollout(x, nothing, INITIAL_NOISE, pictures, prompts, tuple(numbers))

    def _steps(self) -> range:
        """Of the look that comes."""
        looks = [0, *self.looks]
        return range(looks[self.rounds], looks[self.rounds + 1])

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """Lets the better ones go on, or keeps the best pictures."""
        if self.estimates is None or not self.looking:
            return super().tell(rollout, rewards)
        check_rewards(rollout, rewards)
        forwards = len(rewards) * self.estimates.forwards(self._steps())
        chosen = rewards.argsort(descending=True, stable=True)[: self.sizes[self.rounds + 1]].sort().values
        self.noises, self.latents = rollout.x[0, chosen], rollout.x[1, chosen]
        self.best = replace(self.best, previews=torch.cat([self.best.previews, rewards]))
        self.rounds += 1
        update = self.update(rollout, rewards, figures={"previews": len(rewards)})
        return replace(update, forwards=forwards)

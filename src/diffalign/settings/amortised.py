"""What every generator of initial noise shares that is learned for many prompts."""

from dataclasses import dataclass

from diffalign.settings.fields import Positive, Seed
from diffalign.settings.stopping import Stopping


@dataclass(frozen=True)
class AmortisedConfig(Stopping):
    """How one generator of initial noise is learned for many prompts.

    Attributes:
        rounds: How many rounds of sampling and learning there are.
        prompts_per_round: How many prompts a round takes, in turn.
        samples_per_prompt: How many pictures of each of them a round makes.
        seed: The seed of everything.
    """

    rounds: Positive = 40
    prompts_per_round: Positive = 24
    samples_per_prompt: Positive = 8
    seed: Seed = 0

    @property
    def queries(self) -> int:
        """Reward queries in all."""
        return self.rounds * self.prompts_per_round * self.samples_per_prompt

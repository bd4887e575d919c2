"""A comparison of methods at the same number of reward queries."""

from dataclasses import dataclass

from diffalign.settings.evaluation import JudgeChoice
from diffalign.settings.fields import ConfigError, Positive, Seed, Settings


@dataclass(frozen=True)
class CompareConfig(Settings):
    """What is compared.

    Attributes:
        prompts: The prompts: a set of `diffalign prompts`, or a .txt or .json file.
        methods: Which methods are compared, joined by commas.
        queries: How many reward queries each method has for each prompt.
        images: How many pictures of each prompt each method ends with.
        seeds: How often each method runs, with different seeds.
        seed: The first seed.
        reward: The reward: a name of `diffalign rewards`, or your own as my_module:my_function; the
            embedded world's own by default.
        judge: What gives verdicts; auto takes the world's exact judge where it can read the prompts.
    """

    prompts: str = ""
    methods: str = "frozen,best-of-n,halving,zero-order,spectral,spectral-fresh,find,anchors,tune"
    queries: Positive = 150
    images: Positive = 16
    seeds: Positive = 1
    seed: Seed = 0
    reward: str | None = None
    judge: JudgeChoice = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompts:
            raise ConfigError("no prompts; name a set such as world/heldout, or a file, with --prompts")
        if 2 * self.images > self.queries:
            raise ConfigError(
                f"{self.images} pictures are more than half of {self.queries} queries, of which search could "
                "hardly choose; raise queries, or lower images"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The methods, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.methods.split(",")))

"""The methods, as rows: what the command line, configuration files and Python know of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffalign.settings import anchors, find, noise_ppo, search, tune
from diffalign.settings.choices import unknown
from diffalign.settings.evaluation import FindEvaluation, HeldOutEvaluation, SearchEvaluation
from diffalign.settings.fields import ConfigError


@dataclass(frozen=True)
class Method:
    """A method's settings.

    Attributes:
        presets: settings of learning, by name; "default" is what is taken where none is named.
        evaluation: the class of what is measured of it.
        per_prompt: whether each prompt gets a run of its own, rather than all prompts one.
        learner: the module whose `build` makes the learner of (sampler, prompts, config, metadata).
        help: what the command line says of it.
        sampling: settings of sampling that a preset sets, by its name; of the others it leaves them alone.
    """

    presets: Mapping[str, Any]
    evaluation: type[Any]
    per_prompt: bool
    learner: str
    help: str
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def config(self) -> type[Any]:
        """The class of its settings of learning."""
        return type(self.presets["default"])


_FIND = """Learn the initial noise that makes a prompt's pictures better, and show what it gained.

The model stays frozen. Its initial noise becomes a mixture (or one Gaussian) that moves to noise whose
pictures the reward likes. At the end fresh pictures, in pairs of the same noise before and after, say
what that gained, beside best-of-N search at equal cost.

    diffalign find "a blue car on the moon"
    diffalign find "four pandas" --queries 300 --seed 1 --out runs/pandas
    diffalign find --prompts world/unusual --preset paper
    diffalign find "a dog" --model sd15 --reward my_module:my_function
"""
_ANCHORS = """Learn which of a set of fixed noises (anchors) suits which prompt; measure it on held-out ones.

The model stays frozen. A Gaussian process over prompts says what each anchor's pictures are worth to a
prompt, and noise is drawn around the best. What it learns carries over to prompts that it never saw where
it learns from hundreds: many prompts with few pictures each teach more than few prompts with many.

    diffalign anchors --prompts world/many --held-out world/heldout
    diffalign generate runs/anchors-default --prompt "three pandas"
"""
_NOISE_PPO = """Learn one Gaussian generator of initial noise for many prompts by PPO (Miao et al. 2025).

The model stays frozen. The generator reads the prompt's tokens and says which noise a picture starts
from, at next to no cost. Held-out prompts are checked while it learns, and measured at the end, in
pairs of the same noise before and after. paper is the paper's form, but its numbers have no published source:
they are our choice, and the default's.

    diffalign noise-ppo --prompts world/unusual --held-out world/heldout
    diffalign generate runs/noise-ppo-default --prompt "three pandas"
"""
_TUNE = """Learn the denoiser's weights, as a LoRA adapter, from rewards of its pictures of many prompts.

The objective (PG, PPO as in DDPO, DPOK, DPO) and the strategy (the whole trajectory, or B²-DiffuRL's
backward progressive training and branches) are independent choices; a preset names both. default, b2-ddpo and
b2-dpok take one optimiser step a round, where clipping never acts. Held-out prompts are checked while it
learns, and measured at the end: a reward that rises alone is an alarm.

    diffalign tune --prompts world/unusual --held-out world/heldout
    diffalign tune --preset dpok --prompts my-prompts.txt --rounds 20 --out runs/dpok
"""
_SEARCH = """Draw many pictures of a prompt and keep those that the reward likes best.

This is what one would do without learning: best-of-N, halving (the same, but noises that promise less are
left after two and three fifths of the steps, so that as many queries cost fewer forwards), zero-order
search around the best noise so far, or spectral evolution search in the noise's lowest band, at most of level
4 and as deep as the latents' size allows. Spectral searches score previews where pictures take more steps
than --preview-steps, and draw the best of them anew. It ends with a few good pictures, where
`diffalign find` ends with a distribution that gives as many as one likes. The reward chose them,
so their reward flatters: the judge's word does not.

    diffalign search "a blue car on the moon" --queries 300 --keep 4
    diffalign search "four pandas" --preset halving --queries 400
    diffalign search "four pandas" --preset spectral-fresh
"""
_AT = "diffalign.learners"
#: By the name of the command.
METHODS: Mapping[str, Method] = {
    "find": Method(find.PRESETS, FindEvaluation, True, f"{_AT}.find", _FIND, find.SAMPLING),
    "anchors": Method(anchors.PRESETS, HeldOutEvaluation, False, f"{_AT}.anchors", _ANCHORS),
    "noise-ppo": Method(noise_ppo.PRESETS, HeldOutEvaluation, False, f"{_AT}.noise_ppo", _NOISE_PPO),
    "tune": Method(tune.PRESETS, HeldOutEvaluation, False, f"{_AT}.denoiser", _TUNE, tune.SAMPLING),
    "search": Method(search.PRESETS, SearchEvaluation, True, f"{_AT}.searches", _SEARCH),
}


def method(name: str) -> Method:
    """The row called `name`; raises a `ConfigError` if there is none."""
    if name not in METHODS:
        raise ConfigError(unknown("method", name, METHODS))
    return METHODS[name]

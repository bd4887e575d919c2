"""How options stand in `--help`: groups, and dataclasses whose fields are flags."""

from typing import Annotated

from cyclopts import Group, Parameter, validators

from diffalign.settings.sampling import Opening, Sampling

_RUN = Group("Run", sort_key=1)
RUN, SWITCH = Parameter(group=_RUN), Parameter(group=_RUN, negative="")
SAMPLING = Parameter(name="*", group=Group("Pictures", sort_key=2))
LEARNING = Parameter(name="*", group=Group("Learning", sort_key=3))
EVALUATION = Parameter(name="*", group=Group("Evaluation", sort_key=4))

SamplingOptions = Annotated[Sampling, SAMPLING]
OpeningOptions = Annotated[Opening, SAMPLING]
#: Of a command's own options; settings check themselves.
Seed = Annotated[int, Parameter(validator=validators.Number(gte=-(2**63), lte=2**63 - 1))]
Positive = Annotated[int, Parameter(group=_RUN, validator=validators.Number(gte=1))]

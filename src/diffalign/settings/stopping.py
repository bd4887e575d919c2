"""When learning ends before its queries are spent: settings of every method."""

from dataclasses import dataclass

from diffalign.settings.fields import NotNegative, Settings


@dataclass(frozen=True, kw_only=True)
class Stopping(Settings):
    """When learning ends early.

    Attributes:
        stop_at: The reward at which learning stops: the mean of a round's, of a search the best one.
        patience: How many rounds without a better reward end it; 0 goes on to the last query.
    """

    stop_at: float | None = None
    patience: NotNegative = 0

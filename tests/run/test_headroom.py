"""What `doctor --prompts` recommends."""

import pytest

from diffalign.metrics.headroom import Shares
from diffalign.run.headroom import Headroom


@pytest.mark.parametrize(
    ("shares", "method"),
    [
        (Shares(0.95, 0.02, 0.03), "tune"),
        (Shares(0.0, 0.0, 0.0), "tune"),
        (Shares(0.3, 0.5, 0.2), "noise-ppo"),
        (Shares(0.3, 0.05, 0.65), "find"),
    ],
)
def test_the_advice_follows_the_shares(shares: Shares, method: str) -> None:
    assert Headroom(shares, 0.0, {}, None).advice.startswith(f"{method}:")

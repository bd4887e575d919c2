"""SEARCH: pictures from trying many seeds; what a user would do instead of tuning."""

from diffalign.search.best_of_n import SearchResult, best_of_n, equal_cost
from diffalign.search.spectral import spectral_evolution
from diffalign.search.zero_order import zero_order

__all__ = ["SearchResult", "best_of_n", "equal_cost", "spectral_evolution", "zero_order"]

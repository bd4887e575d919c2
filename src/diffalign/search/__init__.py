"""SEARCH: pictures from trying many seeds; what a user would do instead of tuning."""

from diffalign.search.best_of_n import SearchResult, best_of_n, equal_cost

__all__ = ["SearchResult", "best_of_n", "equal_cost"]

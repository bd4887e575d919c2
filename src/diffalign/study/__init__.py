"""STUDY: people compare or rate pictures in a browser, without knowing where they come from.

    questions   which pictures a voter sees, in which order and on which side
    votes       a study as one SQLite file: design, pictures, voters, votes
    server      the replies to a voter's requests; `templates` has the pages
    results     from votes to shares and means with intervals

References: Chen et al. (ACM MM 2024), Table 4, https://arxiv.org/abs/2407.19453 (ratings from 1 to 5)
            Hu et al. (CVPR 2025), B²-DiffuRL, Figure 7, https://arxiv.org/abs/2503.11240 (which is better)
"""


class StudyError(ValueError):
    """A study cannot be made, opened or counted; the message names a remedy."""

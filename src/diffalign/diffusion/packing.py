"""Latents whose pixels are tokens `(B, F·h·w, C)`, as FLUX, Qwen-Image and LTX pack them, on their grid."""

from torch import Tensor

#: Height and width in tokens, which go row by row, frame by frame; None of latents that have both anyway.
Grid = tuple[int, int] | None


def on_grid(x: Tensor, grid: Grid) -> Tensor:
    """`(B, F·h·w, C)` → `(B, F, C, h, w)`; other latents as they are.

    Raises:
        ValueError: if the tokens are no whole frames.
    """
    if grid is None:
        return x
    if x.ndim != 3 or x.shape[1] % (grid[0] * grid[1]):
        raise ValueError(f"latents of shape {tuple(x.shape[1:])} have no grid of {grid[0]}×{grid[1]} tokens")
    frames: Tensor = x.unflatten(1, (-1, *grid))
    return frames.movedim(-1, 2)


def packed(x: Tensor, grid: Grid) -> Tensor:
    """What `on_grid` was given."""
    return x if grid is None else x.movedim(2, -1).flatten(1, 3)

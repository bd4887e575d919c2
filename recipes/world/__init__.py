"""The recipe of the embedded world: makes every weight in `src/diffalign/world/weights` from nothing.

    python -m recipes.world.train --out build/world

- `train`: the command, and the loop that all stages share
- `stages`: what each stage trains, on what, with which loss
- `models`: the untrained models
- `data`: seeded batches of pictures and captions
- `export`: the pipeline folder and its model card
- `sprite_sheet`: the sprites that every picture is made of

`docs/world.md` says which choices were measured, and why they were made.
"""

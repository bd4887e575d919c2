"""RUN: one session in its folder: learn, check held-out prompts, evaluate, write; and comparisons."""

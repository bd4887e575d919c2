"""EVALUATION: fresh paired samples, their scores and verdicts, and their cost."""

from diffalign.evaluation.samples import Judge, Samples, assess, evaluate, pooled
from diffalign.evaluation.summary import SCHEMA, Cost, Summary, diversity_of, peak_memory_mb, summarise

__all__ = [
    "SCHEMA",
    "Cost",
    "Judge",
    "Samples",
    "Summary",
    "assess",
    "diversity_of",
    "evaluate",
    "peak_memory_mb",
    "pooled",
    "summarise",
]

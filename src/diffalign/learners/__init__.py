"""LEARNER: one contract, ask → sample → tell, for all that spends reward queries, searches included."""

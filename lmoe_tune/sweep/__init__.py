"""A sweep: the ledger, the searcher and scheduler over it, the run, and what others see of it.

With `trainables`, the only place that imports Ray or Optuna.
"""

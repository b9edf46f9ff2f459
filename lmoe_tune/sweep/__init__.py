"""A sweep: the ledger, the searcher and scheduler over it, the run, and what others see of it.

With `trainables`, the only place that imports Ray or Optuna. `api` and `confirmation` call it. What
the ledger keeps is declared in `schema`; docs/architecture.md leads through the other modules.
"""

"""Training: a generator that yields one result per epoch. No Ray, no Optuna, no MLflow.

`loop` trains, `baseline` is the shared start of all trials, `trial` puts both together. `platform`
and `baseline_record` need no torch. The modules are imported where they are used, as importing
torch takes seconds.
"""

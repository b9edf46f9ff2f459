"""The file that MLflow copies into a logged model and executes when the model is loaded:
`detector.py`.

`lmoe_tune.tracking.logged_models` puts it beside a trial's checkpoint, `lmoe_tune.tracking.uploads`
beside an exported detector; both add the package itself (`lmoe_tune.tracking.carried`). Nothing
imports it: a copy must work by itself, with no more than the packages that the model names as its
requirements.
"""

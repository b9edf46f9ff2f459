"""The two files that MLflow copies into a logged model and executes when the model is loaded.

`checkpoint.py` serves a trial's checkpoint (`lmoe_tune.tracking.logged_models` puts it beside one), `export.py` an
exported detector (`lmoe_tune.tracking.uploads`). Nothing imports them: a copy must work by itself, with no more than
the packages that the model names as its requirements.
"""

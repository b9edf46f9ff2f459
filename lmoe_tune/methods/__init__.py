"""Training objectives: one method, one module, with its formula, paper and source.

The training loop asks an `Objective` for the loss of each step; a method's class in `trainables/`
builds it from the parameters that it declares, and their defaults are written there and nowhere
else. To add a method: its objective here, its declaration in `trainables/`, and a line in
`trainables.method.METHODS`; `lmoe_tune.testing.methods` checks it.
"""

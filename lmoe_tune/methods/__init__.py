"""Training objectives: one method, one module, with its formula, paper and source."""

"""Is the winner of a sweep real? Its best trials and the untuned methods, trained anew and measured on the sealed test.

A confirmation is a second study in the sweep's folder, whose trials are jobs: one candidate, split and seed each.
"""

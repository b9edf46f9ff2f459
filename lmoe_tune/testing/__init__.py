"""Conformance suites: what every reader and every method must do, for pytest to run over your own.

Each suite is a class to inherit from in a test module. Our own tests use them, too; pytest itself
is needed only to run them. A suite for another kind of part gets a module of its own here.
"""

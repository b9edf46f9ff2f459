"""What lmoe-tune does, as functions: the command line and a user's own program call these.

`running` starts and resumes sweeps, `sweeps` looks at them, `one_trial` trains without Ray,
`loading` reads a spec, `dry_run` says what a sweep would do. `lmoe_tune` itself offers them
under their names, each imported where it is first used. Nothing in here prints or ends the process;
what a person may want to know goes to an `Observer` that is passed in. To add a
command, add a function here, its name in `lmoe_tune/__init__.py`, and a command in `cli` that
parses, calls it and prints.
"""

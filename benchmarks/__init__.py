"""The measurements of README.md, a script each, and the modules that they share."""

"""The parts of the Python runner. Depends on: the standard library. Used by: main.py and the tests beside it."""

VERSION = "1.0.0"

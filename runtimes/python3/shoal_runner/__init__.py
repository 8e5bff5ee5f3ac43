"""The parts of the Python runner. Depends on: the standard library. Used by: main.py and test_runner.py."""

VERSION = "1.0.0"

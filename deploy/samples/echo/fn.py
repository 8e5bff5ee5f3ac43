"""Answers with the body it was called with."""


def fn(input):
    return input

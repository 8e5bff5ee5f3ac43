"""What of its context variables a call needs a copy of in depth."""

import sys


def own_decimal():
    """Decimal arithmetic is set in place, and calls may have been given one setting: that of the loaded module."""
    decimal = sys.modules.get("decimal")
    if decimal is not None:
        decimal.setcontext(decimal.getcontext().copy())

"""The runner for Python: connects to the agent, loads the function, serves its calls.

Run as `python3 main.py`; depends on the standard library only (3.9 or newer); used by the python3 image and the process engine.
"""

import sys

from shoal_runner.runner import main

if __name__ == "__main__":
    # The function must not find the runner's files before its own.
    sys.path[:] = sys.path[1:]
    main(sys.argv[1:])

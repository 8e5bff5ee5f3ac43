"""Finds and imports the user's function."""

import importlib.util
import os
import site
import sys

from .contract import Contract

# Looked for in this order when INIT names no entry.
FILES = ("fn.py", "main.py", "handler.py")
# name of the function -> its contract
NAMES = (("handle", "native"), ("fn", "classic"), ("handler", "native"), ("main", "native"))
# Where the builder puts installed requirements.
DEPENDENCY_FOLDERS = (".deps", "site-packages")


def load(folder, entry, fn, release):
    """Imports the function of a bundle. `entry`: `file.py` or `file.py:name`. Raises what the import raises."""
    os.chdir(folder)
    folder = os.getcwd()
    for name in DEPENDENCY_FOLDERS:
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            before = list(sys.path)
            # Follows .pth files as well, but appends; the function's packages come before those of the image.
            site.addsitedir(path)
            added = [each for each in sys.path if each not in before]
            sys.path[:] = added + before
    sys.path.insert(0, folder)
    file, _, name = (entry or "").partition(":")
    path = _entry_file(folder, file)
    module = _import(path)
    function, kind = _function(module, name, os.path.basename(path))
    kind = getattr(module, "contract", kind)
    if kind not in ("classic", "native"):
        raise ValueError(f"contract = {kind!r} in {os.path.basename(path)}; it is 'classic' or 'native'")
    return Contract(function, kind, fn, release)


def _entry_file(folder, file):
    if file:
        path = os.path.join(folder, file)
        if not os.path.isfile(path) and os.path.isfile(path + ".py"):
            path += ".py"
        if not os.path.isfile(path):
            raise FileNotFoundError(f"the entry {file} is not a file of the function")
        return path
    for each in FILES:
        path = os.path.join(folder, each)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"no function found: none of {', '.join(FILES)} is there")


def _import(path):
    """Imports the file under its own name, so that the function's other modules can import it as well."""
    name = os.path.splitext(os.path.basename(path))[0]
    parent = os.path.dirname(path)
    if parent not in sys.path:
        sys.path.insert(0, parent)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _function(module, name, file):
    if name:
        function = getattr(module, name, None)
        if not callable(function):
            raise AttributeError(f"{file} has no function {name}")
        return function, "classic" if name == "fn" else "native"
    for each, kind in NAMES:
        function = getattr(module, each, None)
        if callable(function):
            return function, kind
    raise AttributeError(f"{file} has no function: write def fn(input) or def handle(request, context)")

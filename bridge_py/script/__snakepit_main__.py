"""Runs an adapter's script in processes that its tools start, so that these can unpickle objects of the script.

In the worker itself, the module of this name is the script. The worker's children import this file by that name, from
this folder: multiprocessing and joblib give them a path with the folder. The file does not need the package, because
the children may lack it.
"""

import os

_path = os.environ.get("SNAKEPIT_SCRIPT")
if _path is None:
    raise ImportError("SNAKEPIT_SCRIPT does not name the script: its worker has removed it from the environment")
__file__ = _path
__snakepit_loading__ = True
with open(_path, "rb") as _source:
    exec(compile(_source.read(), _path, "exec"))  # noqa: S102 - as the worker did
del __snakepit_loading__

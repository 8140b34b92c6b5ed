"""The script of an adapter, for processes that its tools start and that unpickle what is defined there.

In the worker itself this module is the script. Its children import it by name, from this folder, which is on the path
that they get from multiprocessing and joblib. It does not need the package, which they may lack.
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

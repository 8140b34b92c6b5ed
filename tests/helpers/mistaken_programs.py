"""Mistakes in opening a pool: settings that cannot be, and whole programs, with what the error must say."""

from __future__ import annotations

from typing import Any, Final

import attrs

import snakepit_trio as snakepit
from tests.helpers.mistakes import Thing, Tools, double


@attrs.frozen
class Setting:
    """Arguments of `open_pool`, and two texts that the error has: the cause, and what to do."""

    said: str
    remedy: str
    settings: dict[str, Any]


def _adapter(adapter: Any, **settings: Any) -> dict[str, Any]:
    return {"adapter": adapter, **settings}


_WHOLE: Final = "give a whole number of at least 1"

SETTINGS: Final = {
    "an object as the adapter": Setting("this is an object", "give the class, Tools", _adapter(Tools())),
    "a class that is no adapter": Setting(
        "an adapter derives from that", "write `class Thing(bridge_py.BaseAdapter)`", _adapter(Thing)
    ),
    "a function as the adapter": Setting(
        "a pool runs functions without an adapter", "`await pool.run(function)`", _adapter(double)
    ),
    "a name without a colon": Setting("adapter 'my_app.Tools'", "write it as 'my_app:Tools'", _adapter("my_app.Tools")),
    "a module without a class": Setting("adapter 'my_app'", "write it as 'package.module:Class'", _adapter("my_app")),
    "several adapters as one": Setting("adapter [", "give one; adapters= takes several", _adapter([Tools])),
    "no workers": Setting("workers=0", _WHOLE, _adapter(Tools, workers=0)),
    "fewer than no workers": Setting("workers=-1", _WHOLE, _adapter(Tools, workers=-1)),
    "workers as text": Setting("workers='4'", _WHOLE, _adapter(Tools, workers="4")),
    "too many workers": Setting("this machine can hold", "give fewer", _adapter(Tools, workers=10**6)),
    "a misspelt setting": Setting("argument 'wrokers'", "did you mean 'workers'", _adapter(Tools, wrokers=2)),
    "a setting of another pool": Setting(
        "argument 'max_workers'", "give workers=, a number of processes", _adapter(Tools, max_workers=2)
    ),
    "a timeout for all calls": Setting(
        "argument 'timeout'", "it belongs to calls: pool.options(timeout=...)", _adapter(Tools, timeout=3)
    ),
    "a time as text": Setting("start_timeout='30'", "give seconds, more than 0", _adapter(Tools, start_timeout="30")),
    "a number in the environment": Setting("env={'A': 1}", "give text, such as '1'", _adapter(Tools, env={"A": 1})),
    "a policy as a dict": Setting(
        "recycle={'calls': 5}", "give a snakepit_trio.RecyclePolicy", _adapter(Tools, recycle={"calls": 5})
    ),
    "an unknown word": Setting("affinity='sticky'", "give one of 'hint', 'strict'", _adapter(Tools, affinity="sticky")),
    "a lambda as the initializer": Setting(
        "workers cannot import", "Give a function at the top of a module", _adapter(Tools, initializer=lambda: 1)
    ),
    "a port that cannot be": Setting(
        "bridge_server='127.0.0.1:99999'", 'write it as "127.0.0.1:50051"',
        _adapter(Tools, bridge_server="127.0.0.1:99999"),
    ),
    "a port without its address": Setting(
        "bridge_server=8080", "give True, False, or '127.0.0.1:50051'", _adapter(Tools, bridge_server=8080)
    ),
    "an address for all machines": Setting(
        "other machines reach this address", "bridge_tls= and bridge_token=, or listen at 127.0.0.1",
        _adapter(Tools, bridge_server="0.0.0.0:0"),
    ),
    "a script that is not there": Setting(
        "there is no script", "nosuch.py", _adapter(snakepit.GrpcBridge(script="nosuch.py"))
    ),
    "a folder that is not there": Setting(
        "cwd='/nosuch' is no folder", "give one that exists", _adapter(Tools, cwd="/nosuch")
    ),
    "an interpreter that is not there": Setting(
        "python='python9' is no program", "give an interpreter's path", _adapter(Tools, python="python9")
    ),
    "an option that the adapter has not": Setting(
        "adapter Tools has no option 'a'", "there are: none", _adapter(Tools, options={"a": 1})
    ),
    "too little time to start": Setting(
        "was not ready within 0.001 s", "give it more time with start_timeout=", _adapter(Tools, start_timeout=0.001)
    ),
}  # fmt: skip

_ADAPTER: Final = """
from bridge_py import BaseAdapter, tool

class Tools(BaseAdapter):
    @tool
    def one(self):
        return 1
"""
_MAIN: Final = """
import math
import sys

import trio

import snakepit_trio as snakepit

def mine(n):
    return n

async def main():
    async with snakepit.open_pool({settings}, workers=1) as pool:
        print({use})

if __name__ == "__main__":
    {run}
"""


def _main(settings: str = "None", use: str = "await pool.run(mine, 3)", run: str = "trio.run(main)") -> str:
    return _MAIN.format(settings=settings, use=use, run=run)


def _unguarded(text: str) -> str:
    return text.replace('if __name__ == "__main__":\n    ', "")


@attrs.frozen
class Program:
    """A program, `main.py`, with a module beside it, and two texts that its stderr has.

    `limits` are commands of the shell that run before the program.
    """

    said: str
    remedy: str
    main: str
    module: str = ""
    name: str = "tools"
    limits: str = ""


_GUARD: Final = 'under `if __name__ == "__main__":`'

PROGRAMS: Final = {
    "no guard around a program with functions": Program(
        "opens a pool while its own worker loads it", _GUARD, _unguarded(_main())
    ),
    "no guard around a program with an adapter": Program(
        "opens a pool while its own worker loads it", _GUARD, _ADAPTER + _unguarded(_main("Tools"))
    ),
    "asyncio.run": Program(
        "snakepit-trio runs in trio, and this code does not", "call trio.run(main)",
        "import asyncio\n" + _main(run="asyncio.run(main())"),
    ),
    "with in place of async with, for a pool": Program(
        "this is a block, which must be entered", "write `async with snakepit_trio.open_pool(...) as pool:`",
        _main().replace("async with", "with"),
    ),
    "a pool without a block": Program(
        "before the block is entered", "write `async with snakepit_trio.open_pool(...) as pool:`",
        _main().replace("async with snakepit.open_pool(None, workers=1) as pool:", "if pool := snakepit.open_pool():"),
    ),
    "a module that is not there": Program(
        "No module named 'tols'", "start the program in its folder, or add that to PYTHONPATH", _main('"tols:Tools"')
    ),
    "a package that is not installed": Program(
        "No module named 'nosuchpackage'", "install it for ", _main('"tools:Tools"'), "import nosuchpackage\n"
    ),
    "a misspelt class": Program("has no class Tols", "did you mean 'Tools'?", _main('"tools:Tols"'), _ADAPTER),
    "a class that does not derive": Program(
        "has no class Tools that derives", "write `class Tools(bridge_py.BaseAdapter)`", _main('"tools:Tools"'),
        "class Tools: ...\n",
    ),
    "a module named as one of Python": Program(
        "this calendar is Python's own module", "give that another name", _main('"calendar:Tools"'), _ADAPTER,
        "calendar",
    ),
    "a syntax error": Program(
        "SyntaxError: ", "(tools.py, line 1)", _main('"tools:Tools"'), "def broken(:\n    pass\n"
    ),
    "an import that ends the process": Program(
        "could not start: set API_KEY", "set API_KEY", _main('"tools:Tools"'), "import sys\nsys.exit('set API_KEY')\n"
    ),
    "an import of the package above": Program(
        "attempted relative import", "name the module with its package", _main('"tools:Tools"'), "from .x import y\n"
    ),
    "a constructor that needs more": Program(
        "missing 1 required positional argument: 'path'", "give the adapter's arguments by name, as open_pool(options=",
        _main('"tools:Tools"'), _ADAPTER + "    def __init__(self, path):\n        self.path = path\n",
    ),
    "a tool without self": Program(
        "has 'n' as its first parameter", "write `self` before the others", _main('"tools:Tools"'),
        _ADAPTER.replace("(self)", "(n)"),
    ),
    "a tool with the name of a method of adapters": Program(
        "takes the place of BaseAdapter.close", "give the method another name", _main('"tools:Tools"'),
        _ADAPTER.replace("one", "close"),
    ),
    "a setup that fails": Program(
        "ConnectionError: no database", "no database", _main('"tools:Tools"'),
        _ADAPTER + "    def setup(self):\n        raise ConnectionError('no database')\n",
    ),
    "an interpreter without our packages": Program(
        "lacks the package msgspec", "-m pip install snakepit-trio-worker",
        _main('"tools:Tools", python="./python"'), _ADAPTER,
    ),
    "a function typed at a prompt": Program(
        "was defined interactively", "put it into a module", "exec(open(0).read())\n" + _main().split("if __name__")[0]
        + "mine.__module__ = '__main__'; del sys.modules['__main__'].__file__\ntrio.run(main)\n",
    ),
    "too few open files": Program(
        "Too many open files", "`ulimit -n 4096`", _main(use="1"), limits="ulimit -n 20; "
    ),
}  # fmt: skip

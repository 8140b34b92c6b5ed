"""How long a worker's imports take: reads what Python prints with PYTHONPROFILEIMPORTTIME."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections import Counter
from typing import Final

VARIABLE: Final = "PYTHONPROFILEIMPORTTIME"
_LINE: Final = re.compile(r"import time: +(\d+) \| +(\d+) \| ( *)(\S+)$")
_HEADING: Final = "import time: self [us]"
_OWN: Final = "bridge_py.main"  # the last that a worker imports before its adapter
_MICRO: Final = 1e-6
_SHOWN: Final = 3


def is_of_imports(line: str) -> bool:
    """Whether Python has printed a line for this, and not the worker."""
    return line.startswith(_HEADING) or _LINE.match(line) is not None


class ImportTimes(logging.Handler):
    """Hears what the worker prints. All times are in seconds.

    `started` is when Python itself had started, by `time.monotonic`; None before. `own` are the imports of a worker,
    and `others` those from then on, which are the adapter's. `last` is the module that was imported last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: float | None = None
        self.own = 0.0
        self.others = 0.0
        self.last = ""
        self._by_package: Counter[str] = Counter()
        self._has_own = False
        self._processes = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Read a line. Those of processes that the worker has started do not count."""
        text = record.getMessage()
        self._processes += text.startswith(_HEADING)
        if self._processes == 1 and (found := _LINE.match(text)) is not None:
            self._note(int(found[1]) * _MICRO, int(found[2]) * _MICRO, bool(found[3]), found[4])

    def _note(self, alone: float, together: float, is_inner: bool, module: str) -> None:
        self.last = module
        if self.started is None:
            self.started = time.monotonic() if module == "site" else None
            return
        if self._has_own:
            self._by_package[_package_of(module)] += round(alone / _MICRO)
            self.others += 0.0 if is_inner else together
        else:
            self.own += 0.0 if is_inner else together
            self._has_own = module == _OWN

    @property
    def has_own(self) -> bool:
        """Whether the worker has got as far as to its adapter."""
        return self._has_own

    @property
    def slowest(self) -> str:
        """The packages that took the longest among `others`, each with its time."""
        found = ((name, taken // 1000) for name, taken in self._by_package.most_common(_SHOWN))
        return ", ".join(f"{name} {taken} ms" for name, taken in found if taken)


def _package_of(module: str) -> str:
    top = module.partition(".")[0]
    return "the standard library" if top in sys.stdlib_module_names else top

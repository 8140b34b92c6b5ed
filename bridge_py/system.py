"""Which systems both packages run on. This file must be readable by any Python 3."""

import sys

_OLDEST = (3, 11)
_NAMES = {"darwin": "macOS", "win32": "Windows", "cygwin": "Cygwin"}


class UnsupportedSystem(ImportError):
    """Workers cannot run on this system, or with this Python."""


def check_system() -> None:
    """Raise `UnsupportedSystem`, which says what is needed, on anything but Linux with CPython's 3.11 or later."""
    # Not `sys.platform` itself: type checkers on other systems would take the rest for unreachable.
    platform, version = str(sys.platform), tuple(sys.version_info[:2])
    if platform != "linux":
        name = _NAMES.get(platform, platform)
        raise UnsupportedSystem(
            f"snakepit-trio runs on Linux alone so far, and this is {name}: use a Linux machine, a container, or WSL 2"
            " on Windows"
        )
    if version < _OLDEST:
        raise UnsupportedSystem("snakepit-trio needs Python 3.11 or later, and this is {}.{}".format(*version))

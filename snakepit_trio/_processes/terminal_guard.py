"""Restores the settings of a terminal if its host dies.

It is a process of its own, started as a script: standard library only. Its stdout is the terminal, and its stdin a
socket of which only the host has the other end. It notes the settings, says so, and waits. When the host says goodbye,
the host has restored them itself. Without a goodbye, the host is dead, and nobody else would.
"""

from __future__ import annotations

import os
import signal
import termios

BYE = b"bye\n"


def main() -> None:
    """Wait for the end of the host."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    settings = termios.tcgetattr(1)
    os.write(0, b"noted\n")
    try:
        said = os.read(0, len(BYE))
    except OSError:
        said = b""
    if said != BYE:
        termios.tcsetattr(1, termios.TCSANOW, settings)


if __name__ == "__main__":
    main()

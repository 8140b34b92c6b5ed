"""Rich's classes for output, or, where the extra `cli` is not installed, ours for plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["Console", "Padding", "Table", "Text", "pretty_repr"]

if TYPE_CHECKING:
    from rich.console import Console
    from rich.padding import Padding
    from rich.pretty import pretty_repr
    from rich.table import Table
    from rich.text import Text
else:
    try:
        from rich.console import Console
        from rich.padding import Padding
        from rich.pretty import pretty_repr
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        from .plain_text import Console, Padding, Table, Text, pretty_repr

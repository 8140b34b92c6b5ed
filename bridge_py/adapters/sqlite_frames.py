"""Frames from a SQLite file, which is opened read-only and may reach no other file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge_py.wire.errors import InvalidCall


def read_sqlite(path: str, sql: str, params: Mapping[str, Any]) -> Any:
    """Run a query, and return its result as a pandas frame; `params` go to `pandas.read_sql_query`."""
    if not Path(path).is_file():
        raise InvalidCall(f"sql: there is no file {path!r}")
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise InvalidCall("there is no package 'pandas' in the worker: pip install pandas") from None
    import sqlite3

    def only_this_file(action: int, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH) else sqlite3.SQLITE_OK

    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
    with contextlib.closing(connection):
        connection.set_authorizer(only_this_file)
        return pd.read_sql_query(sql, connection, **params)

"""An adapter that takes long to import: its module needs scikit-learn."""

from __future__ import annotations

import sklearn.svm

from bridge_py import BaseAdapter, tool


class Learning(BaseAdapter):
    """Uses scikit-learn."""

    @tool
    def empty(self) -> str:
        """Do nothing."""
        return str(sklearn.svm.__name__)

"""Tables of short names for `pool.python`: models, and sources of frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge_py.wire.errors import UsageError

_MODELS: Final = {
    "ada_boost": "ensemble.AdaBoostClassifier",
    "dbscan": "cluster.DBSCAN",
    "decision_tree": "tree.DecisionTreeClassifier",
    "decision_tree_regressor": "tree.DecisionTreeRegressor",
    "elastic_net": "linear_model.ElasticNet",
    "extra_trees": "ensemble.ExtraTreesClassifier",
    "gaussian_mixture": "mixture.GaussianMixture",
    "gaussian_process": "gaussian_process.GaussianProcessClassifier",
    "gaussian_process_regressor": "gaussian_process.GaussianProcessRegressor",
    "gradient_boosting": "ensemble.GradientBoostingClassifier",
    "gradient_boosting_regressor": "ensemble.GradientBoostingRegressor",
    "hist_gradient_boosting": "ensemble.HistGradientBoostingClassifier",
    "hist_gradient_boosting_regressor": "ensemble.HistGradientBoostingRegressor",
    "isolation_forest": "ensemble.IsolationForest",
    "kmeans": "cluster.KMeans",
    "knn": "neighbors.KNeighborsClassifier",
    "knn_regressor": "neighbors.KNeighborsRegressor",
    "lasso": "linear_model.Lasso",
    "linear_regression": "linear_model.LinearRegression",
    "linear_svm": "svm.LinearSVC",
    "logistic_regression": "linear_model.LogisticRegression",
    "mlp": "neural_network.MLPClassifier",
    "mlp_regressor": "neural_network.MLPRegressor",
    "naive_bayes": "naive_bayes.GaussianNB",
    "pca": "decomposition.PCA",
    "random_forest": "ensemble.RandomForestClassifier",
    "random_forest_regressor": "ensemble.RandomForestRegressor",
    "ridge": "linear_model.Ridge",
    "sgd": "linear_model.SGDClassifier",
    "sgd_regressor": "linear_model.SGDRegressor",
    "standard_scaler": "preprocessing.StandardScaler",
    "svm": "svm.SVC",
    "svm_regressor": "svm.SVR",
}
_FRAMES: Final = {
    "csv": ("pandas.read_csv", "filepath_or_buffer"),
    "json": ("pandas.read_json", "path_or_buf"),
    "parquet": ("pandas.read_parquet", "path"),
    "excel": ("pandas.read_excel", "io"),
    "sql": ("pandas.read_sql", ""),
}
_SQLITE: Final = "sqlite:///"


def model(kind: str) -> str:
    """The target that makes a model. Raises `UsageError`, which lists the names, for an unknown kind."""
    if kind not in _MODELS:
        raise UsageError(
            f"there is no kind of model {kind!r}; there are: {', '.join(_MODELS)}, and any class by call()"
        )
    return f"sklearn.{_MODELS[kind]}"


def training(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `fit`. Raises `UsageError` if `data` has no "X"."""
    if not isinstance(data, Mapping) or "X" not in data:
        raise UsageError(f"the data of a training are {{'X': ..., 'y': ...}}; this is {data!r:.100}")
    return dict(data)


def frame(source: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The tool that reads a frame, and its arguments. Raises `UsageError` for an unknown source."""
    if source not in _FRAMES:
        raise UsageError(f"there is no source {source!r} of frames; there are: {', '.join(_FRAMES)}")
    target, path = _FRAMES[source]
    con = params.get("con")
    if source == "sql" and isinstance(con, str) and con.startswith(_SQLITE):
        rest = {name: value for name, value in params.items() if name not in ("con", "sql")}
        return "python_read_sqlite", {"path": con.removeprefix(_SQLITE), "sql": params.get("sql"), "params": rest}
    spelled = {_spelled(name, path): value for name, value in params.items()}
    if source == "csv" and isinstance(file := spelled.get(path), str):
        return "python_read_csv", {"path": file, "params": {k: v for k, v in spelled.items() if k != path}}
    return "python_call", {"target": target, "kwargs": spelled}


def _spelled(name: str, path: str) -> str:
    return path if path and name in ("path", "filepath", "file") else name

"""Reading a fitted scikit-learn object: a pipeline, or one estimator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import catalogue
from lattice.fhe.compiler.graph import Graph
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.importers.sklearn import estimators, neighbours, scalers
from lattice.fhe.compiler.importers.sklearn.chain import INPUT, Chain, fitted
from lattice.fhe.compiler.importers.unsupported import Findings

Step = Callable[[Chain, str, Any], None]

STEPS: dict[str, Step] = {
    "StandardScaler": scalers.standard,
    "RobustScaler": scalers.robust,
    "MinMaxScaler": scalers.min_max,
    "MaxAbsScaler": scalers.max_abs,
    "Normalizer": scalers.normalizer,
    "PCA": scalers.projection,
    "TruncatedSVD": scalers.projection,
    "SelectKBest": scalers.selection,
    "VarianceThreshold": scalers.selection,
    "LinearRegression": estimators.regressor,
    "Ridge": estimators.regressor,
    "Lasso": estimators.regressor,
    "ElasticNet": estimators.regressor,
    "LinearSVR": estimators.regressor,
    "SGDRegressor": estimators.regressor,
    "LinearSVC": estimators.classifier,
    "RidgeClassifier": estimators.classifier,
    "Perceptron": estimators.classifier,
    "SGDClassifier": estimators.classifier,
    "LogisticRegression": estimators.logistic,
    "LinearDiscriminantAnalysis": estimators.logistic,
    "SVC": estimators.vector_classifier,
    "NuSVC": estimators.vector_classifier,
    "SVR": estimators.vector_regressor,
    "MLPClassifier": estimators.perceptron,
    "MLPRegressor": estimators.perceptron,
    "NearestNeighbors": neighbours.neighbours,
    "KNeighborsClassifier": neighbours.neighbour_classifier,
}
"""What reads each class; `Pipeline` is read step by step."""


def is_sklearn(model: Any) -> bool:
    """Whether this object is scikit-learn's: by its class, whose module need not be importable here."""
    return any(kind.__module__.partition(".")[0] == "sklearn" for kind in type(model).__mro__)


def load_sklearn(model: Any) -> Imported:
    """A fitted pipeline or estimator; `model_unsupported` lists every step that cannot be compiled."""
    steps = _steps(model)
    width = int(fitted(steps[0][1], "n_features_in_"))
    chain, findings, operators = Chain(width), Findings("scikit-learn"), Counter[str]()
    for name, step in steps:
        kind = type(step).__name__
        operators[kind] += 1
        reader = STEPS.get(kind)
        if reader is None or catalogue.find("scikit-learn", kind) is None:
            findings.add(kind, name)
        elif chain.after:
            findings.add(kind, name, "it follows a step that ends a pipeline.")
        else:
            _read(reader, chain, findings, (name, step))
    findings.raise_any(operators)
    appended = len(chain.before) and type(chain.before[-1]).__name__ == "AppendSquaredLength"
    graph = Graph(INPUT, (width + bool(appended),), tuple(chain.nodes), chain.last, type(steps[-1][1]).__name__)
    graph.shapes()
    return Imported(graph, tuple(chain.before), tuple(chain.after), (width,), operators)


def _read(reader: Step, chain: Chain, findings: Findings, step: tuple[str, Any]) -> None:
    name, model = step
    try:
        reader(chain, name, model)
    except LatticeError as error:
        if error.code != "model_unsupported":
            raise
        findings.add(type(model).__name__, name, error.message)


def _steps(model: Any) -> list[tuple[str, Any]]:
    """The steps of pipelines within pipelines, in order; searches stand for what they found."""
    kind = type(model).__name__
    if kind in ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV"):
        return _steps(fitted(model, "best_estimator_"))
    if kind != "Pipeline":
        return [(kind, model)]
    found: list[tuple[str, Any]] = []
    for name, step in model.steps:
        if step is None or step == "passthrough":
            continue
        inner = _steps(step)
        found += [(name, inner[0][1])] if len(inner) == 1 else [(f"{name}.{each}", one) for each, one in inner]
    if not found:
        raise LatticeError("model_invalid", "The pipeline has no steps.")
    return found

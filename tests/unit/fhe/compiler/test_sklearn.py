"""An imported scikit-learn object predicts what scikit-learn predicts."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, OneHotEncoder, RobustScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_steps import finish, prepare
from lattice.fhe.compiler.importers import load
from lattice.fhe.compiler.importers.sklearn import similarity
from lattice.fhe.compiler.importers.sklearn.model import STEPS

CANCER, IRIS, DIABETES = (make(return_X_y=True) for make in (load_breast_cancer, load_iris, load_diabetes))
NAMED = (IRIS[0], np.array(["setosa", "versicolor", "virginica"])[IRIS[1]])
SETS = {"cancer": CANCER, "iris": NAMED, "diabetes": DIABETES}


def fit(model: Any, data: tuple[np.ndarray, np.ndarray]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*data)


def ours(model: Any, x: np.ndarray) -> Any:
    imported = load(model)
    assert imported.feature_shape == x.shape[1:]
    return finish(imported.after, imported.graph.run(prepare(imported.before, x)))


CLASSIFIERS = {
    "logistic": (make_pipeline(StandardScaler(), LogisticRegression()), "cancer"),
    "multinomial": (make_pipeline(MinMaxScaler(), LogisticRegression()), "iris"),
    "no-mean": (make_pipeline(StandardScaler(with_mean=False), LogisticRegression()), "cancer"),
    "no-std": (make_pipeline(StandardScaler(with_std=False), PCA(4), LogisticRegression(max_iter=50)), "cancer"),
    "robust": (make_pipeline(RobustScaler(), PCA(5, whiten=True), LogisticRegression()), "cancer"),
    "max-abs": (make_pipeline(MaxAbsScaler(), TruncatedSVD(5, random_state=0), LogisticRegression()), "cancer"),
    "selection": (make_pipeline(VarianceThreshold(0.1), SelectKBest(k=2), LogisticRegression()), "iris"),
    "normalizer": (make_pipeline(Normalizer(), StandardScaler(), LogisticRegression()), "iris"),
    "discriminant": (LinearDiscriminantAnalysis(), "iris"),
    "discriminant-two": (LinearDiscriminantAnalysis(), "cancer"),
    "linear-svc": (make_pipeline(StandardScaler(), LinearSVC()), "cancer"),
    "linear-svc-three": (make_pipeline(StandardScaler(), LinearSVC()), "iris"),
    "ridge": (make_pipeline(StandardScaler(), RidgeClassifier()), "iris"),
    "perceptron": (make_pipeline(StandardScaler(), Perceptron()), "iris"),
    "sgd": (make_pipeline(StandardScaler(), SGDClassifier(random_state=0)), "cancer"),
    "svc-linear": (make_pipeline(StandardScaler(), SVC(kernel="linear")), "cancer"),
    "svc-linear-three": (SVC(kernel="linear"), "iris"),
    "svc-poly": (make_pipeline(StandardScaler(), SVC(kernel="poly", degree=3, coef0=1)), "cancer"),
    "svc-square": (make_pipeline(StandardScaler(), SVC(kernel="poly", degree=2, coef0=1)), "cancer"),
    "svc-poly-three": (SVC(kernel="poly", degree=2), "iris"),
    "svc-rbf": (SVC(), "iris"),
    "svc-rbf-scaled": (make_pipeline(StandardScaler(), SVC()), "cancer"),
    "nu-svc": (make_pipeline(StandardScaler(), NuSVC(nu=0.2)), "iris"),
    "mlp": (make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=60, random_state=0)), "cancer"),
    "mlp-three": (MLPClassifier((8, 6), activation="tanh", max_iter=60, random_state=0), "iris"),
    "mlp-logistic": (MLPClassifier((8,), activation="logistic", max_iter=60, random_state=0), "iris"),
    "mlp-identity": (MLPClassifier((8,), activation="identity", max_iter=60, random_state=0), "iris"),
    "neighbours": (make_pipeline(StandardScaler(), KNeighborsClassifier(5)), "iris"),
    "neighbours-cosine": (KNeighborsClassifier(3, metric="cosine"), "iris"),
    "nested": (
        Pipeline([("a", make_pipeline(StandardScaler(), PCA(3))), ("skip", "passthrough"), ("b", SVC())]),
        "iris",
    ),
    "search": (GridSearchCV(LogisticRegression(max_iter=50), {"C": [0.1, 1.0]}, cv=2), "iris"),
}


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_classifiers(name: str) -> None:
    model, data = CLASSIFIERS[name]
    x, _ = SETS[data]
    fit(model, SETS[data])
    done = ours(model, x)
    np.testing.assert_array_equal(done.labels, model.predict(x).astype(str))
    if hasattr(model, "predict_proba") and "neighbours" not in name:
        expected = model.predict_proba(x)
        expected = expected[:, 1:] if expected.shape[1] == 2 else expected
        np.testing.assert_allclose(done.values, expected, atol=1e-9)


REGRESSORS = [
    LinearRegression(),
    make_pipeline(StandardScaler(), Ridge()),
    Lasso(0.1),
    ElasticNet(0.1),
    LinearSVR(),
    SGDRegressor(random_state=0),
    SVR(kernel="poly", degree=2, coef0=1),
    make_pipeline(StandardScaler(), SVR()),
    SVR(kernel="linear"),
    MLPRegressor(hidden_layer_sizes=(9,), max_iter=50, random_state=0),
]


@pytest.mark.parametrize("model", REGRESSORS, ids=lambda model: type(model).__name__)
def test_regressors(model: Any) -> None:
    fit(model, DIABETES)
    np.testing.assert_allclose(ours(model, DIABETES[0]).values[:, 0], model.predict(DIABETES[0]).ravel(), rtol=1e-9)


def test_several_targets() -> None:
    x = DIABETES[0]
    targets = np.column_stack([DIABETES[1], x[:, 0]])
    model = LinearRegression().fit(x, targets)
    np.testing.assert_allclose(ours(model, x).values, model.predict(x), atol=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_neighbours(metric: str) -> None:
    x = CANCER[0]
    model = NearestNeighbors(n_neighbors=5, metric=metric).fit(x[20:])
    expected = model.kneighbors(x[:20], return_distance=False)
    np.testing.assert_array_equal(ours(model, x[:20]).labels, expected)


def test_similarity_search() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 8))
    imported = similarity(rows, "cosine", 3)
    done = finish(imported.after, imported.graph.run(prepare(imported.before, rows[:4] * 7)))
    assert done.labels is not None
    np.testing.assert_array_equal(done.labels[:, 0], np.arange(4))
    np.testing.assert_allclose(done.values[:, 0], 1)
    with pytest.raises(LatticeError, match="model_invalid"):
        similarity(rows, count=51)
    with pytest.raises(LatticeError, match="finite"):
        similarity(rows * np.nan)


def test_a_quadratic_kernel_needs_no_more_squares_than_features() -> None:
    model = make_pipeline(StandardScaler(), SVC(kernel="poly", degree=2, coef0=1)).fit(*CANCER)
    widths = [shape[0] for shape in load(model).graph.shapes().values()]
    assert max(widths) <= CANCER[0].shape[1] + 1 < len(model[-1].support_vectors_)


def test_everything_unsupported_is_reported_at_once() -> None:
    steps = [("hot", OneHotEncoder()), ("scale", MinMaxScaler(clip=True)), ("trees", RandomForestClassifier(3))]
    model = Pipeline(steps)
    for _, step in steps:
        fit(step, IRIS)
    with pytest.raises(LatticeError) as caught:
        load(model)
    found = {item["operator"]: item for item in caught.value.details["unsupported"]}
    assert set(found) == {"OneHotEncoder", "MinMaxScaler", "RandomForestClassifier"}
    assert "MLPClassifier" in found["RandomForestClassifier"]["instead"]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (LogisticRegression(), "model_invalid"),
        (make_pipeline(StandardScaler(), Normalizer()).fit(IRIS[0]), "model_unsupported"),
        (SVC(kernel="sigmoid").fit(*IRIS), "model_unsupported"),
        (KNeighborsClassifier(weights="distance").fit(*IRIS), "model_unsupported"),
        (KNeighborsClassifier(metric="manhattan").fit(*IRIS), "model_unsupported"),
        (object(), "model_unsupported"),
    ],
)
def test_refusals(model: Any, code: str) -> None:
    with pytest.raises(LatticeError) as caught:
        load(model)
    assert caught.value.code == code


def test_weights_that_are_not_finite_are_refused() -> None:
    model = LinearRegression().fit(*DIABETES)
    model.coef_[0] = np.nan
    with pytest.raises(LatticeError, match="coef_ holds values that are not finite"):
        load(model)


def test_every_reader_is_in_the_catalogue() -> None:
    from lattice.fhe.compiler.catalogue import OPERATORS, Support

    table = {row.name for row in OPERATORS if row.framework == "scikit-learn" and row.support is not Support.NO}
    assert table == {*STEPS, "Pipeline"}

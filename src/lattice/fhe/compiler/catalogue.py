"""Every operator that the compiler knows, of every framework: how it is supported, its limits, what to use instead.

The importers look their operators up here, refusals quote it, and docs/reference/model-operators.md is made of it.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import NamedTuple


class Support(StrEnum):
    """Where the work of an operator is done."""

    ENCRYPTED = "encrypted"
    BEFORE = "client, before"
    AFTER = "client, after"
    FOLDED = "folded"
    NO = "not supported"


class Row(NamedTuple):
    """One operator."""

    framework: str
    name: str
    support: Support
    limits: str = ""
    instead: str = ""


FRAMEWORKS = {
    "onnx": "ONNX (and PyTorch, through it)",
    "ai.onnx.ml": "ONNX, classical machine learning",
    "scikit-learn": "scikit-learn",
}
"""Names in the table, with what people call them."""

_FITTED = "fitted by a polynomial on its calibrated range"
_LEVELS = Support.ENCRYPTED
_FOLD = Support.FOLDED
_AFTER = Support.AFTER
_NO = Support.NO


def _rows(framework: str, support: Support, table: dict[str, str]) -> tuple[Row, ...]:
    return tuple(Row(framework, name, support, limits) for name, limits in table.items())


def _refused(framework: str, table: dict[str, str]) -> tuple[Row, ...]:
    return tuple(Row(framework, name, _NO, instead=instead) for name, instead in table.items())


_ONNX = (
    *_rows(
        "onnx",
        _LEVELS,
        {
            "Gemm": "constant weights; no transposed input",
            "MatMul": "one side constant",
            "Conv": "one or two spatial axes, constant weights; groups, strides, dilations and any padding",
            "ConvTranspose": "one or two spatial axes, constant weights",
            "AveragePool": "one or two spatial axes",
            "GlobalAveragePool": "",
            "Add": "constants and tensors",
            "Sub": "constants and tensors",
            "Mul": "constants and tensors; a tensor by itself is a square",
            "Div": "by constants; by a tensor through a fitted 1/x, whose range must not hold 0",
            "Sum": "",
            "Mean": "",
            "Pow": "constant exponent: whole and positive, or −1 or 0.5 (fitted)",
            "ReduceSum": "not over the batch",
            "ReduceMean": "not over the batch",
            "ReduceSumSquare": "not over the batch",
            "Relu": _FITTED,
            "LeakyRelu": _FITTED,
            "PRelu": f"constant slopes; {_FITTED}",
            "Clip": f"constant bounds; {_FITTED}",
            "Max": f"of a tensor and one constant; {_FITTED}",
            "Min": f"of a tensor and one constant; {_FITTED}",
            "Gelu": f"{_FITTED}; the forms written with Erf or Tanh are recognised",
            "Erf": _FITTED,
            "Tanh": _FITTED,
            "Softplus": _FITTED,
            "Softsign": _FITTED,
            "HardSigmoid": _FITTED,
            "HardSwish": _FITTED,
            "Swish": _FITTED,
            "Mish": _FITTED,
            "Elu": _FITTED,
            "Selu": _FITTED,
            "Celu": _FITTED,
            "Exp": _FITTED,
            "Log": f"{_FITTED}, which must be above 0",
            "Sqrt": f"{_FITTED}, which must be above 0",
            "Reciprocal": f"{_FITTED}, which must not hold 0",
            "Abs": _FITTED,
            "Sin": _FITTED,
            "Cos": _FITTED,
            "Sigmoid": f"at the end the client does it, exactly; elsewhere {_FITTED}",
        },
    ),
    *_rows(
        "onnx",
        _FOLD,
        {
            "BatchNormalization": "as at inference",
            "Neg": "",
            "Flatten": "the batch stays in front",
            "Reshape": "constant shape, the batch stays in front",
            "Squeeze": "not the batch",
            "Unsqueeze": "not before the batch",
            "Transpose": "the batch stays in front",
            "Identity": "",
            "Dropout": "as at inference",
            "Constant": "",
            "ConstantOfShape": "of constants",
            "Cast": "to floating point; to anything after the last encrypted step",
            "CastLike": "to floating point",
            "Pad": "constant widths; not the batch",
            "Concat": "not over the batch",
            "Slice": "constant bounds; not the batch",
            "Split": "constant sizes; not the batch",
            "Gather": "constant indices; not the batch",
            "Expand": "constant shape",
            "Tile": "constant repeats; not the batch",
            "DepthToSpace": "",
            "SpaceToDepth": "",
            "Shape": "",
            "Range": "of constants",
            "DequantizeLinear": "of constant weights",
        },
    ),
    *_rows(
        "onnx",
        _AFTER,
        {
            "Softmax": "at the end, over the results of a sample",
            "LogSoftmax": "at the end, over the results of a sample",
            "ArgMax": "at the end, over the results of a sample",
            "TopK": "at the end, over the results of a sample",
            "Greater": "at the end: one result against a constant",
        },
    ),
    *_refused(
        "onnx",
        {
            "MaxPool": "AveragePool, or a convolution with stride; retrain with it.",
            "GlobalMaxPool": "GlobalAveragePool.",
            "LpPool": "AveragePool.",
            "Resize": "a ConvTranspose, or resize before encrypting.",
            "Upsample": "a ConvTranspose, or resize before encrypting.",
            "LSTM": "a convolution over time, or embed the sequence on the client and encrypt the embedding.",
            "GRU": "a convolution over time, or embed the sequence on the client and encrypt the embedding.",
            "RNN": "a convolution over time, or embed the sequence on the client and encrypt the embedding.",
            "LayerNormalization": "BatchNormalization, which folds into the layers beside it.",
            "InstanceNormalization": "BatchNormalization, which folds into the layers beside it.",
            "GroupNormalization": "BatchNormalization, which folds into the layers beside it.",
            "RMSNormalization": "BatchNormalization, which folds into the layers beside it.",
            "LpNormalization": "normalise before encrypting.",
            "LRN": "BatchNormalization, which folds into the layers beside it.",
            "Attention": "pooling, or run the attention layers on the client and encrypt what they give.",
            "Einsum": "MatMul or Gemm with constant weights.",
            "Sign": "Tanh, or a Greater at the end.",
            "Floor": "leave rounding to the client, after decryption.",
            "Ceil": "leave rounding to the client, after decryption.",
            "Round": "leave rounding to the client, after decryption.",
            "Where": "arithmetic with constants, or a decision on the client after decryption.",
            "Equal": "a decision on the client after decryption.",
            "Less": "Greater with the sides exchanged, at the end.",
            "If": "export the branch that is taken.",
            "Loop": "export with the loop unrolled.",
            "Scan": "export with the loop unrolled.",
            "QuantizeLinear": "the model before quantisation.",
            "QLinearConv": "the model before quantisation.",
            "QLinearMatMul": "the model before quantisation.",
            "ConvInteger": "the model before quantisation.",
            "MatMulInteger": "the model before quantisation.",
            "Hardmax": "ArgMax at the end.",
            "ReduceMax": "ReduceMean, or take the maximum on the client after decryption.",
            "ReduceMin": "ReduceMean, or take the minimum on the client after decryption.",
            "NonMaxSuppression": "leave it to the client, after decryption.",
        },
    ),
)

_ML = (
    *_rows(
        "ai.onnx.ml",
        _LEVELS,
        {
            "LinearClassifier": "softmax, logistic or no transform, which the client does after",
            "LinearRegressor": "no transform",
        },
    ),
    *_rows("ai.onnx.ml", _FOLD, {"Scaler": "", "ZipMap": "", "ArrayFeatureExtractor": "of labels, at the end"}),
    Row("ai.onnx.ml", "Normalizer", Support.BEFORE, "L2, before everything else"),
    *_refused(
        "ai.onnx.ml",
        {
            "TreeEnsembleClassifier": "a small MLP trained on the trees' predictions.",
            "TreeEnsembleRegressor": "a small MLP trained on the trees' predictions.",
            "TreeEnsemble": "a small MLP trained on the trees' predictions.",
            "SVMClassifier": "the fitted scikit-learn object itself: linear and polynomial kernels are read from it.",
            "SVMRegressor": "the fitted scikit-learn object itself: linear and polynomial kernels are read from it.",
            "Imputer": "impute before encrypting.",
            "OneHotEncoder": "encode before encrypting.",
            "LabelEncoder": "encode before encrypting.",
            "Binarizer": "binarise before encrypting.",
        },
    ),
)

_SKLEARN = (
    *_rows(
        "scikit-learn",
        _LEVELS,
        {
            "PCA": "",
            "TruncatedSVD": "",
            "LinearRegression": "",
            "Ridge": "",
            "Lasso": "",
            "ElasticNet": "",
            "LinearSVR": "",
            "SGDRegressor": "",
            "LinearSVC": "",
            "RidgeClassifier": "",
            "Perceptron": "",
            "SGDClassifier": "",
            "LogisticRegression": "probabilities by the client",
            "LinearDiscriminantAnalysis": "probabilities by the client",
            "SVC": "two classes, or a linear kernel of more; linear, poly and rbf (e^x fitted), not sigmoid",
            "NuSVC": "as SVC",
            "SVR": "linear, poly and rbf (e^x fitted)",
            "MLPClassifier": "relu, tanh, logistic, identity",
            "MLPRegressor": "relu, tanh, logistic, identity",
            "NearestNeighbors": "Euclidean or cosine; scores are returned and the client keeps the largest",
            "KNeighborsClassifier": "as NearestNeighbors; the vote is the client's",
        },
    ),
    *_rows(
        "scikit-learn",
        _FOLD,
        {
            "Pipeline": "",
            "StandardScaler": "",
            "MinMaxScaler": "without clip",
            "MaxAbsScaler": "",
            "RobustScaler": "",
            "SelectKBest": "",
            "VarianceThreshold": "",
        },
    ),
    Row("scikit-learn", "Normalizer", Support.BEFORE, "L2; what precedes it must be done before encrypting"),
    *_refused(
        "scikit-learn",
        {
            "RandomForestClassifier": "an MLPClassifier trained on the forest's predictions.",
            "RandomForestRegressor": "an MLPRegressor trained on the forest's predictions.",
            "GradientBoostingClassifier": "an MLPClassifier trained on the trees' predictions.",
            "GradientBoostingRegressor": "an MLPRegressor trained on the trees' predictions.",
            "HistGradientBoostingClassifier": "an MLPClassifier trained on the trees' predictions.",
            "HistGradientBoostingRegressor": "an MLPRegressor trained on the trees' predictions.",
            "DecisionTreeClassifier": "an MLPClassifier or LogisticRegression.",
            "DecisionTreeRegressor": "an MLPRegressor or LinearRegression.",
            "GaussianNB": "LogisticRegression.",
            "OneHotEncoder": "encode before encrypting.",
            "OrdinalEncoder": "encode before encrypting.",
            "ColumnTransformer": "one scaler over all columns, or transform before encrypting.",
            "SimpleImputer": "impute before encrypting.",
            "PolynomialFeatures": "SVC or SVR with a polynomial kernel.",
        },
    ),
)

OPERATORS: tuple[Row, ...] = (*_ONNX, *_ML, *_SKLEARN)


@cache
def _table() -> dict[tuple[str, str], Row]:
    return {(row.framework, row.name): row for row in OPERATORS}


def find(framework: str, name: str) -> Row | None:
    """The row of an operator, or None where nobody has heard of it."""
    return _table().get((framework, name))

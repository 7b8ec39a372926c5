"""Which function imports which operator."""

from __future__ import annotations

from collections.abc import Callable

from lattice.fhe.compiler.importers.onnx import activations, arithmetic, classical, ends, layers, layout
from lattice.fhe.compiler.importers.onnx.builder import Builder, Call, Value

Handler = Callable[[Builder, Call], Value | tuple[Value, ...]]

HANDLERS: dict[tuple[str, str], Handler] = {
    **{("onnx", name): activations.plain for name in activations.PLAIN},
    **{("onnx", name): activations.parametric for name in activations.PARAMETERS},
    ("onnx", "Gelu"): activations.gelu,
    ("onnx", "Swish"): activations.swish,
    ("onnx", "PRelu"): activations.parametric_relu,
    ("onnx", "Clip"): activations.clip,
    ("onnx", "Max"): activations.bound,
    ("onnx", "Min"): activations.bound,
    ("onnx", "Add"): arithmetic.add,
    ("onnx", "Sub"): arithmetic.subtract,
    ("onnx", "Mul"): arithmetic.multiply,
    ("onnx", "Div"): arithmetic.divide,
    ("onnx", "Pow"): arithmetic.power,
    ("onnx", "Neg"): arithmetic.negate,
    ("onnx", "Sum"): arithmetic.total,
    ("onnx", "Mean"): arithmetic.mean,
    ("onnx", "Gemm"): layers.gemm,
    ("onnx", "MatMul"): layers.matmul,
    ("onnx", "Conv"): layers.convolution,
    ("onnx", "ConvTranspose"): layers.transposed_convolution,
    ("onnx", "BatchNormalization"): layers.batch_normalisation,
    ("onnx", "AveragePool"): layers.average_pool,
    ("onnx", "GlobalAveragePool"): layers.global_average_pool,
    ("onnx", "Flatten"): layout.flatten,
    ("onnx", "Reshape"): layout.reshape,
    ("onnx", "Squeeze"): layout.squeeze,
    ("onnx", "Unsqueeze"): layout.unsqueeze,
    ("onnx", "Transpose"): layout.transpose,
    ("onnx", "Identity"): layout.identity,
    ("onnx", "Dropout"): layout.dropout,
    ("onnx", "Cast"): layout.cast,
    ("onnx", "CastLike"): layout.cast_like,
    ("onnx", "Pad"): layout.pad,
    ("onnx", "Concat"): layout.concatenate,
    ("onnx", "Slice"): layout.slice_,
    ("onnx", "Split"): layout.split,
    ("onnx", "Gather"): layout.gather,
    ("onnx", "Expand"): layout.expand,
    ("onnx", "Tile"): layout.tile,
    ("onnx", "DepthToSpace"): layout.depth_to_space,
    ("onnx", "SpaceToDepth"): layout.space_to_depth,
    ("onnx", "Shape"): layout.shape,
    ("onnx", "ReduceSum"): layout.reduce,
    ("onnx", "ReduceMean"): layout.reduce,
    ("onnx", "ReduceSumSquare"): layout.reduce,
    ("onnx", "Softmax"): ends.softmax,
    ("onnx", "LogSoftmax"): ends.softmax,
    ("onnx", "ArgMax"): ends.argmax,
    ("onnx", "TopK"): ends.top_k,
    ("onnx", "Greater"): ends.greater,
    ("ai.onnx.ml", "Scaler"): classical.scaler,
    ("ai.onnx.ml", "Normalizer"): classical.normalizer,
    ("ai.onnx.ml", "LinearClassifier"): classical.linear_classifier,
    ("ai.onnx.ml", "LinearRegressor"): classical.linear_regressor,
    ("ai.onnx.ml", "ZipMap"): classical.zip_map,
    ("ai.onnx.ml", "ArrayFeatureExtractor"): classical.array_feature_extractor,
}
"""By framework and operator."""

CONSTANT_ONLY = {"Constant", "ConstantOfShape", "Range", "DequantizeLinear"}
"""Operators of the catalogue that are read only where everything about them is constant."""

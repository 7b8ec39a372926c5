"""A report with everything in it, of a model that nobody compiled."""

from __future__ import annotations

from lattice.fhe.compiler.report_data import (
    AccuracyReport,
    ActivationReport,
    BytesReport,
    KeyReport,
    LayerReport,
    ParametersReport,
    RangeReport,
    Report,
    StageReport,
    TotalsReport,
)

LAYERS = (
    LayerReport("dense1", "dense 784 → 128", (), (128,), 4, 3, 15, 32, 0, 1, 4.8, None, 2.1e-5),
    LayerReport("square1", "square", ("dense1",), (128,), 3, 2, 0, 0, 1, 1, 0.62, None, 8e-5),
    LayerReport("dense2", "dense 128 → 128", ("square1",), (128,), 2, 1, 8, 4, 0, 1, 1.9, None, 2e-4),
    LayerReport("sum", "sum", ("dense2", "dense1"), (128,), 1, 1, 0, 0, 0, 1, 0.01, None, 3e-4),
    LayerReport("dense3", "dense 128 → 10", ("sum",), (10,), 1, 0, 13, 16, 0, 1, 0.9, None, 3e-3),
)
KEYS = (
    *(KeyReport("rotation", 4, 620_000, steps) for steps in (1, 2, 3, 4, 8, 16, 24, 32)),
    *(KeyReport("rotation", 1, 220_000, steps) for steps in (64, 96, 512, 1024, 2048)),
    KeyReport("relinearisation", 3, 470_000),
)


def full_report() -> Report:
    """A small network with a residual connection."""
    return Report(
        model="mnist",
        source="onnx",
        slots=4096,
        backend="native avx512ifma",
        parameters=ParametersReport("par_x", 13, (50,), ((26,),) * 4, (29, 28), 26, 154, 211, 214, "classical", 128),
        layers=LAYERS,
        totals=TotalsReport(4, 36, 13, 52, 1, 60, 5, 8.53, None, 3e-3),
        keys=KEYS,
        bytes=BytesReport(sum(key.bytes for key in KEYS), 431_000, 158_000, 12_900, 410_000, 3_400_000, 9000),
        accuracy=AccuracyReport(10_000, "accuracy", 0.9791, 0.9790, 0.98, 100, 0.999, 0.0123),
        ranges=(RangeReport("dense1", -4.2, 5.1, 0.5),),
        activations=(ActivationReport("relu1", "relu", 7, (-5, 5), 0.03),),
        stages=(StageReport("import", 0.2), StageReport("pack", 1.8)),
        peak_memory_bytes=312_000_000,
        warnings=("3 of 784 features are constant in the calibration data.",),
    )

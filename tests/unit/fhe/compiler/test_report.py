"""The report: the same figures as data, as text and as a picture that any viewer opens."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import msgspec
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import picture, report
from lattice.fhe.compiler.report_data import LayerReport, ParametersReport, Report, read_report
from lattice.fhe.compiler.report_facts import completed
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.serialise.ciphertexts import encode_ciphertext
from lattice.fhe.serialise.keys import encode_evaluation_keys
from tests.support.compiled import compiled
from tests.support.encrypted import Client
from tests.support.reports import LAYERS, full_report

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """Every text of a picture; that it parses is half of the test."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_data_survives_json_and_refuses_what_it_does_not_know() -> None:
    data = full_report().to_dict()
    assert read_report(msgspec.json.decode(msgspec.json.encode(data))) == full_report()
    for change in ({"version": 2}, {"more": 1}, {"layers": [{"name": "x"}]}, {"batch": "1"}):
        with pytest.raises(LatticeError) as caught:
            read_report({**data, **change})
        assert caught.value.code == "artefact_invalid"


def test_the_text_says_what_a_deployer_asks() -> None:
    shown = report.text(full_report())
    for fact in (
        "97.91 % in the clear, 97.90 % simulated, 98.00 % encrypted (on 100)",
        "8.53 ms predicted on one core (native avx512ifma)",
        "6.53 MB, 14 keys; public key 431 KB",
        "158 KB in, 12.9 KB out",
        "N = 2^13, Q = 50 + 4·26, P = 29 + 28 bits, scale 2^26",
        "128 bits (classical): log QP 211.0, at most 214",
        "2.00 s, the longest of it pack (1.80 s), peak memory 312 MB",
        "1, 2, 3, 4, 8, 16, 24, 32",
        "warning: 3 of 784 features are constant",
    ):
        assert fact in shown
    assert re.search(r"^dense2 +dense 128 → 128 +2 → 1 +1 +8 +4 +1.9 ms +2.0e-04$", shown, re.MULTILINE)


def test_an_empty_report_is_shown_too() -> None:
    assert "not measured" in report.text(Report())
    assert "not measured" in texts(picture.svg(Report()))


def test_the_picture_has_every_layer_and_figure() -> None:
    shown = texts(picture.svg(full_report()))
    for layer in LAYERS:
        assert layer.name in shown
        assert f"{layer.level_in} → {layer.level_out}" in shown
        assert report.time_text(layer.time_ms) in shown
    assert {"6.53 MB", "8.53 ms", "128 bits", "97.90 %", "in the clear 97.91 %"} <= set(shown)


def test_arrows_are_the_graph() -> None:
    """A chain needs one arrow more than it has layers; the residual connection is one more, in a lane."""
    drawn = ElementTree.fromstring(picture.svg(full_report())).iter(f"{SVG}path")
    lines = [path.get("d", "") for path in drawn if path.get("class") == "line"]
    assert len(lines) == len(LAYERS) + 2
    assert sum("Q" in line for line in lines) == 1
    nameless = [LayerReport(f"l{index}", "square") for index in range(3)]
    chained = picture.svg(Report(layers=tuple(nameless)))
    assert chained.count('class="line"') == 4
    assert not re.search(r'd="[^"]*Q', chained)


def test_lanes_do_not_cross() -> None:
    """Four layers that all read the input, and one that reads them all."""
    layers = (*(LayerReport(f"l{i}", "dense", inputs=()) for i in range(4)), LayerReport("s", "sum", ("l0", "l1")))
    lines = re.findall(r'class="line" d="([^"]+Q[^"]+)"', picture.svg(Report(layers=layers)))
    spans = [re.match(r"M\d+ (\d+) H(\d+) .* V(\d+) ", line) for line in lines]
    taken = [(int(span[2]), int(span[1]), int(span[3])) for span in spans if span]
    assert len(taken) == len(lines) > 3
    for one in taken:
        for other in taken:
            same_lane = one is not other and one[0] == other[0]
            assert not (same_lane and one[1] < other[1] < one[2])


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a&b", '"quoted"', "bell\x07", "x" * 500])
def test_names_cannot_break_the_picture(name: str) -> None:
    hostile = Report(model=name, layers=(LayerReport(name, name, (name,)),), warnings=(name,))
    drawn = picture.svg(hostile)
    root = ElementTree.fromstring(drawn)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "desc", "style", "rect", "text", "path"
    }  # fmt: skip
    assert "href" not in drawn
    assert "url(" not in drawn


def test_long_chains_and_extreme_figures_stay_on_the_page() -> None:
    layers = tuple(LayerReport(f"l{i}", "square", level_in=60 - i, level_out=59 - i, error=10.0**-i) for i in range(60))
    params = ParametersReport(log_n=16, base_bits=(50,), level_bits=((40,),) * 60)
    root = ElementTree.fromstring(picture.svg(Report(layers=layers, parameters=params)))
    width = float(root.get("width", "0"))
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("width", "0")) >= 0
        assert float(rect.get("x", "0")) + float(rect.get("width", "0")) <= width


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 KB"), (999_600, "1 MB"), (6_530_000, "6.53 MB"), (10**13, "10 TB")],
)
def test_bytes_read_well(count: int, words: str) -> None:
    assert report.bytes_text(count) == words


@pytest.mark.parametrize(
    ("milliseconds", "words"), [(0.0004, "0.4 µs"), (0.9999, "1 ms"), (9.306, "9.31 ms"), (2100, "2.1 s")]
)
def test_times_read_well(milliseconds: float, words: str) -> None:
    assert report.time_text(milliseconds) == words


def test_facts_come_from_the_program() -> None:
    """Whatever a report says about keys and bytes, the program decides."""
    model = compiled()
    found = completed(
        dataclasses.replace(model, report={**model.report, "keys": [{"kind": "x", "level": 9, "bytes": 0}]})
    )
    assert [(key.kind, key.level, key.steps) for key in found.keys] == [("rotation", 1, 1)]
    assert found.parameters.log_n == 12
    assert (found.parameters.security_bits, found.parameters.log_qp_limit) == (128, 106)
    assert (found.batch, found.totals.instructions) == (2, 8)
    client = Client.make(model.program.params, model.keys)
    sent = encode_ciphertext(SecretKeyEncryptor(client.secret).encrypt_values([1.0], level=1), model.program.params)
    assert len(sent) == found.bytes.input
    assert len(encode_evaluation_keys(client.keys)) == found.bytes.keys
    assert found.bytes.encoded_weights == (2 + 1) * 4096 * 8

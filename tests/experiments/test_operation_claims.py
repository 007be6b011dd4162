"""The claims about the operation: each is measured, and each rule can fail."""

import openpyxl
import pytest

from convjax.chapter.chapter_data import CENTRES
from convjax.chapter.spreadsheet import DENSE, PUBLISHED, SHEET, WEIGHTS
from experiments.arithmetic import amount_does_not_change, sizes
from experiments.batch_norm_modes import two_modes
from experiments.cli import registry
from experiments.edge_kernels import formula_is_the_kernel
from experiments.harness.claim import judge
from experiments.harness.lab import Lab
from experiments.harness.rules import NotMeasuredError
from experiments.loop_cost import hundreds_and_millions, python_map
from experiments.spreadsheet import equals_the_file
from tests.helpers import SPREADSHEET

CLAIMS = {claim.id: claim for _, claim in registry.all_claims()}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(out=tmp_path_factory.mktemp("out"))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("edge-values", "reproduced"),
        ("edge-formula", "refuted"),
        ("edge-maps", "reproduced"),
        ("output-size", "reproduced"),
        ("receptive-field", "reproduced"),
        ("multiplications", "refuted"),
        ("broken-cnn", "reproduced"),
        ("matrix", "reproduced"),
        ("colour", "reproduced"),
    ],
)
def test_claim_has_the_expected_verdict(name, verdict, lab):
    result = judge(CLAIMS[name], lab)
    assert result.verdict == result.expected == verdict, result.reason


def test_claims_measure_the_figures_of_the_chapter(lab):
    def measured(name):
        return judge(CLAIMS[name], lab).measured

    found = measured("edge-formula")
    for name, value in (("(1,1)", 0), ("(5,7)", 762), ("(8,18)", -29)):
        assert found[f"kernel {name}"] == [value]
        assert found[f"formula {name}"] == [-value]
    found = measured("multiplications")
    assert found["weights_times_input_positions_2"] == [56_448]
    assert found["weights_times_input_positions_3"] == [56_448]
    assert (found["multiplications_2"], found["multiplications_3"]) == ([14_112], [18_432])
    assert measured("output-size")["settings"][0] > 200


def test_rules_reject_other_figures(lab):
    same = dict(judge(CLAIMS["edge-formula"], lab).measured)
    same |= {f"formula {name}": same[f"kernel {name}"] for name in CENTRES}
    assert formula_is_the_kernel(same).holds
    assert "sign" not in formula_is_the_kernel(same | {"formula (5,7)": [5]}).reason
    assert amount_does_not_change({"multiplications_2": [5], "multiplications_3": [5]}).holds
    for name in ("output-size", "receptive-field", "broken-cnn", "matrix", "colour"):
        claim = CLAIMS[name]
        measured = claim.measure(lab)
        assert claim.rules["any"].decide(measured).holds
        for figure in set(measured) - {"settings"}:
            assert not claim.rules["any"].decide(measured | {figure: [-1]}).holds, figure


def test_sizes_by_hand():
    assert sizes(5, 4, 2, 1) == {6}
    assert sizes(7, 3, 1, 2) == {4}


# --- loop-cost ---------------------------------------------------------------------------------


def test_python_map_by_hand():
    assert python_map([[1, 2, 3], [4, 5, 6]], [[1, 0], [0, -1]]) == [[-4, -4]]


@pytest.mark.parametrize(
    ("calls", "loops", "holds"), [(100, 1e6, True), (99, 1e6, False), (100, 9e5, False)]
)
def test_hundreds_and_millions_decides_only_on_a_gpu(calls, loops, holds):
    measured = {"gpu": [True], "one_call_per_place": [calls], "python_loops": [loops]}
    assert hundreds_and_millions(measured).holds is holds
    with pytest.raises(NotMeasuredError, match="this device is none"):
        hundreds_and_millions(measured | {"gpu": [False]})


def test_loop_cost_measures_ratios(lab):
    result = judge(CLAIMS["loop-cost"], lab)
    assert result.verdict == result.expected == "undecided"  # the tests run on CPU
    assert "is none" in result.reason
    # Hundreds of calls, or thousands of products in Python, replace one call.
    assert all(result.measured[name][0] > 1 for name in ("one_call_per_place", "python_loops"))


# --- batch-norm-modes --------------------------------------------------------------------------


@pytest.mark.slow
def test_batch_norm_modes_holds_and_rejects_other_figures(tmp_path):
    lab = Lab(out=tmp_path, quick=True)
    measured = {
        name: list(values) for name, values in CLAIMS["batch-norm-modes"].measure(lab).items()
    }
    assert two_modes(measured).holds
    for name, value in (
        ("deviation_in_training", 1.0),
        ("deviation_in_evaluation", 1.0),
        ("deviation_of_running_statistics", 1.0),
        ("change_in_evaluation", 1e-6),
        ("mean_change_of_scale", 0.0),
        ("mean_change_of_bias", 0.0),
    ):
        assert not two_modes(measured | {name: [value]}).holds


# --- spreadsheet -------------------------------------------------------------------------------


@pytest.fixture
def sheet():
    """A sheet with the chapter's ranges and other numbers, whose maps are known by hand.

    All filters are 1 in the centre. So both maps of the first layer are the image, cut to 26×26,
    those of the second are the sum of both, and the pool keeps the largest of four.
    """
    book = openpyxl.Workbook()
    cells = book.active
    cells.title = SHEET

    def fill(first_row, first_column, rows, columns, value, step=1):
        for i in range(rows):
            for j in range(columns):
                place = cells.cell(first_row + step * i, first_column + step * j)
                place.value = value(i, j)

    def at(name):
        return openpyxl.utils.cell.coordinate_to_tuple(name)

    def pixel(i, j):
        return i + j / 32

    def middle(i, j):
        return float(i == j == 1)

    fill(*at("A2"), 28, 28, pixel)
    for name in ("AD11", "AD38", "BI11", "BI15", "BI38", "BI42"):
        fill(*at(name), 3, 3, middle)
    for name in ("AH3", "AH32"):
        fill(*at(name), 26, 26, lambda i, j: pixel(i + 1, j + 1))
    for name in ("BM4", "BM33"):  # the 25th column is centred on the last of the maps
        fill(*at(name), 24, 25, lambda i, j: 2 * pixel(i + 2, j + 2))
    for name in ("CM4", "CM33"):  # the 13th column has no neighbour to the right
        fill(*at(name), 12, 13, lambda i, j: 2 * pixel(2 * i + 3, 2 * j + 2 + (j < 12)), step=2)
    for cells_range in WEIGHTS:
        fill(*at(cells_range.split(":")[0]), 12, 13, lambda i, j: float(i == j == 0), step=2)
    cells[DENSE] = 2 * 2 * pixel(3, 3)
    return book


def test_spreadsheet_measures_by_hand(sheet, tmp_path):
    sheet.save(tmp_path / "example.xlsx")
    lab = Lab(out=tmp_path / "out", spreadsheet=tmp_path / "example.xlsx")
    measured = CLAIMS["spreadsheet"].measure(lab)
    assert measured["dense"] == measured["stored"] == [4 * (3 + 3 / 32)]
    for name in ("maps_1", "maps_2", "pooled"):
        assert measured[f"deviation_{name}"] == [0]
    assert not equals_the_file(measured).holds  # not the chapter's numbers
    right = measured | {"dense": [PUBLISHED], "stored": [PUBLISHED]}
    assert equals_the_file(right).holds
    for name, value in (("dense", 258.7), ("stored", 258.7), ("deviation_maps_2", 1e-9)):
        assert not equals_the_file(right | {name: [value]}).holds


@pytest.mark.parametrize("name", ["M15", "AD39", "BJ12", "BN5", "CO6", "DN4"])
def test_spreadsheet_compares_every_part(name, sheet, tmp_path):
    cell = sheet[SHEET][name]
    cell.value = (cell.value or 0) + 1
    sheet.save(tmp_path / "example.xlsx")
    lab = Lab(out=tmp_path / "out", spreadsheet=tmp_path / "example.xlsx")
    measured = CLAIMS["spreadsheet"].measure(lab)
    deviations = [measured[f"deviation_{part}"][0] for part in ("maps_1", "maps_2", "pooled")]
    assert max(*deviations, abs(measured["dense"][0] - measured["stored"][0])) > 0.5


def test_spreadsheet_names_the_missing_option(lab):
    result = judge(CLAIMS["spreadsheet"], lab)
    assert (result.measured, result.verdict, result.expected) == ({}, "undecided", "undecided")
    assert "--spreadsheet FILE" in result.reason


@pytest.mark.parametrize("kind", ["missing", "text", "other"])
def test_sheet_rejects_other_files(kind, tmp_path):
    path = tmp_path / "example.xlsx"
    if kind == "text":
        path.write_text("no spreadsheet")
    if kind == "other":
        openpyxl.Workbook().save(path)
    with pytest.raises(ValueError, match=r"--spreadsheet must be the chapter's .*example\.xlsx"):
        CLAIMS["spreadsheet"].measure(Lab(out=tmp_path / "out", spreadsheet=path))


def test_spreadsheet_reproduces_the_chapters_file(tmp_path):
    if not SPREADSHEET.exists():
        pytest.skip("the chapter's conv-example.xlsx is not part of the project")
    lab = Lab(out=tmp_path, spreadsheet=SPREADSHEET)
    result = judge(CLAIMS["spreadsheet"], lab)
    assert result.verdict == "reproduced", result.reason
    assert result.measured["dense"][0] == pytest.approx(PUBLISHED, rel=1e-12)

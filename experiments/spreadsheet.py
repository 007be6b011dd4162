"""spreadsheet: the convolutional network of the chapter's Excel file, computed by `conv2d`.

conv-example.xlsx holds a digit of 28×28 pixels, two convolutions of two 3×3 filters each, with the
ReLU inside their formulas, a 2×2 max pool and one dense unit, whose value the file stores:
258.73762671075724. Two quirks are the file's own: the centre of the first filter is 0.0476 and not
0, and the second convolution has one column too many, which reads an empty column as zeros.

Rule: computed in float64 from the file's pixels and weights, the dense unit is the stored value and
that above within 1e-12 of it, and every cell of both convolutions and of the pool equals the
stored one.

The file is not part of this project: `--spreadsheet FILE` says where it is.

Command: python -m experiments run spreadsheet --spreadsheet conv-example.xlsx
"""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax import conv2d
from experiments.lab import Lab
from experiments.ledger import Claim, Decision, Measured, NotMeasuredError, Rule

PUBLISHED = 258.73762671075724
SHEET = "conv-example"
# The file's 0.6 MB unfold to 3; what another may unfold to, in bytes.
LIMIT = 100 << 20

# Where the sheet has what: upper left and lower right cell.
IMAGE = "A2:AB29"
FILTERS_1 = ("AD11:AF13", "AD38:AF40")
FILTERS_2 = (("BI11:BK13", "BI15:BK17"), ("BI38:BK40", "BI42:BK44"))
MAPS_1 = ("AH3:BG28", "AH32:BG57")
MAPS_2 = ("BM4:CK27", "BM33:CK56")
POOLED = ("CM4:DK26", "CM33:DK55")  # every other row and column
WEIGHTS = ("DN4:EL26", "DN33:EL55")  # likewise
DENSE = "EN4"


class Sheet:
    """The stored values of the file.

    Raises:
      ValueError: if there is no such file or it is another one.
    """

    def __init__(self, path: Path):
        # Here, because every command imports every experiment.
        import openpyxl

        try:
            self._cells = _sheet(openpyxl, path)
            self.dense = float(self._cells[DENSE].value)
        except _OtherError as error:
            reason = str(error)
        except (TypeError, ValueError):
            reason = f"its cell {DENSE} holds no number"
        else:
            return
        raise ValueError(
            f"--spreadsheet must be the chapter's conv-example.xlsx with its sheet {SHEET!r}, got "
            f"{path}: {reason}."
        )

    def block(self, *ranges: str, step: int = 1) -> npt.NDArray[np.float64]:
        """Returns the values of equally large ranges, shape (ranges, rows, columns).

        Raises:
          ValueError: if a cell holds text.
        """
        blocks = [
            [[cell.value or 0 for cell in row[::step]] for row in self._cells[cells][::step]]
            for cells in ranges
        ]
        try:
            return np.array(blocks, np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"--spreadsheet must be the chapter's conv-example.xlsx, got a file whose cells "
                f"{' or '.join(ranges)} hold something else than numbers."
            ) from None


class _OtherError(Exception):
    """A file is not the chapter's."""


def _sheet(openpyxl: Any, path: Path) -> Any:
    if not path.is_file():
        raise _OtherError("it is a folder" if path.is_dir() else "there is no such file")
    try:
        with ZipFile(path) as archive:
            unfolded = sum(member.file_size for member in archive.infolist())
        if unfolded > LIMIT:
            raise _OtherError(f"it unfolds to {unfolded} bytes, of which at most {LIMIT} are read")
        with path.open("rb") as file:
            book = openpyxl.load_workbook(file, data_only=True)
    except _OtherError:
        raise
    except OSError as error:
        raise _OtherError(f"it cannot be read, {error.strerror or error}") from error
    except Exception as error:  # the readers of archives and of XML, each with kinds of its own
        raise _OtherError("it is no spreadsheet, or a damaged one") from error
    if SHEET not in book.sheetnames:
        raise _OtherError(f"its sheets are {', '.join(book.sheetnames)}")
    return book[SHEET]


def network(sheet: Sheet) -> dict[str, Any]:
    """Computes the sheet's network in float64; images and maps are (1, C, H, W)."""
    with jax.enable_x64(True):
        image = jnp.asarray(sheet.block(IMAGE)[None])
        filters = jnp.asarray(sheet.block(*FILTERS_1)[:, None])
        first = nnx.relu(conv2d(image, filters, layout="NCHW"))
        filters = jnp.stack([sheet.block(*pair) for pair in FILTERS_2])
        # The column too many reads one beyond the maps, which is empty.
        padding = ((0, 0), (0, 1))
        second = nnx.relu(conv2d(first, filters, padding=padding, layout="NCHW"))
        even = jnp.pad(second, ((0, 0), (0, 0), (0, 0), (0, 1)))
        channels_last = even.transpose(0, 2, 3, 1)
        pooled = nnx.max_pool(channels_last, (2, 2), strides=(2, 2)).transpose(0, 3, 1, 2)
        dense = (pooled[0] * sheet.block(*WEIGHTS, step=2)).sum()
        maps = {"maps_1": first[0], "maps_2": second[0], "pooled": pooled[0]}
        return {name: np.asarray(value) for name, value in {**maps, "dense": dense}.items()}


def spreadsheet(lab: Lab) -> Measured:
    if lab.spreadsheet is None:
        raise NotMeasuredError("needs the chapter's conv-example.xlsx: --spreadsheet FILE")
    sheet = Sheet(lab.spreadsheet)
    found = network(sheet)
    stored = {
        "maps_1": sheet.block(*MAPS_1),
        "maps_2": sheet.block(*MAPS_2),
        "pooled": sheet.block(*POOLED, step=2),
    }
    return {
        "dense": [float(found["dense"])],
        "stored": [sheet.dense],
        **{f"deviation_{name}": [np.abs(found[name] - stored[name]).max()] for name in stored},
    }


def equals_the_file(measured: Measured) -> Decision:
    dense, stored = measured["dense"][0], measured["stored"][0]
    worst = max(values[0] for name, values in measured.items() if name.startswith("deviation"))
    apart = max(abs(dense - stored), abs(dense - PUBLISHED)) / PUBLISHED
    # Sums of some hundred float64 products, in another order than the spreadsheet's.
    return Decision(
        apart <= 1e-12 and worst <= 1e-12,
        f"{dense!r}, {apart:.0e} of it from the file; no cell differs by more than {worst:.0e}",
    )


CLAIMS = (
    Claim(
        id="spreadsheet",
        statement="two convolutions, a max pool and a dense unit make 258.74 of the digit in "
        "conv-example.xlsx",
        published={"dense": PUBLISHED},
        measure=spreadsheet,
        rules={"any": Rule("the file's own numbers, cell by cell", equals_the_file)},
    ),
)

if __name__ == "__main__":
    from experiments.cli import script

    script(__file__)

"""What the chapter computes with: its image of a three, its edge kernels, and its spreadsheet."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from convjax.data import mnist5k_unsplit

TOP_EDGE = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
LEFT_EDGE = np.array([[-1, 1, 0]] * 3)
DIAGONAL_1 = np.array([[0, -1, 1], [-1, 1, 0], [1, 0, 0]])
DIAGONAL_2 = np.array([[1, -1, 0], [0, 1, -1], [0, 0, 1]])
KERNELS = np.stack([LEFT_EDGE, TOP_EDGE, DIAGONAL_1, DIAGONAL_2])
CENTRES = {"(1,1)": (1, 1), "(5,7)": (5, 7), "(8,18)": (8, 18)}


def embedded_three() -> np.ndarray:
    """Returns the image of the chapter out of the embedded sample, 28×28 pixels from 0 to 255."""
    return mnist5k_unsplit().images[1502, :, :, 0].astype(int)


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

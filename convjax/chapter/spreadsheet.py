"""The reader of the chapter's spreadsheet, conv-example.xlsx."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

PUBLISHED = 258.73762671075724
SHEET = "conv-example"
# The file's 0.6 MB unpack to 3 MB. More than this, in bytes, is not read.
MAX_UNPACKED_BYTES = 100 << 20

# Ranges of the sheet, from the upper left to the lower right cell.
IMAGE = "A2:AB29"
FILTERS_1 = ("AD11:AF13", "AD38:AF40")
FILTERS_2 = (("BI11:BK13", "BI15:BK17"), ("BI38:BK40", "BI42:BK44"))
MAPS_1 = ("AH3:BG28", "AH32:BG57")
MAPS_2 = ("BM4:CK27", "BM33:CK56")
POOLED = ("CM4:DK26", "CM33:DK55")  # every other row and column
WEIGHTS = ("DN4:EL26", "DN33:EL55")  # likewise
DENSE = "EN4"


class Sheet:
    """The stored values of the spreadsheet.

    Args:
      path: the file.

    Attributes:
      dense: the stored value of the dense unit.

    Raises:
      ValueError: if the file does not exist or is not the chapter's.
    """

    def __init__(self, path: Path):
        # Imported here, because every command imports every experiment.
        import openpyxl

        try:
            self._cells = _read_sheet(openpyxl, path)
            self.dense = float(self._cells[DENSE].value)
        except _WrongFileError as error:
            reason = str(error)
        except (TypeError, ValueError):
            reason = f"its cell {DENSE} is not a number"
        else:
            return
        raise ValueError(
            f"--spreadsheet must be the chapter's conv-example.xlsx with its sheet {SHEET!r}, got "
            f"{path}: {reason}. Give the path of that file."
        )

    def block(self, *ranges: str, step: int = 1) -> npt.NDArray[np.float64]:
        """Returns the values of ranges of equal size, shape (ranges, rows, columns).

        Args:
          *ranges: such as "A2:AB29"; empty cells are 0.
          step: 2 takes every other row and column.

        Raises:
          ValueError: if a cell contains text.
        """
        blocks = [
            [[cell.value or 0 for cell in row[::step]] for row in self._cells[cells][::step]]
            for cells in ranges
        ]
        try:
            return np.array(blocks, np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"--spreadsheet must be the chapter's conv-example.xlsx, got a file with text in "
                f"the cells {' or '.join(ranges)}. Give the path of that file."
            ) from None


class _WrongFileError(Exception):
    """A file is not the chapter's spreadsheet."""


def _read_sheet(openpyxl: Any, path: Path) -> Any:
    if not path.is_file():
        raise _WrongFileError("it is a folder" if path.is_dir() else "the file does not exist")
    try:
        with ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise _WrongFileError(
                f"it unpacks to {unpacked} bytes, and at most {MAX_UNPACKED_BYTES} are read"
            )
        with path.open("rb") as file:
            book = openpyxl.load_workbook(file, data_only=True)
    except _WrongFileError:
        raise
    except OSError as error:
        raise _WrongFileError(f"it cannot be read, {error.strerror or error}") from error
    except Exception as error:  # the readers of archives and of XML have many exception types
        raise _WrongFileError("it is damaged or is not a spreadsheet") from error
    if SHEET not in book.sheetnames:
        raise _WrongFileError(f"its sheets are {', '.join(book.sheetnames)}")
    return book[SHEET]

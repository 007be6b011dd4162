"""Building of a record step by step, block by block, without a long pause at any of them."""

from itertools import pairwise

from convjax.stats.merging import row_span
from convjax.stats.record import Record
from convjax.stats.record_builder import concatenate


class BlockBuilder:
    """A record that grows by blocks of one length, with a little work after each of them.

    `RecordBuilder` merges all rows at once where there are too many, which takes 0.2 s for 240
    layers. Here two neighbouring parts of equal length become one, at most one pair at a time.

    Args:
      rows: the bound on the rows of the record, at least 1. Parts of up to that number of rows are
        kept, and for each doubling of the steps a block more.
    """

    def __init__(self, rows: int):
        self.rows = rows
        self._parts: list[Record] = []

    def add(self, block: Record) -> None:
        """Adds the record of the next steps, one row for each; all blocks have as many."""
        self._parts.append(block)

    def merge_pair(self) -> bool:
        """Merges two parts into one with the rows of a block; returns whether there were two."""
        if len(self._parts) < 2:
            return False
        length = len(self._parts[0].first)
        span = row_span(sum(part.steps for part in self._parts), self.rows)
        before = 0
        for i, (part, after) in enumerate(pairwise(self._parts)):
            both = 2 * part.steps
            # Rows must be no longer than those of `record`, and begin where those do.
            alike = part.steps == after.steps and not before % both
            if alike and both // length <= span:
                self._parts[i : i + 2] = [concatenate([part, after]).merged(length)]
                return True
            before += part.steps
        return False

    def record(self, rest: Record | None = None) -> Record:
        """Returns the record of all steps so far, and of those of `rest`, in at most `rows` rows.

        Raises:
          ValueError: if there are none.
        """
        return concatenate([*self._parts, *([] if rest is None else [rest])]).merged(self.rows)

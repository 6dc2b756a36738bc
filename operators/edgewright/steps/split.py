"""Dividing rows between parts: by a seeded hash of each row, so that equal rows always land in the same part.

The share of each class is met by a threshold of its own: the first pass counts, per class, a histogram of the hashes;
the smallest hash above which enough rows lie is the threshold. Memory follows from the number of classes, not from the
number of rows, and neither the order of the rows nor the size of the batches changes the outcome.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from edgewright.errors import DataError
from edgewright.spec.steps.ingest import Split

#: 65,536 bins: a share is met to one part in 65,536, and a class costs half a megabyte.
_BITS = 16
_BINS = 1 << _BITS
_MAX_CLASSES = 200


class Splitter:
    """Counts in the first pass, assigns in the second.

    Args:
        split: Share, seed and stratification.
        label: The label's column, needed to stratify.
    """

    def __init__(self, split: Split, label: str | None) -> None:
        self._split = split
        self._label = label if split.stratify else None
        self.seed = split.seed
        self._histograms: dict[Any, Any] = {}
        self._limits: dict[Any, int] = {}

    def restart(self) -> None:
        """Forget what was counted."""
        self._histograms.clear()

    def count(self, batch: pa.RecordBatch, hashes: Any) -> None:
        """Take rows into account."""
        import numpy as np

        bins = (hashes >> np.uint64(64 - _BITS)).astype(np.int64)
        for value, chosen in self._classes(batch):
            found = np.bincount(bins[chosen], minlength=_BINS)
            self._histograms[value] = self._histograms.get(value, 0) + found
        if len(self._histograms) > _MAX_CLASSES:
            raise DataError(
                f"the label {self._label} has more than {_MAX_CLASSES} values", hint="split without stratify"
            )

    def _classes(self, batch: pa.RecordBatch) -> list[tuple[Any, Any]]:
        if self._label is None:
            return [(None, slice(None))]
        encoded = batch.column(self._label).dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        return [(value, codes == code) for code, value in enumerate(encoded.dictionary.to_pylist())]

    def decide(self) -> None:
        """Find each class's threshold; the counting is over."""
        import numpy as np

        for value, histogram in self._histograms.items():
            running = np.cumsum(histogram)
            wanted = round(self._split.test * int(running[-1]))
            self._limits[value] = int(np.searchsorted(running, wanted)) + 1 if wanted else 0
        self._histograms.clear()

    def is_test(self, batch: pa.RecordBatch, hashes: Any) -> Any:
        """Return a boolean array: which rows belong to the part ``test``."""
        import numpy as np

        bins = (hashes >> np.uint64(64 - _BITS)).astype(np.int64)
        found = np.zeros(batch.num_rows, dtype=bool)
        for value, chosen in self._classes(batch):
            found[chosen] = bins[chosen] < self._limits.get(value, 0)
        return found

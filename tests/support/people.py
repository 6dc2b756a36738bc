"""Some people whose rows tests store, find and erase."""

from __future__ import annotations

from collections.abc import Callable

from edgewright.steps.contract import StepResult
from edgewright.streams.pseudonyms import Pseudonyms

KEY = "0123456789abcdef0123456789abcdef"
PEOPLE = ["Agatha", "Bertram", "Cecilia", "Dorothea"]
TOKENS = {name: Pseudonyms(KEY).of(name) for name in PEOPLE}
INGEST = {
    "source": "people.csv", "label": "y", "personal": {"person": "token"}, "split": {"test": 0.25, "seed": 1},
}  # fmt: skip
MODEL = """
from sklearn.linear_model import LogisticRegression


def fit(data):
    return LogisticRegression().fit(data.X, data.y)
"""
RunStep = Callable[..., StepResult]

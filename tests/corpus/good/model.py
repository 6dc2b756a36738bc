"""User code of the corpus; never imported."""
from helpers import tidy

CONSTANT = 1
try:
    import fast as engine
except ImportError:
    engine = None


def fit(data, alpha=0.001):
    return tidy(data)


def transform(frame):
    return frame


class Scaler:
    pass

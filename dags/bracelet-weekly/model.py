"""The model of the bracelet: fill gaps, scale, and a small neural network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from edgewright.steps.training_data import TrainingData


def fit(data: TrainingData, alpha: float = 0.001, epochs: int = 12) -> Pipeline:
    """Train for a fixed number of passes over the rows.

    With 227 rows the network starts to learn them by heart after about 20 passes, so it stops before; longer
    training costs 2 to 4 points of accuracy in ten random splits.
    """
    prepare = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    rows = prepare.fit_transform(data.X)
    network = MLPClassifier((64, 32), alpha=alpha, batch_size=32, random_state=data.seed)
    for epoch in range(epochs):
        network.partial_fit(rows, data.y, classes=data.classes)
        data.log_metric("loss", network.loss_, step=epoch)
    return Pipeline([*prepare.steps, ("network", network)])

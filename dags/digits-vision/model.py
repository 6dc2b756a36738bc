"""A small convolutional network for images of digits, 8 by 8 pixels of 0 to 16."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pathlib import Path

    from edgewright.steps.training_data import TrainingData


class Digits(nn.Module):
    """Two convolutions and one dense layer; takes ``[rows, 64]``, gives logits ``[rows, 10]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.dense = nn.Linear(2 * width * 2 * 2, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits."""
        image = rows.view(-1, 1, 8, 8) / 16
        image = self.pool(torch.relu(self.first(image)))
        image = self.pool(torch.relu(self.second(image)))
        return self.dense(image.flatten(1))


def fit(data: TrainingData, width: int = 16, epochs: int = 30, rate: float = 0.005) -> Digits:
    """Train on batches of 64 with Adam; one thread, so that equal seeds give equal models.

    A try that was cut off goes on after its last whole epoch, with the very numbers that it would have had.
    """
    torch.manual_seed(data.seed)
    torch.set_num_threads(1)
    rows = torch.tensor(data.X.to_numpy("float32"))
    labels = torch.tensor(data.y.to_numpy("int64"))
    network = Digits(width)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for epoch in range(_restore(data.checkpoint, network, optimizer), epochs):
        total = 0.0
        for batch in torch.randperm(len(rows)).split(64):
            loss = nn.functional.cross_entropy(network(rows[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        data.log_metric("loss", total / len(rows), step=epoch)
        _save(data.checkpoint, epoch + 1, network, optimizer)
    return network


def _restore(folder: Path | None, network: Digits, optimizer: torch.optim.Optimizer) -> int:
    """Take up what an earlier try left, and return how many epochs it had done."""
    if folder is None or not (folder / "last.pt").exists():
        return 0
    state = torch.load(folder / "last.pt", weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return state["epochs"]


def _save(folder: Path | None, epochs: int, network: Digits, optimizer: torch.optim.Optimizer) -> None:
    """Leave everything that the next epoch depends on, in one step: a file that ends in .tmp is not kept."""
    if folder is not None:
        state = {"epochs": epochs, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "random": torch.get_rng_state()}, folder / "last.tmp")
        (folder / "last.tmp").replace(folder / "last.pt")

"""As much of PyTorch, in numpy, as the program in AMD's container asks for, where there is no PyTorch."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np

__version__ = "1.13.1-stand-in"


class Tensor:
    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array, dtype=np.float32)
        self.shape = self.array.shape

    def detach(self) -> Tensor:
        return self

    def numpy(self) -> Any:
        return self.array

    def __len__(self) -> int:
        return len(self.array)

    def __add__(self, other: Tensor) -> Tensor:
        return Tensor(self.array + other.array)


class Module:
    weights: tuple[str, ...] = ()

    def eval(self) -> Module:
        return self

    def __call__(self, *given: Tensor) -> Tensor:
        return self.forward(*given)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert set(state) == set(self.weights)
        for name, value in state.items():
            if getattr(self, name) is not None:
                assert value.shape == getattr(self, name).shape, name
            setattr(self, name, value)


class Linear(Module):
    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        self.weight, self.bias = Tensor(np.zeros((outputs, inputs))), Tensor(np.zeros(outputs))
        self.weights = ("weight", "bias") if bias else ("weight",)

    def forward(self, value: Tensor) -> Tensor:
        return Tensor(value.array @ self.weight.array.T + self.bias.array)


class Conv2d(Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Any,
        *,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
    ) -> None:
        assert (list(dilation), groups) == ([1, 1], 1), "not in this stand-in"
        self.weight, self.bias = Tensor(np.zeros((outputs, inputs, *kernel))), Tensor(np.zeros(outputs))
        self.weights = ("weight", "bias") if bias else ("weight",)
        self.stride, self.padding = stride, padding

    def forward(self, value: Tensor) -> Tensor:
        (down, right), (top, left) = self.stride, self.padding
        padded = np.pad(value.array, ((0, 0), (0, 0), (top, top), (left, left)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.weight.shape[2:], axis=(2, 3))
        found = np.einsum("bchwij,ocij->bohw", windows[:, :, ::down, ::right], self.weight.array)
        return Tensor(found + self.bias.array[:, None, None])


class ReLU(Module):
    def forward(self, value: Tensor) -> Tensor:
        return Tensor(np.maximum(value.array, 0))


class MaxPool2d(Module):
    def __init__(self, kernel: Any, stride: Any, padding: Any, *, ceil_mode: bool) -> None:
        assert (list(padding), ceil_mode) == ([0, 0], False), "not in this stand-in"
        self.kernel, self.stride = kernel, stride

    def forward(self, value: Tensor) -> Tensor:
        windows = np.lib.stride_tricks.sliding_window_view(value.array, self.kernel, axis=(2, 3))
        return Tensor(windows[:, :, :: self.stride[0], :: self.stride[1]].max((4, 5)))


def flatten(value: Tensor, start: int) -> Tensor:
    return Tensor(value.array.reshape(len(value), -1))


def reshape(value: Tensor, shape: list[int]) -> Tensor:
    return Tensor(value.array.reshape(shape))


def zeros(shape: list[int]) -> Tensor:
    return Tensor(np.zeros(shape))


def device(name: str) -> str:
    return name


from_numpy = Tensor
no_grad = contextlib.nullcontext
nn = SimpleNamespace(Module=Module, Linear=Linear, Conv2d=Conv2d, ReLU=ReLU, MaxPool2d=MaxPool2d)

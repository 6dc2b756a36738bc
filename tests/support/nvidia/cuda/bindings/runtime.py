"""As much of CUDA's runtime as an engine needs, in this machine's memory: answers are tuples with the error first."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


_rooms: dict[int, Any] = {}
_DONE = cudaError_t.cudaSuccess


def cudaGetDeviceProperties(device: int) -> tuple[cudaError_t, Any]:
    return _DONE, SimpleNamespace(name=b"Stand-in GPU\x00\x00", major=9, minor=0)


def cudaMalloc(size: int) -> tuple[cudaError_t, int]:
    room = ctypes.create_string_buffer(size)
    _rooms[ctypes.addressof(room)] = room
    return _DONE, ctypes.addressof(room)


def cudaFree(address: int) -> tuple[cudaError_t]:
    del _rooms[address]
    return (_DONE,)


def cudaStreamCreate() -> tuple[cudaError_t, int]:
    return _DONE, 7


def cudaStreamSynchronize(stream: int) -> tuple[cudaError_t]:
    return (_DONE if stream == 7 else cudaError_t.cudaErrorInvalidValue,)


def cudaMemcpyAsync(to: int, of: int, size: int, kind: cudaMemcpyKind, stream: int) -> tuple[cudaError_t]:
    device = to if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else of
    if device not in _rooms or len(_rooms[device]) < size or stream != 7:
        return (cudaError_t.cudaErrorInvalidValue,)
    ctypes.memmove(to, of, size)
    return (_DONE,)

"""``options:`` of ``quantize``: what only one target knows, typed; targets of others check their own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgewright.spec.steps.base import StepConfig


class NoOptions(StepConfig):
    """The target has none."""


class OnnxInt8Options(StepConfig):
    """How 8-bit integers are written into ONNX."""

    format: Annotated[
        Literal["qdq", "qoperator"],
        Field(description="qdq for runtimes that choose their own kernels; qoperator: QLinear operators."),
    ] = "qdq"
    activation: Annotated[
        Literal["int8", "uint8"],
        Field(description="Type of activations; uint8 is what x86 computes fastest with qoperator."),
    ] = "int8"
    symmetric: Annotated[bool, Field(description="Zero points 0, as TensorRT and other accelerators want them.")] = (
        False
    )


class OpenVinoOptions(StepConfig):
    """What OpenVINO writes."""

    precision: Literal["int8", "fp16", "fp32"] = "int8"
    preset: Annotated[
        Literal["performance", "mixed"], Field(description="mixed: activations with zero points, more exact.")
    ] = "performance"


class VitisAiOptions(StepConfig):
    """How AMD's hardware wants its integers."""

    style: Annotated[
        Literal["dpu", "xint8"],
        Field(description="dpu: signed, zero points 0; xint8: Quark's XINT8, with unsigned activations, for NPUs."),
    ] = "dpu"


class VitisAiXmodelOptions(StepConfig):
    """Which DPU it is for, and where its compiler is in AMD's image."""

    arch: Annotated[
        str, Field(pattern=r"\.json$", description="arch.json of your bitstream, a file in the pipeline's folder.")
    ]
    conda: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._-]+$", description="The image's conda environment with vai_q_pytorch.")
    ] = "vitis-ai-pytorch"


class HlsOptions(StepConfig):
    """What the FPGA is, and how the model is spread over it."""

    part: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_-]+$", description="The FPGA's full part number, as Vivado lists it.")
    ] = "xcvc1902-vsva2197-2MP-e-S"
    clock_ns: Annotated[float, Field(gt=0, description="Period of the clock in nanoseconds.")] = 5.0
    precision: Annotated[
        str,
        Field(
            pattern=r"^ap_u?fixed<[0-9, ]+>$",
            description="Fixed-point type of weights, activations and sums: bits, and bits before the point.",
            examples=["ap_fixed<16,6>"],
        ),
    ] = "ap_fixed<16,6>"
    reuse_factor: Annotated[int, Field(ge=1, description="How often a multiplier is used for one row.")] = 1
    strategy: Literal["latency", "resource"] = "latency"
    io: Annotated[Literal["parallel", "stream"], Field(description="stream for convolutions.")] = "parallel"


class TensorRtOptions(StepConfig):
    """What the engine must take."""

    batch: Annotated[int, Field(ge=1, le=4096, description="Most rows in one call.")] = 256


class TvmOptions(StepConfig):
    """What the ARM processor has."""

    features: Annotated[
        list[Annotated[str, Field(pattern=r"^[+-][a-z0-9.-]+$")]],
        Field(description="LLVM's names of processor features, with + or -.", examples=[["+neon", "+dotprod"]]),
    ] = ["+neon"]


class LiteRtOptions(StepConfig):
    """Which file is run, and what it gives."""

    file: Annotated[str, Field(pattern=r"\.tflite$", description="A .tflite file in the pipeline's folder.")]
    output: Annotated[
        Literal["probabilities", "logits"], Field(description="logits get a softmax on the processor.")
    ] = "probabilities"


#: Targets of ours that only their maker's image compiles.
FOREIGN = ("vitis-ai-xmodel",)
#: Options that name a file of the pipeline's folder.
FILES = ("file", "arch")
#: Options of our own targets by name; a target that is not listed here gets what the pipeline says, unchecked.
OPTIONS: dict[str, type[StepConfig]] = {
    "onnx": NoOptions,
    "onnx-fp16": NoOptions,
    "onnx-int8": OnnxInt8Options,
    "openvino": OpenVinoOptions,
    "vitis-ai": VitisAiOptions,
    "vitis-ai-xmodel": VitisAiXmodelOptions,
    "hls": HlsOptions,
    "tensorrt": TensorRtOptions,
    "tvm-aarch64": TvmOptions,
    "litert": LiteRtOptions,
}

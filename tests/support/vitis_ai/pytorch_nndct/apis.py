"""``torch_quantizer`` as vai_q_pytorch has it: the same calls and files; VAI_FAKE says what goes wrong."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import wire

WRONG = os.environ.get("VAI_FAKE", "")


class torch_quantizer:
    def __init__(
        self, quant_mode: str, module: Any, input_args: Any = None, *, output_dir: str = "quantize_result",
        device: Any = None, **_: Any,
    ) -> None:  # fmt: skip
        assert quant_mode in ("calib", "test")
        assert str(device) == "cpu"
        assert type(module).__name__ == "Network"
        self.mode, self.module, self.folder, self.batch = quant_mode, module, Path(output_dir), len(input_args[0])
        self.folder.mkdir(exist_ok=True)
        self.rows = 0
        print("[VAIQ_NOTE]: Quant config file is empty, use default quant configuration")
        if WRONG == "quantizer":
            print(np.asarray([[0.123456, 0.654321]]))
            raise RuntimeError("[VAIQ_ERROR][QUANTIZER_TORCH_UNSUPPORTED_OPS]: unsupported operators: aten::frobnicate")
        if quant_mode == "test" and not (self.folder / "quant_info.json").is_file():
            raise RuntimeError("[VAIQ_ERROR]: no quantization result, calibrate first")

    @property
    def quant_model(self) -> Any:
        def answer(given: Any) -> Any:
            assert len(given) == self.batch
            self.rows += len(given)
            with torch.no_grad():
                found = self.module(given).detach().numpy()
            # eight bits with a power-of-two step, as the real one simulates
            step = 2.0 ** np.ceil(np.log2(max(1e-9, float(np.abs(found).max())) / 127))
            return torch.from_numpy(np.round(found / step).astype(np.float32) * np.float32(step))

        return answer

    def export_quant_config(self) -> None:
        assert self.mode == "calib"
        assert self.rows
        (self.folder / "Network.py").write_text("# converted\n")
        (self.folder / "quant_info.json").write_text(json.dumps({"rows": self.rows}))

    def export_xmodel(
        self, output_dir: str = "quantize_result", deploy_check: bool = False, dynamic_batch: bool = False
    ) -> None:
        assert self.mode == "test"
        assert self.batch == 1
        assert self.rows
        if WRONG != "nothing exported":
            (Path(output_dir) / "Network_int.xmodel").write_bytes(wire.quantized(4 if WRONG == "batch" else 1))

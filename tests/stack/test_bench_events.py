"""The benchmark of events runs, and prints its ratios."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from stack_support import ROOT
from support.servers import demand

from edgewright.cli.dev.kafka import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_rate_and_memory() -> None:
    demand(KafkaServer)
    command = [sys.executable, str(ROOT / "bench" / "events.py"), "rate", "memory", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"batches of \d+: [\d,]+ messages/s .* [\d.]+ times", done.stdout)) == 2
    assert len(re.findall(r"times the backlog: [\d.]+ times the memory", done.stdout)) == 2

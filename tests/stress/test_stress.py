"""`make stress`: hostile input and faults in large numbers. `MINUTES` bounds the part with the demo page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.stress
@pytest.mark.parametrize("part", ["audio", "tables", "kills", "faults", "space"])
def test_nothing_is_lost_and_nothing_breaks(part):
    command = [sys.executable, "-m", "stress", "--only", part, "--minutes", os.environ.get("MINUTES", "30")]
    assert subprocess.run(command, cwd=Path(__file__).parents[1]).returncode == 0

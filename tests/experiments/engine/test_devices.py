"""That freed memory stays, and goes when it is asked to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from experiments.framework.memory import _of_c_library

PROGRAM = """
import json, psutil, torch
from experiments.framework.memory import give_back_memory, keep_freed_memory

megabytes = lambda: psutil.Process().memory_info().rss / 1e6
def use():
    block = torch.ones(100_000_000)
before = megabytes()
use()
given_back = megabytes()
keep_freed_memory()
use()
kept = megabytes()
give_back_memory()
print(json.dumps([given_back - before, kept - before, megabytes() - before]))
"""


@pytest.mark.skipif(_of_c_library("malloc_trim") is None, reason="not glibc")
def test_freed_memory_is_kept_when_told_and_given_back_when_told():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    at_first, kept, given_back = json.loads(done.stdout)
    assert at_first < 100
    assert kept > 350  # of 400
    assert given_back < 100

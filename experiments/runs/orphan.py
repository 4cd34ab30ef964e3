"""What the server that ranks are forked from imports first, to end with the process that started it in every case.

By itself it would notice only when all its imports are done, and hold the output of a command that is over.
"""

from __future__ import annotations

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

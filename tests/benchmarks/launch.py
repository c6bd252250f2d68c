"""Runs one command and prints what it cost: `python -I -S launch.py COMMAND...`.

A process of its own, and a small one: the kernel counts the memory of the process that forks as the child's own peak.
"""

import os
import sys
import time

started = time.monotonic()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as report:
    print(
        os.waitstatus_to_exitcode(status),
        time.monotonic() - started,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        file=report,
    )

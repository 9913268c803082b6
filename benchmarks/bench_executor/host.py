"""
A host: one process with one pool. `python -m bench_executor.host ORDER`, from benchmarks/.

Children of multiprocessing import this module again, as they do a user's: so nothing stands here.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from bench_executor.session import main

    main(sys.argv[1])

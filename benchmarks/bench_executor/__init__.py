"""What the benchmark of the executor runs: the host with its pool, and the calls."""

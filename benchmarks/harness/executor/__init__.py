"""The benchmark of the executor: starts hosts, reads what they found, writes tables."""

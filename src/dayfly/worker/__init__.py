"""The daemon: claims jobs, hands them to the executor, records how they ended."""

"""The harness: it starts the contenders, takes the time and writes the tables. It imports no Django."""

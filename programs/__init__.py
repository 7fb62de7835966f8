"""The tasks: one file each, found by name. A file here imports dspy and optimize.task only."""

"""The example tasks: one file each, found by name. A file here imports dspy and `optimize` only."""

"""The parts of `optimize synthesize`."""

"""The parts of `optimize apply`: a row answered, a row written, a batch of them."""

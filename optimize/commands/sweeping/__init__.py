"""A sweep: its file, its cells, their common budget, and the machines they run on."""

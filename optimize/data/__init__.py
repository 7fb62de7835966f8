"""Labelled rows, how they are split, and whether they are sound. Knows no LM."""

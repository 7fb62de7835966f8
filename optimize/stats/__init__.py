"""Statistics: numbers in, numbers out. Knows no LM."""

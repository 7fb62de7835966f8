"""How good a program is, and why it is wrong where it is."""

"""What is prompted, saved and loaded. Knows no optimizer."""

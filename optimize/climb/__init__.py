"""What to try, and when to stop."""

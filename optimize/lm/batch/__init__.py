"""A provider's batch API: many requests at once, answered within a day for half the price."""

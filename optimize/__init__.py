"""The engine: climbs a ladder of prompt levers, decides, hands plateaued tasks to fine-tuning."""

__version__ = "0.1.0"

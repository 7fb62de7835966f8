"""What fine-tuning hangs on, a function a criterion: its value on record, the threshold, and what
would meet it.
"""

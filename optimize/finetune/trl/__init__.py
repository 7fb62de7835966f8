"""TRL on this machine's GPUs, or its processor: rows and a transformers base in, a LoRA out."""

"""LoRA on this machine: labelled chat rows and base weights in, an adapter file out."""

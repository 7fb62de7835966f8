"""The fallback: gate → rows → hand-off or training → after-checks. Reached only when prompting has plateaued."""

BACKENDS = {"lora": "optimize.finetune.lora"}  # imported on use; each has train(rows, val, base, out, config, progress) and curve(adapter)

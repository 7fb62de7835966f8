"""The fallback: gate → rows → hand-off or training → after-checks. Reached only when prompting has plateaued."""

# Imported on use. Each has check(config), train(rows, val, base, out, config, progress) → what the tuned LM is known by, curve(that).
BACKENDS = {"lora": "optimize.finetune.lora", "openai": "optimize.finetune.openai_job"}

"""When an LM is switched off, in a sentence. Knows no LM."""

from __future__ import annotations

from datetime import date


def retirement_sentence(lm: str, day: date, today: date, task: str = "TASK") -> str:
    """By the list of models that comes with DSPy, which may be behind the provider's own."""
    when = f"was to be switched off on {day}" if day <= today else f"is switched off on {day}"
    return (
        f"{lm} {when}, by the list of models that comes with DSPy. `optimize recheck "
        f"{task} --lm OTHER` says whether another one holds the target."
    )

"""What a run may take, and which levers its caps pay for, in words."""

from __future__ import annotations

from optimize.climb.plan import Plan
from optimize.climb.preflight import CostRecord
from optimize.config import flag


def cost_sentences(c: CostRecord) -> list[str]:
    """What a run may take, and which levers it pays for."""
    usd = "unknown price" if c.usd is None else f"${c.usd:.2f}"
    earlier = f"; {' and '.join(c.others)} may end it earlier" if c.others else ""
    out = [
        f"A run takes at most {c.calls} LM calls, {c.tokens_in / 1e6:.1f} M tokens in, "
        f"{c.tokens_out / 1e6:.1f} M out ({usd}){earlier}."
    ]
    if c.thinking:
        out[0] += (
            f" That is with {c.thinking:,} tokens of thoughts and answer in each, which few take; "
            "--budget-usd is a cap."
        )
    return out + plan_sentences(c.plan)


def plan_sentences(plan: Plan) -> list[str]:
    """Which levers have calls, and what would give more of them some; a warning alone where none
    has.
    """
    fewer, allowed = plan.fewer_rows, f"{flag(plan.cap, plan.given)}{_some_calls(plan)}"
    advice = (
        [
            f"Asking fewer rows leaves calls for {', '.join(fewer.rungs)}: --val-rows {fewer.val} "
            f"--test-rows {fewer.test}."
        ]
        if fewer
        else []
    )
    full = plan.full or f"--max-calls {plan.enough}"
    if plan.hopeless:
        what = (
            "a run would score the program as it is, and read the test rows for that."
            if plan.allowed >= plan.least
            else f"the val and test rows alone take {plan.least} calls."
        )
        return [f"No lever can run under {allowed}: {what} A full climb takes {full}.", *advice]
    with_calls = [rung for rung in plan.rungs if rung.calls]
    sure, perhaps, small = (
        ", ".join(f"{r.rung} {r.calls}" for r in with_calls if (r.if_left, r.small) == kind)
        for kind in ((False, False), (True, False), (False, True))
    )
    out = [f"Its levers in order, with the calls each may take: {sure or 'none for sure'}."]
    out += [f"If those before leave some of their calls: {perhaps}."] if perhaps else []
    out += [f"What is left in the end, less than is useful to it: {small}."] if small else []
    never = [r.rung for r in plan.rungs if not r.calls]
    if perhaps or never or small:
        less = f"Too few calls for {', '.join(never)}: a" if never else "A"
        out.append(f"{less} full climb takes {full}; given is {allowed}.")
    return out + advice


def _some_calls(plan: Plan) -> str:
    return "" if plan.cap == "max_calls" else f", which is some {plan.allowed} calls"

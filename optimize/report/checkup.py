"""What works on this machine and in this project, and what does not. Knows no screen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from optimize.stats.records import Record

Status = Literal["ok", "warn", "fail"]


class Check(Record):
    name: str
    status: Status
    found: str
    remedy: str = Field("", description="what to do; empty where all is well")


class Checkup(Record):
    checks: list[Check]

    @property
    def failed(self) -> bool:
        return any(check.status == "fail" for check in self.checks)

"""The command line: parse, call, print, exit code. Nothing heavy is imported before one runs."""

from optimize.cli import start  # noqa: F401  (each module adds its commands, and help lists them in this order)

# isort: split
from optimize.cli import run  # noqa: F401

# isort: split
from optimize.cli import sweep  # noqa: F401

# isort: split
from optimize.cli import finetune  # noqa: F401

# isort: split
from optimize.cli import runs  # noqa: F401

# isort: split
from optimize.cli import use  # noqa: F401

# isort: split
from optimize.cli import apply  # noqa: F401

# isort: split
from optimize.cli import holding  # noqa: F401

# isort: split
from optimize.cli import label  # noqa: F401

# isort: split
from optimize.cli import deploy  # noqa: F401

# isort: split
from optimize.cli import look  # noqa: F401

# isort: split
from optimize.cli import lm  # noqa: F401
from optimize.cli.app import app, unwrapped

unwrapped(app)

__all__ = ["app"]

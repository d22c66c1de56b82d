"""Settings of the whole test run."""

import os

import structlog
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, not of the code.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In CI the same examples each time: a submission is judged by what it changed.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# Tracebacks as the product's own log has them: structlog's default, where rich is installed, takes a second for one, and
# meanwhile the loop stands still and limits pass.
_RENDERER = structlog.get_config()["processors"][-1]
_RENDERER.exception_formatter = structlog.dev.plain_traceback

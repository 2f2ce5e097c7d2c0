"""What holds for every test: property tests find wrong answers, never slow machines; the hundreds
of programs that tests start are compiled once, whatever the environment says."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

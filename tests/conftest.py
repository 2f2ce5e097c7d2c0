"""What holds for every test: property tests find wrong answers, never slow machines; the hundreds
of programs that tests start are compiled once, whatever the environment says; and what tests write
is their account's alone to change, as the proxy demands of what it goes by."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.umask(0o022)

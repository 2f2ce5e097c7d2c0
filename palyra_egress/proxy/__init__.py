"""Enforcement on mitmproxy: nothing leaves that the judge did not allow."""

"""The policy language: read (`load`, `live`), compiled (`compile`), judged (`decide`)."""

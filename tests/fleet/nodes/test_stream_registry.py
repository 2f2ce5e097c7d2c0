"""The registry of nodes' streams, by itself."""

from palyra_fleet.nodes.streams import StreamRegistry


def test_every_stream_that_comes_or_goes_is_a_change() -> None:
    registry = StreamRegistry()
    seen = {registry.changes}
    first = registry.open("device-1", "print", "192.0.2.1")
    seen.add(registry.changes)
    second = registry.open("device-1", "print", "192.0.2.1")
    seen.add(registry.changes)
    for stream in (first, second):
        registry.close(stream)
        seen.add(registry.changes)
    assert len(seen) == 5

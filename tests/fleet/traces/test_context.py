"""The header between our programs: what is a context, and what is none."""

import pytest

from palyra_fleet.traces.context import TraceContext, read_traceparent, travelling, travels

TRACE, SPAN = "a" * 31 + "1", "b" * 15 + "2"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",  # version 00 has four parts
        f"01-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE[:-1]}١-{SPAN}-01",  # a digit, and no digit of ours
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_not_well_formed_is_no_context(text: str | None) -> None:
    assert read_traceparent(text) is None


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("03", True)])
def test_a_context_is_read_and_written(flags: str, is_sampled: bool) -> None:
    context = read_traceparent(f"00-{TRACE}-{SPAN}-{flags}")
    assert context == TraceContext(TRACE, SPAN, is_sampled)
    assert context.traceparent == f"00-{TRACE}-{SPAN}-0{int(is_sampled)}"


def test_a_context_travels_inside_its_block_and_nowhere_else() -> None:
    assert travels() == {}
    with travelling(TraceContext(TRACE, SPAN)):
        assert travels() == {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        with travelling(None):
            assert travels() == {}
    assert travels() == {}

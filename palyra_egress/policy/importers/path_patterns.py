"""Other tools' path globs in our spelling, never wider than they were.

`/v1/*` means different things: with the path before it (`prefix_with_base`), or only what lies
below. Ours are whole segments: `*` one, `**` at the end any depth and the path before it.
Raises `PathRefused` where a glob is not made of whole segments.
"""

from palyra_egress.policy.paths import PathRefused, parse_path_pattern


def _checked(text: str) -> str:
    parse_path_pattern(text)
    return text


def prefix_with_base(text: str) -> tuple[str, ...]:
    """`/v1/*` is `/v1` and everything below it."""
    if text.endswith("/*"):
        return (_checked(f"{text[:-1]}**"),)
    if "?" in text or "[" in text or "\\" in text:
        raise PathRefused("a glob with ? or [ ] inside a segment")
    return (_checked(text),)


def below_only(text: str) -> tuple[str, ...]:
    """`/v1/*` is `/v1/` and everything below it, but not `/v1`."""
    if text == "/*":
        return (_checked("/**"),)
    if text.endswith("/*"):
        base = text[:-1]
        return (_checked(base), _checked(f"{base}*/**"))
    return (_checked(text),)

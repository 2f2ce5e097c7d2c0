"""A text as a QR code, drawn here so that a pairing code goes nowhere else.

The code comes in the body and not in an address, which histories and logs keep.
"""

import io

import segno
from aiohttp import web
from pydantic import Field

from palyra_fleet.api import answers
from palyra_fleet.console.gate import ConsoleCall
from palyra_fleet.wire.models import WireModel


class QrText(WireModel):
    """What to draw."""

    text: str = Field(repr=False, min_length=1, max_length=256)


@answers.gives(answers.Gives(None, content_type="image/svg+xml", form={"type": "string"}))
async def draw(call: ConsoleCall) -> web.StreamResponse:
    """An SVG, dark on light whatever the page's colours, as readers expect."""
    drawn = io.BytesIO()
    code = segno.make_qr(call.read(QrText).text, error="m")
    code.save(drawn, kind="svg", scale=6, border=4, dark="#000", light="#fff", xmldecl=False)
    return web.Response(body=drawn.getvalue(), content_type="image/svg+xml")

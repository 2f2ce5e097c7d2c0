"""Handlers of the routes about snapshots: one is saved beside the store, and what was is listed.

The file itself does not leave the fleet's machine this way (decision 0080).
"""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.wire.snapshot_models import SaveSnapshot, SnapshotList, SnapshotView


@answers.gives(answers.Gives(SnapshotView, 201))
async def save(call: Call) -> web.StreamResponse:
    reason = call.read(SaveSnapshot).reason
    return answers.model(await call.service.save_snapshot(call.identity.id, reason), status=201)


@answers.gives(SnapshotList)
async def list_snapshots(call: Call) -> web.StreamResponse:
    return answers.model(SnapshotList(items=await call.service.snapshots()))

"""One event stream: read, judge, answer; and say what is to be said when nobody asked.

Every message passes the gate before anything of it counts, and everything sent unasked is checked
against the gate as well. The next message is read only after the answer to the last one was taken
by the transport, so a node that does not read is not read either. Two tasks share one stream and
take turns writing: the one that answers, and the one that pushes and ends it.
"""

import asyncio
import logging
from typing import Any

from ulid import ULID

from palyra_fleet.identity.messages import PairedDevice, VerifiedLeaf
from palyra_fleet.identity.refusals import NodeRefusal, NodeRefused
from palyra_fleet.nodes import rpc_messages as messages
from palyra_fleet.nodes.capability_refusals import CapabilityRefusal, CapabilityRefused
from palyra_fleet.nodes.gate import Gate
from palyra_fleet.nodes.service import NodeService
from palyra_fleet.nodes.streams import EventStream, NoticeKind
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import node_pb2

_log = logging.getLogger(__name__)

type _Context = grpc.aio.ServicerContext[Any, Any]


class _ClientDone(Exception):
    """The client has said all it will; the stream ends in order."""


async def serve_stream(
    context: _Context, service: NodeService, gate: Gate, leaf: VerifiedLeaf, stream: EventStream
) -> None:
    """Until the client is done, or a refusal ends it (NodeRefused or CapabilityRefused)."""
    conversation = _Conversation(context, service, gate, leaf, stream)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(conversation.answer_events())
            tasks.create_task(conversation.push())
    except* _ClientDone:
        pass
    except* (NodeRefused, CapabilityRefused) as refused:
        raise _first(refused) from None
    except* grpc.aio.InternalError as gone:  # what was being written to a client that went away
        _log.debug("a stream of device %s broke off: %s", stream.device_id, gone.exceptions)


class _Conversation:
    """What the two tasks of a stream share."""

    def __init__(
        self,
        context: _Context,
        service: NodeService,
        gate: Gate,
        leaf: VerifiedLeaf,
        stream: EventStream,
    ) -> None:
        self._context = context
        self._service = service
        self._gate = gate
        self._leaf = leaf
        self._stream = stream
        self._writing = asyncio.Lock()

    async def answer_events(self) -> None:
        while True:
            request = await self._context.read()
            if request is grpc.aio.EOF:
                raise _ClientDone
            answer = await self._answer(request)
            async with self._writing:
                await self._context.write(answer)

    async def push(self) -> None:
        while True:
            await self._stream.woken()
            if self._stream.ended_by is not None:
                raise _raised(self._stream.ended_by)
            if not self._stream.accepts_push:
                continue  # what waits rides on the next answer
            while unasked := self._unasked():
                async with self._writing:
                    await self._context.write(unasked)

    async def _answer(self, request: node_pb2.NodeEventRequest) -> node_pb2.NodeEventResponse:
        caller = await self._gate.admit(self._leaf, request.device_id.ulid)
        if request.HasField("replay"):
            replay = messages.replay_of(request.replay)
            refused = self._service.identity.replay(caller.device_id, replay)
            if refused is not None:
                raise NodeRefused(refused)
        refusal = self._service.event(caller.device_id, request.event_name, request.payload_json)
        self._stream.accepts_push = self._stream.accepts_push or request.accepts_push
        self._tell_to_rotate(caller)
        dispatch = self._service.next_dispatch(caller.device_id)
        return node_pb2.NodeEventResponse(
            v=messages.version_of(request.v),
            event_id=messages.canonical(str(ULID())),
            accepted=refusal is None,
            reason="accepted" if refusal is None else refusal.text,
            dispatch=None if dispatch is None else messages.dispatch_message(dispatch),
            notices=messages.notice_messages(self._stream.take_notices()),
        )

    def _tell_to_rotate(self, caller: PairedDevice) -> None:
        """Once a stream, from when a rotation is due."""
        due = self._service.clock() >= caller.rotate_from_unix_ms
        if due and not self._stream.rotation_told:
            self._stream.rotation_told = True
            self._stream.put(
                self._service.notice(
                    NoticeKind.ROTATE_CERTIFICATE, caller.fingerprint, "a rotation is due"
                )
            )

    def _unasked(self) -> node_pb2.NodeEventResponse | None:
        """What the node should hear now, though it said nothing. Raises NodeRefused."""
        self._gate.check(self._leaf)
        notices = self._stream.take_notices()
        dispatch = self._service.next_dispatch(self._stream.device_id)
        if not notices and dispatch is None:
            return None
        return node_pb2.NodeEventResponse(
            v=1,
            accepted=True,
            reason="push",
            dispatch=None if dispatch is None else messages.dispatch_message(dispatch),
            notices=messages.notice_messages(notices),
        )


def _raised(why: NodeRefusal | CapabilityRefusal) -> NodeRefused | CapabilityRefused:
    return NodeRefused(why) if isinstance(why, NodeRefusal) else CapabilityRefused(why)


def _first(group: ExceptionGroup[NodeRefused | CapabilityRefused]) -> Exception:
    """The refusal inside, however deep: of two at once either tells the truth."""
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found

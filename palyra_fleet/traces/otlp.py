"""Spans by OpenTelemetry's SDK, sent in batches as OTLP over HTTP from a thread of their own.

The one module that imports the library. What is bounded here: spans that wait (`MAX_WAITING`, then
new ones are dropped and counted), a batch, how long a try waits for the next byte, and what is read
of an answer. A redirect is a refusal; proxies, cookies and `.netrc` of the environment are not
looked at. What goes wrong is told once until it works again, as a word of ours: the library's own
lines, which repeat what a receiver said, are not written. Source: OTLP specification 1.9,
"OTLP/HTTP".
"""

import logging
import random
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from typing import Any, Final, Self

import certifi
import requests
import urllib3
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from requests.adapters import HTTPAdapter

from palyra_fleet.exports.trust import client_context
from palyra_fleet.signals.export_counts import ExportProblem
from palyra_fleet.traces.context import TraceContext
from palyra_fleet.traces.settings import TraceSettings, TraceSettingsRefused, read_headers
from palyra_fleet.traces.spans import (
    Attribute,
    Attributes,
    Kind,
    SpanCounts,
    Value,
)
from palyra_fleet.trusted_files import UntrustedFile

MAX_WAITING: Final = 4_096
MAX_BATCH: Final = 256
EVERY_MS: Final = 1_000
TRY_WITHIN_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 64 * 1024
_REDIRECTS: Final = 300
_ERRORS: Final = 400
_PACKAGE: Final = "palyra-egress-fleet"
_KINDS: Final = {
    Kind.INTERNAL: SpanKind.INTERNAL,
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
}
_LIMITS: Final = SpanLimits(
    max_span_attributes=32, max_events=8, max_links=1, max_attribute_length=1_024
)
_CHATTERERS: Final = ("opentelemetry", "urllib3")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class OtlpSpan:
    """A span of the SDK's."""

    _span: Span

    @property
    def context(self) -> TraceContext:
        its = self._span.get_span_context()
        return TraceContext(f"{its.trace_id:032x}", f"{its.span_id:016x}", its.trace_flags.sampled)

    def end(
        self, ended_unix_ns: int, attributes: Attributes | None = None, error: str | None = None
    ) -> None:
        if attributes is not None:
            self._span.set_attributes(_present(attributes))
        if error is not None:
            self._span.set_attribute(Attribute.ERROR.value, error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(ended_unix_ns)


@dataclass(slots=True)
class OtlpSpans:
    """One program's spans."""

    counts: SpanCounts
    _ratio: float
    _provider: TracerProvider
    _tracer: Tracer

    @classmethod
    def open(cls, settings: TraceSettings, service: str) -> Self:
        """Raises TraceSettingsRefused."""
        for name in _CHATTERERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        exporter = _Watched(*_exporter(settings))
        released = version(_PACKAGE)
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource({"service.name": service, "service.version": released}),
            shutdown_on_exit=False,
            span_limits=_LIMITS,
        )
        batches = BatchSpanProcessor(
            exporter,
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=EVERY_MS,
            max_export_batch_size=MAX_BATCH,
        )
        provider.add_span_processor(_Bounded(batches, exporter.counts))
        return cls(exporter.counts, settings.ratio, provider, provider.get_tracer(_PACKAGE))

    def is_sampled(self) -> bool:
        return self._ratio > 0 and random.random() < self._ratio  # noqa: S311 a share, no secret

    def begin(
        self,
        name: str,
        kind: Kind,
        began_unix_ns: int,
        attributes: Attributes,
        *,
        parent: TraceContext | None = None,
        claimed: TraceContext | None = None,
    ) -> OtlpSpan:
        links = [] if claimed is None else [Link(_remote(claimed), {Attribute.CLAIMED: "worker"})]
        span = self._tracer.start_span(
            name,
            context=_within(parent),
            kind=_KINDS[kind],
            attributes=_present(attributes),
            links=links,
            start_time=began_unix_ns,
        )
        return OtlpSpan(span)

    def close(self, within_s: float) -> None:
        """The library waits longer for its receiver than we do: what is not sent by then is lost,
        and its thread ends with the process."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True, name="last spans")
        closing.start()
        closing.join(within_s)


@dataclass(slots=True)
class _Bounded(SpanProcessor):
    """Lets no more spans wait than the batches have room for; the library would throw away older
    ones, uncounted."""

    batches: BatchSpanProcessor
    counts: SpanCounts

    def on_end(self, span: ReadableSpan) -> None:
        if self.counts.waiting >= MAX_WAITING:
            self.counts.dropped += 1
            return
        self.counts.accepted += 1
        self.batches.on_end(span)

    def shutdown(self) -> None:
        self.batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.batches.force_flush(timeout_millis)


class _Watched(SpanExporter):
    """Counts what the exporter sent, and says when it stops and goes on."""

    def __init__(self, exporter: OTLPSpanExporter, adapter: "_Adapter") -> None:
        self._exporter = exporter
        self._adapter = adapter
        self._is_failing = False
        self.counts = SpanCounts()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails:
            self.counts.failed += len(spans)
        else:
            self.counts.sent += len(spans)
        if fails and not self._is_failing:
            problem = self._adapter.problem or ExportProblem.FAILED
            _log.warning("traces are not taken by their receiver: %s", problem.value)
        elif self._is_failing and not fails:
            _log.warning("traces are taken by their receiver again")
        self._is_failing = fails
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Adapter(HTTPAdapter):
    """How the exporter's requests travel: our trust, nothing followed, little read."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self.problem: ExportProblem | None = None
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named, ssl_context=self._tls)

    def send(self, *arguments: Any, **named: Any) -> requests.Response:
        try:
            response = super().send(*arguments, **named)
            response.raw.read(MAX_ANSWER_BYTES)
        except requests.exceptions.SSLError:
            self.problem = ExportProblem.UNTRUSTED
            raise requests.exceptions.InvalidURL("its certificate does not hold") from None
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
            self.problem = ExportProblem.LATE
            raise
        except (OSError, urllib3.exceptions.HTTPError):
            self.problem = ExportProblem.UNREACHABLE
            raise
        response.close()
        self.problem = None if response.status_code < _REDIRECTS else ExportProblem.REFUSED
        if _REDIRECTS <= response.status_code < _ERRORS:  # the library takes it for a success
            raise requests.exceptions.InvalidURL("a redirect is not followed")
        return response


def check(settings: TraceSettings) -> None:
    """Whether an exporter can be made of these settings; nothing is started or asked. Raises
    TraceSettingsRefused."""
    exporter, _ = _exporter(settings)
    exporter.shutdown()  # type: ignore[no-untyped-call]


def _exporter(settings: TraceSettings) -> tuple[OTLPSpanExporter, _Adapter]:
    headers = {} if settings.headers_file is None else read_headers(settings.headers_file)
    trusted = str(settings.ca_file or certifi.where())
    try:
        adapter = _Adapter(client_context(settings.ca_file))
    except UntrustedFile as error:
        raise TraceSettingsRefused(f"otlp_ca: {error}") from None
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise TraceSettingsRefused(
            f"otlp_ca: {settings.ca_file}: expected certificates (PEM) that can be used"
        ) from None
    session = requests.Session()
    session.trust_env, session.stream = False, True
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    exporter = OTLPSpanExporter(
        endpoint=settings.endpoint,
        certificate_file=trusted,
        headers=headers,
        timeout=TRY_WITHIN_S,
        compression=Compression.Gzip,
        session=session,
    )
    return exporter, adapter


def _within(parent: TraceContext | None) -> Context:
    """Where a span begins: a span that is current somewhere else is none of ours."""
    its = INVALID_SPAN_CONTEXT if parent is None else _remote(parent)
    return set_span_in_context(NonRecordingSpan(its), Context())


def _remote(context: TraceContext) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(context.is_sampled)),
    )


def _present(attributes: Attributes) -> dict[str, Value]:
    return {name.value: value for name, value in attributes.items() if value is not None}

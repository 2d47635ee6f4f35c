"""Sends calls and streams bodies: the one place that imports the HTTP library.

Turns every foreign error into ours, outside the `except` block, since the credential is in the
URL. The library makes connections, with TLS and through proxies, and never sees that URL: what is
said on them is ours. Knows no documents: bytes in, bytes out.
"""

from __future__ import annotations

import codecs
import gzip
import logging
import os
import random
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from ssl import SSLCertVerificationError, SSLContext, SSLError
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from requests.utils import (
    DEFAULT_CA_BUNDLE_PATH,
    get_auth_from_url,
    get_environ_proxies,
    select_proxy,
)
from urllib3 import exceptions as foreign
from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.util import Url, create_urllib3_context, make_headers, parse_url

from connectome_dagster.api.connections import ClosedError, Connection, Connections, NoPlaceError
from connectome_dagster.api.credentials import Credentials, redacted_start
from connectome_dagster.api.endpoints import Call
from connectome_dagster.api.pace import Gate
from connectome_dagster.api.retry import RetryPolicy, parse_retry_after
from connectome_dagster.api.verdict import Trouble, error_of, may_repeat, of_status, of_success
from connectome_dagster.api.wire import AnswerHead, NotHTTPError, framing_of, take_head
from connectome_dagster.errors import ConfigurationError, ReadInterrupted

_log = logging.getLogger(__name__)

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

# A body is handed out in pieces of at most this size: large enough that the cost per piece does
# not count, small enough that a piece per reading thread is nothing.
CHUNK_BYTES = 256 * 1024

# So much of an answer is asked for first: all of a small one. Room for a piece of a large one
# takes longer to be had than a small answer to be read.
FIRST_BYTES = 16 * 1024

# What `send` holds in memory. Its answers are counts, acknowledgements and single documents;
# anything larger is to be streamed.
MAX_ANSWER_BYTES = 64 * 1024 * 1024

# Of a refusal this much is read, for its reason, and this much of it gets into a message.
MAX_REFUSAL_BYTES = 4096
EXCERPT_CHARACTERS = 500

# A body is compressed from this size on: a smaller one fits into a packet as it is.
COMPRESS_FROM_BYTES = 1024

# Of 1 to 9. Documents as JSON shrink to a quarter; 6 gains an eighth and takes twice as long.
COMPRESSION_LEVEL = 1

# A timeout beyond a day is a mistake of units, and some platforms cannot count it.
MAX_TIMEOUT_SECONDS = 86_400


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        status: the HTTP status, 200 to 299.
        body: the body, decompressed.
        requests: HTTP requests that were sent, repeated ones included.
        retries: attempts after the first.
        bytes_sent: bytes of request bodies, as sent.
        bytes_received: bytes of the body, decompressed.
    """

    status: int
    body: bytes = field(repr=False)
    requests: int
    retries: int
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class Observation:
    """What one request was answered with, as it came.

    Attributes:
        status: the HTTP status, whatever it is.
        headers: by lower-case name.
        body: decompressed, and cut at 64 MiB. It is as the service sent it, so it may quote a
            credential: `excerpt` does not.
        excerpt: the beginning of the body for a message, redacted.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    excerpt: str


class Body:
    """The body of a read while it arrives: iterate it once, inside its `with` block.

    Attributes:
        requests: HTTP requests that were sent, repeated ones included.
        retries: attempts after the first.
        bytes_received: bytes handed out so far, decompressed.
    """

    def __init__(self, call: Call, taken: _Taken, count: _Count) -> None:
        self.requests = count.requests
        self.retries = count.attempts - 1
        self.bytes_received = 0
        self._call = call
        self._reply = taken.reply
        self._start = taken.start
        self._rest = taken.rest
        self._failed = ""
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Return the next piece, at most 256 KiB.

        Raises:
            ReadInterrupted: the body broke off. Its `rows` are for the caller to fill in.
        """
        if self._failed:
            raise self._interrupted()
        chunk, self._start = self._start, b""
        if not chunk:
            try:
                chunk = next(self._rest, b"")
            except _BrokenError as broken:
                self._failed = broken.what
        if self._failed:
            raise self._interrupted()
        if not chunk:
            self._ended = True
            raise StopIteration
        self.bytes_received += len(chunk)
        return chunk

    def close(self) -> None:
        """Give the connection back; what has not been read is gone."""
        self._reply.release()
        if not self._ended:
            self._failed = self._failed or "it was closed before its end"

    def _interrupted(self) -> ReadInterrupted:
        return ReadInterrupted(
            f"{self._call.verb} of collection {self._call.collection!r}: the body broke off after"
            f" {self.bytes_received} bytes: {self._failed}. What arrived is not everything: read"
            " again",
            verb=self._call.verb,
            collection=self._call.collection,
        )


class Client:
    """Sends calls to one service, from any number of threads.

    Args:
        base_url: scheme, host, port if need be, and a path only if a gateway asks for one.
        connect_timeout: seconds for a connection, its TLS handshake and a place in the pool.
        read_timeout: seconds without a byte, and for the sending of a body.
        retry: how often to try and how long to wait between.
        pool_size: connections at a time; a further call waits for one. Of writes, fewer are in
            flight while more bring nothing or the service pushes back.
        no_match_status: the status that says that no document matched (U9).
        compress_requests: whether bodies from 1 KiB on are sent as gzip (U12).
        sleep: waits for seconds; for tests.
        now: seconds since the epoch, for `Retry-After` dates; for tests.
        random: a number from 0 to 1; for tests.

    Raises:
        ConfigurationError: a `base_url`, number, proxy or certificate setting that cannot work.

    Example:
        >>> Client("https://app.connectomesystem.com")
        <Client https://app.connectomesystem.com>
    """

    _origin = ""  # so that a client that could not be made has a repr

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - an immutable value
        pool_size: int = 8,
        no_match_status: int = 404,
        compress_requests: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._origin, prefix = _checked_base(base_url)
        for name, seconds in (("connect_timeout", connect_timeout), ("read_timeout", read_timeout)):
            if type(seconds) not in (int, float) or not 0 < seconds <= MAX_TIMEOUT_SECONDS:
                raise ConfigurationError(
                    f"{name} is {seconds!r}: give seconds, from above 0 to {MAX_TIMEOUT_SECONDS}"
                )
        if type(pool_size) is not int or pool_size < 1:
            raise ConfigurationError(f"pool_size is {pool_size!r}: give a whole number from 1")
        if type(no_match_status) is not int or not 400 <= no_match_status <= 599:
            raise ConfigurationError(
                f"no_match_status is {no_match_status!r}: give a status from 400 to 599"
            )
        if type(compress_requests) is not bool:
            raise ConfigurationError(
                f"compress_requests is {compress_requests!r}: give True or False"
            )
        self._compress = compress_requests
        self._gate = Gate(pool_size)
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._retry = retry
        self._pool_size = pool_size
        self._no_match_status = no_match_status
        self._sleep = sleep
        self._now = now
        self._random = random
        self._way = _way(self._origin, prefix, connect_timeout, read_timeout)
        self._connections = Connections(self._way.connect, pool_size)

    def __repr__(self) -> str:
        return f"<Client {self._origin}>"

    def close(self) -> None:
        """Close the connections. A call after this is a `ConfigurationError`."""
        self._connections.close()

    def send(self, call: Call, credentials: Credentials) -> Answer:
        """Send a call, again where that is harmless, and return its whole answer.

        Args:
            call: from `connectome_dagster.api.endpoints`.
            credentials: of the collection.

        Raises:
            ConfigurationError: no credential for this call, or settings that cannot work.
            RequestRejected: the service said no; see its children.
            ServiceUnavailable: nothing happened, and the attempts are spent.
            OutcomeUnknown: a write may have happened (U14: also a success that is none).
            MalformedResponse: a web page instead of documents (U14), or more than 64 MiB.

        Example:
            answer = client.send(endpoints.batch_write("movies", b'[{"amount":10}]'), credentials)
        """
        taken, count = self._exchange(call, credentials, whole=True)
        return Answer(
            status=taken.reply.status,
            body=taken.start,
            requests=count.requests,
            retries=count.attempts - 1,
            bytes_sent=count.bytes_sent,
            bytes_received=len(taken.start),
        )

    def observe(self, call: Call, credentials: Credentials, *, packed: bool = False) -> Observation:
        """Send a call once and return its answer, whatever it is: for who asks how a service acts.

        Args:
            call: from `connectome_dagster.api.endpoints`.
            credentials: of the collection.
            packed: whether the call's body is gzip already.

        Raises:
            ConfigurationError: no credential for this call, or settings that cannot work.
            ServiceUnavailable: no answer came, and nothing happened.
            OutcomeUnknown: no answer came, or half of one, to a write that may have happened.

        Example:
            client.observe(endpoints.read("movies"), credentials).status
        """
        flight = self._flight(
            call, credentials, {"Content-Encoding": "gzip"} if packed else _NO_HEADERS
        )
        reply = self._open(flight)
        if isinstance(reply, Trouble):
            trouble = reply
        else:
            try:
                return _observed(reply, credentials)
            except _BrokenError as broken:
                trouble = Trouble("lost", f"the answer broke off: {broken.what}", reply.status)
            finally:
                reply.release()
        raise error_of(call, trouble, doubt=None, attempts=1, no_match_status=self._no_match_status)

    @contextmanager
    def stream(self, call: Call, credentials: Credentials) -> Iterator[Body]:
        """Send a read and hand out its body while it arrives.

        The connection is closed or returned to the pool when the block ends, however it ends; it
        is reused only if the body was read to its end.

        Args:
            call: a read.
            credentials: of the collection.

        Raises:
            ReadInterrupted: while iterating, the body broke off after its first byte; before it,
                the read is repeated.
            ConnectomeError: everything that `send` raises for a read.

        Example:
            with client.stream(endpoints.read("movies"), credentials) as body:
                for chunk in body:
                    ...
        """
        if call.needs != "read":
            raise ConfigurationError(f"{call.verb} is a write: it has no body to stream")
        taken, count = self._exchange(call, credentials, whole=False)
        body = Body(call, taken, count)
        try:
            yield body
        finally:
            body.close()

    def _exchange(
        self, call: Call, credentials: Credentials, *, whole: bool
    ) -> tuple[_Taken, _Count]:
        """Attempt until there is an answer, or say why there is none."""
        policy = self._retry
        doubt: Trouble | None = None
        count = _Count()
        waited_until = 0.0
        while True:
            flight = self._flight(call, credentials)
            result = self._paced(call, credentials, flight, waited_until, whole=whole)
            count.attempts += 1
            count.requests += flight.sent
            count.bytes_sent += len(flight.body) * flight.sent
            if isinstance(result, _Taken):
                return result, count
            again = may_repeat(call, result)
            step = policy.next(self._random(), result.retry_after) if again else None
            if step is None:
                break
            if result.fate == "lost":
                doubt = result
            policy = step.policy
            _log.info(
                "%s of collection %r: %s; attempt %d follows in %.1f s",
                *(call.verb, call.collection, result.what, policy.attempt, step.delay),
            )
            waited_until = max(waited_until, self._gate.clock()) + step.delay
            self._sleep(step.delay)
        raise error_of(
            *(call, result),
            doubt=doubt,
            attempts=count.attempts,
            no_match_status=self._no_match_status,
        )

    def _paced(
        self,
        call: Call,
        credentials: Credentials,
        flight: _Flight,
        waited_until: float,
        *,
        whole: bool,
    ) -> _Taken | Trouble:
        """Attempt it when its turn has come; a read waits only where the service asked for it."""
        result: _Taken | Trouble | None = None
        ticket = self._enter(waited_until, bounded=call.needs == "write")
        try:
            result = self._attempt(call, credentials, flight, whole=whole)
        finally:
            trouble = result if isinstance(result, Trouble) else None
            pushed_back = trouble is not None and trouble.pushed_back
            if trouble is not None and trouble.status in (429, 503):
                self._gate.hold(self._wait_of_all(trouble))
            if ticket is not None:
                success = isinstance(result, _Taken)
                self._gate.leave(ticket, success=success, pushed_back=pushed_back)
        return result

    def _wait_of_all(self, trouble: Trouble) -> float:
        """How long a service that turned one call away is left alone by all."""
        if trouble.retry_after is None:
            return self._retry.base_delay if trouble.status == 429 else 0.0
        # Beyond anyone's patience the call fails, and so may the others: at once.
        patient = trouble.retry_after <= self._retry.max_retry_after
        return trouble.retry_after if patient else 0.0

    def _enter(self, waited_until: float, *, bounded: bool) -> int | None:
        while True:
            ticket = self._gate.enter() if bounded else None
            waited_until = max(waited_until, self._gate.clock())
            left = self._gate.pace.held_until - waited_until
            if left <= 0:
                return ticket
            if bounded:
                self._gate.withdraw()
            self._sleep(left)
            waited_until += left

    def _flight(
        self,
        call: Call,
        credentials: Credentials,
        more_headers: Mapping[str, str] = _NO_HEADERS,
    ) -> _Flight:
        # In a frame of its own, which is gone when anything fails: tools show locals.
        credential = quote(credentials.for_(call.needs, call.verb, call.collection), safe="")
        body = call.body or b""
        packed = self._compress and len(body) >= COMPRESS_FROM_BYTES
        if packed:
            body = gzip.compress(body, COMPRESSION_LEVEL, mtime=0)
            more_headers = {**more_headers, "Content-Encoding": "gzip"}
        if call.idempotency_key:
            more_headers = {**more_headers, "Idempotency-Key": call.idempotency_key}
        path = f"/collection/{call.verb}/{credential}/{quote(call.collection, safe='')}"
        more = "".join(f"{name}: {value}\r\n" for name, value in more_headers.items())
        if call.body is not None:
            more += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = (
            f"{call.method} {self._way.base}{path} HTTP/1.1\r\n{self._way.headers}{more}\r\n"
        ).encode("latin-1")
        return _Flight(head, body, call.repeatable, packed)

    def _attempt(
        self, call: Call, credentials: Credentials, flight: _Flight, *, whole: bool
    ) -> _Taken | Trouble:
        reply = self._open(flight)
        if isinstance(reply, Trouble):
            return reply
        _log.debug("%s of collection %r: status %d", call.verb, call.collection, reply.status)
        result: _Taken | Trouble | None = None
        try:
            if 200 <= reply.status <= 299:
                result = _accepted(call, credentials, reply, whole=whole)
            else:
                result = self._refused(call, credentials, reply, packed=flight.packed)
        finally:
            # Also when the run is being ended, by an exception that is not ours.
            if whole or not isinstance(result, _Taken):
                reply.release()
        return result

    def _open(self, flight: _Flight) -> _Reply | Trouble:
        """Send the request and wait for the head of the answer."""
        trouble: Trouble
        try:
            connection = self._connections.take(self._connect_timeout, fresh=not flight.repeatable)
        except (NoPlaceError, ClosedError, ValueError, *_FOREIGN) as error:
            trouble = self._failure(error)
        else:
            flight.sent = True
            return self._ask(connection, flight)
        return trouble

    def _ask(self, connection: Connection, flight: _Flight) -> _Reply | Trouble:
        reply: _Reply | None = None
        lost = Trouble("lost", "what came is not an HTTP answer")
        try:
            _send(connection, flight, self._read_timeout)
            head, early = _head(connection, self._read_timeout)
            reply = _Reply(connection, self._connections, head, early, self._read_timeout)
        except _BrokenError as broken:
            lost = Trouble("lost", broken.what, pushed_back=broken.too_slow)
        except NotHTTPError:
            pass
        finally:
            if reply is None:
                self._connections.give(connection, keep=False)
        return reply or lost

    def _failure(self, error: Exception) -> Trouble:
        """Say why there is no connection."""
        if isinstance(error, ClosedError):
            return Trouble("unusable", "the client is closed")
        if isinstance(error, NoPlaceError):
            what = f"all {self._pool_size} connections were in use for {self._connect_timeout:g} s"
            return Trouble("unsent", what)
        distrust = _first(error, SSLCertVerificationError)
        if distrust is not None:
            return Trouble(
                "unusable",
                f"the certificate of {self._origin} is not trusted ({distrust.verify_message}):"
                " check base_url, or name your organization's certificates in REQUESTS_CA_BUNDLE",
            )
        why = _no_connection(error, self._connect_timeout)
        return Trouble("unsent", f"no connection to {self._origin}{self._way.through}: {why}")

    def _refused(
        self, call: Call, credentials: Credentials, reply: _Reply, *, packed: bool
    ) -> Trouble:
        start = b""
        cut = not reply.is_readable
        try:
            for piece in () if cut else reply.pieces():
                start += piece
                if len(start) > MAX_REFUSAL_BYTES:
                    break
        except _BrokenError:
            cut = True
        return of_status(
            call,
            reply.status,
            body=_excerpt(start, credentials, cut=cut),
            retry_after=parse_retry_after(reply.headers.get("retry-after"), self._now()),
            no_match_status=self._no_match_status,
            packed=packed,
        )


def _accepted(
    call: Call, credentials: Credentials, reply: _Reply, *, whole: bool
) -> _Taken | Trouble:
    status = reply.status
    if not reply.is_readable:
        what = "the service answered in a compression that was not asked for"
        return Trouble("garbled", what, status)
    rest = reply.pieces()
    try:
        start = _joined(rest) if whole else next(rest, b"")
    except _BrokenError as broken:
        what = f"the answer broke off: {broken.what}"
        return Trouble("lost", what, status, pushed_back=broken.too_slow)
    if start is None:
        what = f"the service answered with more than {MAX_ANSWER_BYTES >> 20} MiB"
        return Trouble("garbled", what, status)
    trouble = of_success(call, status, reply.headers.get("content-type", ""), start)
    if trouble is not None:
        return replace(trouble, body=_excerpt(start, credentials))
    return _Taken(reply, start, rest)


def _observed(reply: _Reply, credentials: Credentials) -> Observation:
    body = b""
    if reply.is_readable:
        kept: list[bytes] = []
        size = 0
        for piece in reply.pieces():
            kept.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                break
        body = b"".join(kept)
    return Observation(
        reply.status,
        reply.headers,
        body,
        _excerpt(body[: MAX_REFUSAL_BYTES + 1], credentials),
    )


def _joined(pieces: Iterator[bytes]) -> bytes | None:
    kept: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            return None
        kept.append(piece)
    return b"".join(kept)


@dataclass
class _Flight:
    """One attempt: what is sent, and whether it was."""

    head: bytes = field(repr=False)
    body: bytes = field(repr=False)
    repeatable: bool
    packed: bool
    sent: bool = False  # False is a proof that nothing left this machine


@dataclass
class _Count:
    attempts: int = 0
    requests: int = 0
    bytes_sent: int = 0


@dataclass(frozen=True)
class _Taken:
    """An answer that was accepted: the beginning of its body, and what follows."""

    reply: _Reply
    start: bytes
    rest: Iterator[bytes]


class _BrokenError(Exception):
    def __init__(self, what: str, *, too_slow: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.too_slow = too_slow


# What http.client says of a proxy's answer to CONNECT; the status is all that is taken of it.
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: ([0-9]{3})\b")

_FOREIGN = (foreign.HTTPError, HTTPException, OSError)


def _send(connection: Connection, flight: _Flight, patience: float) -> None:
    broken: _BrokenError | None = None
    try:
        # A service may answer and close before it has read everything, to a body that is too
        # large for one: what it said can still be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send(flight)
    except OSError as error:
        broken = _loss(error, patience)
    if broken is not None:
        raise broken


def _head(connection: Connection, patience: float) -> tuple[AnswerHead, bytes]:
    data = b""
    while True:
        more = _receive(connection, patience, FIRST_BYTES)
        if not more:
            raise _BrokenError(
                "the connection was closed before the end"
                if data
                else "the service closed the connection without an answer"
            )
        data += more
        found = take_head(data)
        if found is not None:
            return found


def _receive(connection: Connection, patience: float, size: int = CHUNK_BYTES) -> bytes:
    try:
        return connection.receive(size)
    except OSError as error:
        broken = _loss(error, patience)
    raise broken


class _Reply:
    """An answer whose head is there, and the connection on which its body arrives.

    Attributes:
        status: the HTTP status.
        headers: by name in lower case.
        is_readable: whether its body is in a form that was asked for.
    """

    def __init__(
        self,
        connection: Connection,
        home: Connections,
        head: AnswerHead,
        early: bytes,
        patience: float,
    ) -> None:
        self.status, self.headers, self._persists = head
        self._framing = framing_of(head)
        self._connection = connection
        self._home = home
        self._early = early
        self._patience = patience
        self._released = False
        self._encoding = self.headers.get("content-encoding", "").strip().lower()
        self.is_readable = self._encoding in ("", "identity", "gzip", "x-gzip")

    def pieces(self) -> Iterator[bytes]:
        """Yield the decompressed body as it arrives."""
        if self._encoding not in ("gzip", "x-gzip"):
            yield from self._raw_pieces()
            return
        inflater = _Inflater()
        for data in self._raw_pieces():
            yield from inflater.pieces(data)
        inflater.finish()

    def _raw_pieces(self) -> Iterator[bytes]:
        framing = self._framing
        data, self._early = self._early, b""
        while True:
            piece, broken = b"", ""
            try:
                piece = framing.feed(data)
            except NotHTTPError:
                broken = "it is not framed as HTTP is"
            if broken:
                raise _BrokenError(broken)
            if piece:
                yield piece
            if framing.over:
                return
            data = _receive(self._connection, self._patience)
            if not data:
                if framing.ends_by_close:
                    return
                raise _BrokenError("the connection was closed before the end")

    def release(self) -> None:
        """Give the connection back; one whose body was not read to its end is closed."""
        if not self._released:
            self._released = True
            ended = self._framing.over and not self._framing.surplus
            self._home.give(self._connection, keep=ended and self._persists)


class _Inflater:
    """Decompresses gzip in pieces of bounded size, whatever the ratio."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._begun = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        self._begun = True
        more = False
        while data or more:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            piece = self._inflated(data)
            data = self._member.unconsumed_tail or self._member.unused_data
            # A piece that fills its bound may leave output behind that needs no more input.
            more = len(piece) == CHUNK_BYTES and not self._member.eof
            if piece:
                yield piece

    def _inflated(self, data: bytes) -> bytes:
        with suppress(zlib.error):
            return self._member.decompress(data, CHUNK_BYTES)
        raise _BrokenError("its compression is damaged")

    def finish(self) -> None:
        if self._begun and not self._member.eof:
            raise _BrokenError("its compression ends before its end")


def _excerpt(body: bytes, credentials: Credentials, *, cut: bool = False) -> str:
    cut = cut or len(body) > MAX_REFUSAL_BYTES
    # Not final, so that a character that is cut off vanishes and cannot hide half a credential.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(body[:MAX_REFUSAL_BYTES], final=not cut).replace("\0", "")
    text = redacted_start(text, credentials.secrets, length=EXCERPT_CHARACTERS, cut=cut)
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


E = TypeVar("E", bound=BaseException)


def _first(error: BaseException, kind: type[E]) -> E | None:
    """Find an error of a kind among what an error was made of."""
    waiting: list[object] = [error]
    for _ in range(16):  # urllib3 wraps twice or thrice; the bound ends a circle
        if not waiting:
            break
        candidate = waiting.pop(0)
        if isinstance(candidate, kind):
            return candidate
        if isinstance(candidate, BaseException):
            waiting += (*candidate.args, candidate.__cause__, candidate.__context__)
    return None


def _no_connection(error: Exception, connect_timeout: float) -> str:
    if _first(error, foreign.NameResolutionError) is not None:
        return "the host name is not known"
    if _first(error, foreign.NewConnectionError) is None and (
        _first(error, TimeoutError) is not None or _first(error, foreign.TimeoutError) is not None
    ):
        return f"none within {connect_timeout:g} s"
    if _first(error, SSLError) is not None:
        return "the TLS handshake failed; is it an https address?"
    refusal = _TUNNEL_REFUSED.search(str(error))
    if refusal is not None:
        return f"it refused a tunnel with status {refusal[1]}"
    return _system_text(error) or "it failed"


def _loss(error: OSError, patience: float) -> _BrokenError:
    """Say how an exchange broke; in our words, for the library's may hold the URL."""
    if isinstance(error, TimeoutError):
        return _BrokenError(f"nothing more came within {patience:g} s", too_slow=True)
    return _BrokenError(_system_text(error) or "the connection broke")


def _system_text(error: Exception) -> str:
    system = _first(error, OSError)
    return (system.strerror or "").lower() if system is not None else ""


def _user_agent() -> str:
    try:
        return f"connectome-dagster/{version('connectome-dagster')}"
    except PackageNotFoundError:  # run from a copy that was not installed
        return "connectome-dagster"


def _checked_base(base_url: object) -> tuple[str, str]:
    """Split into origin and path. What was given is never shown: it may hold a credential."""
    if type(base_url) is not str:
        raise ConfigurationError(
            f"base_url is a {type(base_url).__name__}, not a plain str (an environment variable"
            " that was not resolved?)"
        )
    wanted = "give scheme and host alone, as in https://app.connectomesystem.com"
    if any(character.isspace() or not character.isprintable() for character in base_url):
        raise ConfigurationError(f"base_url holds whitespace or control characters: {wanted}")
    parts, port = _split(base_url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"base_url is not an http or https address: {wanted}")
    if "@" in parts.netloc or "?" in base_url or "#" in base_url:
        raise ConfigurationError(f"base_url holds a user, a query or a fragment: {wanted}")
    if "collection" in parts.path.split("/"):
        raise ConfigurationError(f"base_url holds the path of a call (/collection/...): {wanted}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")
    return origin, quote(parts.path.rstrip("/"), safe="/%")


def _split(url: str) -> tuple[SplitResult | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None, None
    return parts, port


class _Plain(HTTPConnection):
    # Shadows what `http.client.HTTPConnection.debuglevel = 1` sets: it would print logins.
    debuglevel = 0


class _Secure(_Plain, HTTPSConnection):
    pass


@dataclass(frozen=True)
class _Connect:
    """Makes connected sockets, through the proxy if there is one.

    Attributes:
        origin: the service.
        proxy: what is between, None for nothing.
        login: what a proxy wants to be told before it makes a tunnel.
        trust: whose certificates are trusted, None where there is no TLS.
        connect_timeout: seconds for the connection and its TLS handshake.
        read_timeout: seconds that the socket then waits for the other side.
    """

    origin: Url
    proxy: Url | None
    login: Mapping[str, str] = field(repr=False)
    trust: SSLContext | None
    connect_timeout: float
    read_timeout: float

    def __call__(self) -> socket.socket:
        near = self.proxy or self.origin
        options: dict[str, Any] = {"timeout": self.connect_timeout}
        if self.proxy is not None:
            options["proxy"] = self.proxy
            options["proxy_config"] = ProxyConfig(self.trust, False, None, None)
        host = (near.host or "").strip("[]")
        connection: HTTPConnection = (
            _Plain(host, near.port, **options)
            if self.trust is None
            else _Secure(host, near.port, ssl_context=self.trust, **options)
        )
        try:
            if self.proxy is not None and self.origin.scheme == "https":
                connection.set_tunnel(
                    self.origin.host or "", _port(self.origin), self.login, near.scheme or "http"
                )
            connection.connect()
            connection.sock.settimeout(self.read_timeout)
        except BaseException:
            connection.close()
            raise
        return connection.sock


@dataclass(frozen=True)
class _Way:
    """How the service is reached.

    Attributes:
        connect: makes a connected socket.
        base: what stands in front of a path.
        headers: the lines that every request has.
        through: what is between, for a message.
    """

    connect: _Connect
    base: str
    headers: str = field(repr=False)
    through: str


def _way(origin: str, prefix: str, connect_timeout: float, read_timeout: float) -> _Way:
    url = _parsed(origin)
    if url is None or not url.host:
        raise ConfigurationError("base_url names a host that cannot be one: mend it")
    proxy, login = _proxy_of(origin)
    headers = {
        "Host": url.host if url.port in (None, _PORTS[url.scheme]) else f"{url.host}:{url.port}",
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "User-Agent": _user_agent(),
    }
    forwarded = proxy is not None and url.scheme == "http"
    if forwarded:
        headers |= {name.title(): value for name, value in login.items()}
    tls = url.scheme == "https" or (proxy is not None and proxy.scheme == "https")
    return _Way(
        _Connect(url, proxy, login, _trust() if tls else None, connect_timeout, read_timeout),
        f"{origin if forwarded else ''}{prefix}",
        "".join(f"{name}: {value}\r\n" for name, value in headers.items()),
        "" if proxy is None else " through the proxy",
    )


_PORTS = {"http": 80, "https": 443, None: None}


def _port(url: Url) -> int | None:
    return url.port or _PORTS[url.scheme]


def _proxy_of(origin: str) -> tuple[Url | None, Mapping[str, str]]:
    """Return the proxy that the environment names, if any, and the login that it wants.

    Its URL is never shown: it may hold a password.
    """
    proxy = select_proxy(origin, get_environ_proxies(origin))
    if not proxy:
        return None, {}
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    url = _parsed(proxy)
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(
            "the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) is not an"
            " http or https address: mend it, or list the service's host in NO_PROXY"
        )
    user, password = get_auth_from_url(proxy)
    login = make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
    return Url(scheme=url.scheme, host=url.host, port=url.port), login


def _parsed(address: str) -> Url | None:
    with suppress(foreign.LocationParseError):
        return parse_url(address)
    return None


def _trust() -> SSLContext:
    """Return whom to trust, as requests finds it. Always verifies."""
    name = next((name for name in _BUNDLES if os.environ.get(name)), "")
    where = Path(os.environ[name] if name else DEFAULT_CA_BUNDLE_PATH)
    context = create_urllib3_context()
    with suppress(OSError):
        if where.is_dir():
            context.load_verify_locations(capath=where)
        else:
            context.load_verify_locations(cafile=where)
        return context
    raise ConfigurationError(
        f"{name or 'certifi'} names {str(where)!r}, which cannot be read as certificates: mend it"
    )


# In the order in which requests looks at them.
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

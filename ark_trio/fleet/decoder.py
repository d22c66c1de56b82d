"""One decoder as the gateway knows it: its connection, what it serves, how busy and how well it is."""

import random
import ssl
from collections.abc import Callable
from typing import Literal, Self

import structlog
import trio
from attrs import define, field, frozen

from ark_trio.errors import ArkError, Unreachable
from ark_trio.fleet.ejection import Ejection, is_fault
from ark_trio.fleet.health import Health
from ark_trio.fleet.load import NO_WORK, Load, Work
from ark_trio.fleet.probe import Served, look
from ark_trio.rpc.client import ArkChannel
from ark_trio.settings.address import Address

log = structlog.get_logger()

State = Literal["new", "ready", "ejected", "away", "leaving"]


@frozen(kw_only=True)
class WatchRules:
    """How often a decoder is looked at, and how long a look may take."""

    every_s: float = 5.0
    away_s: float = 1.0
    """Where it is not well, or the last look makes that doubtful."""
    timeout_s: float = 5.0


@define(kw_only=True, eq=False)
class Lease:
    """A decoder's channel, lent for one request."""

    channel: ArkChannel
    _decoder: "Decoder"
    _number: int
    _work: Work
    waiting: bool = True
    """Nothing of the answer has come."""
    on_away: Callable[[], None] | None = None
    """Called when the decoder is found away while the request waits there."""
    _judged: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder.take_back(self, self._number, self._work)

    def first_token(self) -> None:
        """The request's first token has come."""
        self.waiting = False
        self._decoder.load.first_token(self._number, trio.current_time())

    def judge(self, error: ArkError | None) -> None:
        """Take how the request ended; of several who tell it the first counts."""
        if not self._judged:
            self._judged = True
            self._decoder.judge(error)


@define(kw_only=True, eq=False)
class Decoder:
    """A decoder, and our own count of what it does for us."""

    address: Address
    default_models: tuple[str, ...]
    """What it is taken to serve if it can't say."""
    served: Served | None = None
    """What requests may go there for. None: it is not well."""
    last_served: Served | None = None
    """What it served when it was last well."""
    load: Load = field(factory=Load)
    health: Health = field(factory=lambda: Health(rise=2, fall=2))
    ejection: Ejection = field(factory=Ejection)
    rules: WatchRules = field(factory=WatchRules)
    leaving: bool = False
    """Struck off: it finishes what it has."""
    _channel: ArkChannel | None = None
    _leases: set[Lease] = field(factory=set)
    _looked: trio.Event = field(factory=trio.Event)
    _look_now: trio.Event = field(factory=trio.Event)
    _struck_off: trio.Event = field(factory=trio.Event)
    _idle: trio.Event = field(factory=trio.Event)
    seed: bytes = field(init=False)
    """See `Candidate`: what ranks it stays the same over restarts, and is the same in all gateways."""

    def __attrs_post_init__(self) -> None:
        """Make the seed once."""
        self.seed = str(self.address).encode()[:64]

    @property
    def ready(self) -> bool:
        """It was well when we last looked, and no call has found it away since."""
        return self.served is not None

    @property
    def open_streams(self) -> int:
        """Streams of gRPC to it."""
        return 0 if self._channel is None else self._channel.open_streams

    @property
    def in_flight(self) -> int:
        """Requests of ours that run there."""
        return self.load.in_flight

    def state(self, now: float) -> State:
        """In a word."""
        if self.leaving:
            return "leaving"
        if not self.ready:
            return "away" if self._looked.is_set() else "new"
        return "ejected" if self.ejection.out(now) else "ready"

    def lease(self, work: Work = NO_WORK) -> Lease:
        """Lend the channel for one request, counted as running here until the end of the block that it opens.

        Raises:
            Unreachable: the decoder is not open.
        """
        if self._channel is None:
            raise Unreachable("The engine behind this model is not there any more.")
        number = self.load.begin(work, trio.current_time())
        lease = Lease(channel=self._channel, decoder=self, number=number, work=work)
        self._leases.add(lease)
        return lease

    def take_back(self, lease: Lease, number: int, work: Work) -> None:
        """Take a lease back; its request runs here no more."""
        self._leases.discard(lease)
        self.load.end(number, work)
        if self.in_flight == 0:
            self._idle.set()

    def judge(self, error: ArkError | None) -> None:
        """Take how a request ended that the decoder itself brought to an end. A client's faults count neither way."""
        now = trio.current_time()
        if error is None:
            self.ejection.answered(now)
            return
        # Many streams of one lost connection are one event: whoever comes first finds it ready.
        same_event = isinstance(error, Unreachable) and not self.ready
        if is_fault(error) and not same_event and self.ejection.failed(now):
            seconds = round(self.ejection.until - now, 1)
            log.warning("decoder_ejected", decoder=str(self.address), seconds=seconds)
        if isinstance(error, Unreachable):
            self.health.lost()
            self._see(None)
        if is_fault(error):
            self._look_now.set()

    def renew(self, tls: ssl.SSLContext | None) -> None:
        """Take new certificates for connections to come."""
        if self._channel is not None:
            self._channel.renew(tls)

    def strike_off(self) -> None:
        """End `live` once the last request here has ended."""
        self.leaving = True
        self._struck_off.set()

    async def first_look(self) -> None:
        """Wait until it has been looked at once."""
        await self._looked.wait()

    async def live(self, channel: ArkChannel) -> None:
        """Be of service through `channel`, watched, until struck off and idle."""
        self._channel = channel
        try:
            async with trio.open_nursery() as watch:  # the watch ends where the drain begins
                watch.start_soon(self._watch, channel)
                await self._struck_off.wait()
                watch.cancel_scope.cancel()
            while self.in_flight:
                self._idle = trio.Event()
                await self._idle.wait()
        finally:
            self._channel = None

    async def _watch(self, channel: ArkChannel) -> None:
        """Look again and again, soon where a call has met a fault. Jittered, so that gateways don't all look at once."""
        while True:
            found = None
            with trio.move_on_after(self.rules.timeout_s):
                found = await look(channel, str(self.address), self.default_models)
            self.health.saw(good=found is not None)
            self._see((found or self.served) if self.health.well else None)
            self._looked.set()
            if not self.ready:
                self._tell_waiting()
            calm = self.ready and not self.health.doubtful
            pause_s = self.rules.every_s if calm else self.rules.away_s
            self._look_now = trio.Event()
            with trio.move_on_after(pause_s * random.uniform(0.8, 1.2)):  # noqa: S311 (spreads them)
                await self._look_now.wait()

    def _tell_waiting(self) -> None:
        for lease in tuple(self._leases):
            if lease.waiting and lease.on_away is not None:
                lease.on_away()

    def _see(self, served: Served | None) -> None:
        if (served is None) != (self.served is None):
            log.info("decoder_changed", decoder=str(self.address), ready=served is not None)
        self.served = served
        self.last_served = served or self.last_served

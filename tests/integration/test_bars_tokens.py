"""Tokens for BaRS receivers: from the token endpoint of a real broker, and from one that fails."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from joserfc.jwk import ECKey

from broker.api.app import create_app
from broker.errors import Retry
from broker.main import Broker
from broker.ports import Party
from broker.settings import Settings
from broker.store import clients
from broker.store.tx import Tx
from sandbox.bars_receiver import BarsReceiver, outcome
from sandbox.process import free_port
from tests.acceptance.place import eventually
from tests.integration.bars_calls import (
    SENDER,
    MakeHttp,
    a_delivery,
    failure,
    listening,
    making,
    receipt_of,
)
from tests.integration.test_outbound import Peer, answer

pytestmark = pytest.mark.slow

KEY = ECKey.generate_key("P-384")
CLIENT = "referral-broker"


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker of somebody else, which serves on loopback and knows us as a client."""
    port = free_port()
    settings = Settings(
        data_dir=tmp_path / "data",
        keys_dir=tmp_path / "keys",
        public_url=f"http://127.0.0.1:{port}",
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        config = uvicorn.Config(
            app, port=port, lifespan="off", ws="none", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await eventually(lambda: asyncio.sleep(0, server.started))
        broker: Broker = app.state.broker

        def register(tx: Tx) -> None:
            clients.put(tx, CLIENT, "Another broker", ["ES384"], ["inbox:read"])
            clients.put_key(tx, CLIENT, KEY.thumbprint(), dict(KEY.as_dict(private=False)))
            clients.put_grant(tx, CLIENT, SENDER.ods)
            clients.put_grant(tx, CLIENT, "FPH01")

        await broker.store.write(register)
        yield broker
        server.should_exit = True
        await serving


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


@pytest.fixture
async def receiver(stack: AsyncExitStack) -> BarsReceiver:
    return await stack.enter_async_context(listening())


@pytest.fixture
def http(stack: AsyncExitStack) -> MakeHttp:
    return making(stack)


class Tokens(set[str]):
    """What a receiver takes: every token that it was shown, until one is revoked."""

    def __init__(self) -> None:
        super().__init__()
        self.revoked: set[str] = set()

    def __contains__(self, token: object) -> bool:
        self.add(str(token))
        return bool(token) and token not in self.revoked


def wanting(peer: Broker) -> dict[str, Any]:
    return {"token_url": peer.settings.token_url, "client": CLIENT}


async def test_a_call_carries_a_token_for_the_sending_organisation(
    receiver: BarsReceiver, http: MakeHttp, peer: Broker
) -> None:
    receiver.tokens = Tokens()
    delivery = a_delivery(receiver.url, endpoint=wanting(peer))
    assert (await http(key=KEY).post(delivery)).receipt == receipt_of(delivery)
    assert len(receiver.calls) == 3
    for call in receiver.calls:
        caller = await peer.authority.authenticate(call.headers["authorization"])
        assert (caller.client_id, caller.organisation) == (CLIENT, SENDER.ods)


async def test_a_token_is_used_until_shortly_before_it_ends(
    receiver: BarsReceiver, http: MakeHttp, peer: Broker
) -> None:
    receiver.tokens = tokens = Tokens()
    begun = datetime.now(UTC)
    times = [begun]
    outlet = http(key=KEY, now=lambda: times[-1])
    got = []
    # The peer's clock stands: an assertion dated ahead by more than a minute is refused.
    for seconds in (0, 269, 270):
        times.append(begun + timedelta(seconds=seconds))
        try:
            await outlet.post(a_delivery(receiver.url, endpoint=wanting(peer)))
        except Retry as failed:
            got.append(failed.code)
        else:
            got.append(str(len(tokens)))
    assert got == ["1", "1", "no-token"]


async def test_each_organisation_has_a_token_of_its_own(
    receiver: BarsReceiver, http: MakeHttp, peer: Broker
) -> None:
    receiver.tokens = tokens = Tokens()
    outlet = http(key=KEY)
    for sender in (SENDER, Party("FPH01", "Riverside Pharmacy"), SENDER):
        await outlet.post(a_delivery(receiver.url, endpoint=wanting(peer), sender=sender))
    assert len(tokens) == 2


async def test_a_token_that_is_not_taken_is_got_anew_once(
    receiver: BarsReceiver, http: MakeHttp, peer: Broker
) -> None:
    receiver.tokens = tokens = Tokens()
    outlet = http(key=KEY)
    await outlet.post(a_delivery(receiver.url, endpoint=wanting(peer)))
    tokens.revoked |= tokens
    delivery = a_delivery(receiver.url, endpoint=wanting(peer))
    assert (await outlet.post(delivery)).receipt == receipt_of(delivery)
    assert len(tokens) == 2
    assert [call.headers["x-request-id"] for call in receiver.messages[1:]] == [delivery.id] * 2
    receiver.script += [outcome(401, "REC_UNAUTHORIZED", "security")] * 2
    failed = await failure(outlet, a_delivery(receiver.url, endpoint=wanting(peer)))
    assert (type(failed), failed.status) == (Retry, 401)
    assert len(receiver.messages) == 5
    assert not receiver.script


async def test_an_organisation_without_a_grant_gets_no_token_and_nothing_is_sent(
    receiver: BarsReceiver, http: MakeHttp, peer: Broker
) -> None:
    delivery = a_delivery(receiver.url, endpoint=wanting(peer), sender=Party("TPX01", "Clearview"))
    failed = await failure(http(key=KEY), delivery)
    assert (type(failed), failed.code) == (Retry, "no-token")
    assert receiver.calls == []


async def test_without_a_key_of_our_own_nothing_is_sent(
    receiver: BarsReceiver, http: MakeHttp, peer: Broker
) -> None:
    failed = await failure(http(), a_delivery(receiver.url, endpoint=wanting(peer)))
    assert (type(failed), failed.code) == (Retry, "no-token")
    assert receiver.calls == []


def said(**changes: Any) -> bytes:
    return json.dumps(
        {"access_token": "t", "token_type": "Bearer", "expires_in": 300} | changes
    ).encode()


BAD = {
    "an error": ("400 Bad Request", said()),
    "a redirect": ("302 Found", said()),
    "no JSON": ("200 OK", b"<html>"),
    "a list": ("200 OK", b"[]"),
    "no token": ("200 OK", said(access_token=None)),
    "an empty token": ("200 OK", said(access_token="")),
    "a token that ends the header": ("200 OK", said(access_token="t\r\nX-Evil: 1")),
    "another kind of token": ("200 OK", said(token_type="mac")),
    "too much": ("200 OK", said(more="x" * 70_000)),
}


@pytest.mark.parametrize(("status", "body"), BAD.values(), ids=BAD.keys())
async def test_what_is_no_token_is_none(
    stack: AsyncExitStack, receiver: BarsReceiver, http: MakeHttp, status: str, body: bytes
) -> None:
    there = await stack.enter_async_context(Peer(answer(status, body)).running())
    endpoint = {"token_url": there.url, "client": CLIENT}
    failed = await failure(http(key=KEY), a_delivery(receiver.url, endpoint=endpoint))
    assert (type(failed), failed.code) == (Retry, "no-token")
    assert receiver.calls == []


@pytest.mark.parametrize("life", [None, "300", 0, -1, True, 10**9])
async def test_a_token_that_does_not_say_how_long_it_is_good_is_used_once(
    stack: AsyncExitStack, receiver: BarsReceiver, http: MakeHttp, life: object
) -> None:
    there = await stack.enter_async_context(Peer(answer("200 OK", said(expires_in=life))).running())
    endpoint = {"token_url": there.url, "client": CLIENT}
    assert (await http(key=KEY).post(a_delivery(receiver.url, endpoint=endpoint))).receipt
    assert len(there.requests) == len(receiver.calls) == 3


async def test_a_token_url_that_leads_inside_is_refused(http: MakeHttp) -> None:
    endpoint = {"token_url": "https://10.0.0.1/token", "client": CLIENT}
    failed = await failure(http(key=KEY), a_delivery("http://127.0.0.1:9/", endpoint=endpoint))
    assert failed.code == "address-refused"

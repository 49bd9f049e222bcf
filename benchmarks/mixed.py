"""Mixed: every referral of the catalogue to twenty destinations, one of them dead and one slow.

All examples of all pillars are posted in turn at fixed times, each of another patient; each goes
to the service that takes it and, as a copy, to a practice. All are webhooks. Runs in which all are
well and runs in which one never answers and one is slow take turns, each on a new broker. The
figure is the p99 from the time of posting to the arrival at the others, against the run before in
which all were well: the median of the pairs.

`--urgent` measures instead how many seconds after its acceptance what must be acted on today is
first attempted, at a destination that is just resumed and is owed 10,000 routine messages.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks import rig, setups
from benchmarks.destinations import (
    DEAD,
    SLOW,
    Arrived,
    Mix,
    Place,
    overtake,
    post_the_mix,
)
from benchmarks.load import MARK, Door, closed_loop
from benchmarks.setups import Fresh
from broker import registry
from broker.events import uuid7
from broker.opening import open_ring, open_store
from broker.store import clients
from broker.store.tx import Tx
from broker.vault import Vault
from fhir_profiles.identifiers import nhs_number
from sandbox.process import free_port
from sandbox.world import (
    DENTIST,
    DISCHARGING_HOSPITAL,
    INBOX_PRACTICE,
    OPTOMETRIST,
    PHARMACY,
    URGENT_CARE,
    WEBHOOK_PRACTICE,
    World,
)

NAME: Final = "mixed"
AIM: Final = 1.2
AIM_MORE_MS: Final = 20.0
AIM_URGENT: Final = 5.0
PRACTICES: Final = (INBOX_PRACTICE, WEBHOOK_PRACTICE)
UNWELL: Final = {("V99002", "V99002-DENTAL"): DEAD, ("RYC01", "RYC01-DENTAL"): SLOW}
SENDERS: Final = {
    "general-practice.referrals": INBOX_PRACTICE,
    "pharmacy.referrals": PHARMACY,
    "optometry": OPTOMETRIST,
    "dentistry.referrals": DENTIST,
    "urgent-care.referrals": URGENT_CARE,
    "secondary-care.referrals": DISCHARGING_HOSPITAL,
}
"""The doors that take referrals, each with who posts."""
_PATIENT: Final = "9990000018"
_SECRET: Final = bytes(range(32))


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="referrals a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before each run")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--urgent", action="store_true", help="measure what overtakes instead")
    parser.add_argument("--owed", type=int, default=10_000, help="routine messages before it")
    setups.run(parser, arguments, _run)


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        if chosen.urgent:
            result = await _overtaking(folder, fresh(), chosen)
        else:
            result = await _in_pairs(folder, fresh, chosen)
    result.tell(chosen.results, machine)


async def _in_pairs(folder: Path, fresh: Fresh, chosen: argparse.Namespace) -> rig.Result:
    pairs = []
    for number in range(chosen.pairs):
        pair = {}
        turns: tuple[tuple[str, Mapping[Place, str]], ...] = (("well", {}), ("unwell", UNWELL))
        for name, manners in turns:
            run = f"{number}{name}"
            arrived = await _one(folder / run, fresh(), chosen, manners)
            pair[name] = _told(arrived)
            print(f"pair {number + 1}: {name:<7}{pair[name]['others_ms']} ms", flush=True)
        pairs.append(pair)
    p99 = [{name: one["others_ms"]["p99"] for name, one in pair.items()} for pair in pairs]
    ratio = round(statistics.median(one["unwell"] / one["well"] for one in p99), 3)
    more = round(statistics.median(one["unwell"] - one["well"] for one in p99), 1)
    raw = {
        "rate": chosen.rate,
        "seconds": chosen.seconds,
        "unwell": {"/".join(place): manner for place, manner in UNWELL.items()},
        "more_ms": more,
        "pairs": pairs,
    }
    aim, met = f"≤ {AIM}, or {AIM_MORE_MS:g} ms more", ratio <= AIM or more <= AIM_MORE_MS
    return rig.Result(setups.named(NAME, chosen.on), ratio, aim, met, raw)


async def _one(
    folder: Path, settings: dict[str, str], chosen: argparse.Namespace, manners: Mapping[Place, str]
) -> Arrived:
    """Return what arrived in one run, on a broker of its own."""
    async with rig.broker(folder, settings, has_pillars=True) as world:
        ports = await _all_webhooks(world)
        count = int(chosen.rate * (chosen.warm_up + chosen.seconds))
        mix = Mix(
            await _doors(world),
            _PATIENT.encode(),
            _patients(count),
            chosen.rate,
            chosen.warm_up,
            chosen.seconds,
            ports,
            manners,
        )
        with rig.clients() as posting:
            return await posting.run(post_the_mix, mix, "M")


def _told(arrived: Arrived) -> dict[str, Any]:
    others = [
        one for place, all_ in arrived.by_place.items() if place not in UNWELL for one in all_
    ]
    return {
        "destinations": len(arrived.by_place),
        "counted": len(others),
        "accepted_ms": rig.spread(arrived.accepted),
        "others_ms": rig.spread(others),
    }


async def _overtaking(
    folder: Path, settings: dict[str, str], chosen: argparse.Namespace
) -> rig.Result:
    async with rig.broker(folder, settings) as world:
        place = (WEBHOOK_PRACTICE, "")
        ports = await _all_webhooks(world)
        routine = await rig.pharmacy_door(world, practice=WEBHOOK_PRACTICE)
        crisis = world.pharmacy.crisis(practice=WEBHOOK_PRACTICE, reference=MARK.decode())
        urgent = replace(routine, body=json.dumps(crisis, ensure_ascii=False).encode())
        await _endpoints(world, "pause")
        owed = 0
        with rig.clients() as posting:
            while owed < chosen.owed:
                seen = await posting.run(closed_loop, routine, f"R{owed}", 16, 0.0, 5.0)
                owed += seen.all_requests
            await rig.drained(world)
            coming = asyncio.create_task(posting.run(overtake, urgent, ports[place], place))
            await _endpoints(world, "resume")
            took, before = await coming
    raw = {"owed": owed, "arrived_before": before}
    print(f"{owed} routine messages were owed; {before} of them came before it")
    aim = f"≤ {AIM_URGENT:g} s"
    name = setups.named(f"{NAME}-urgent", chosen.on)
    return rig.Result(name, round(took, 3), aim, took <= AIM_URGENT, raw)


async def _endpoints(world: World, what: str) -> None:
    code, said = await world.cli("endpoints", what, WEBHOOK_PRACTICE)
    if code != 0:
        sys.exit(said)


async def _all_webhooks(world: World) -> dict[Place, int]:
    """Have whatever takes referrals called at a port of its own; return the ports.

    The organisations' webhooks have one secret: the receivers here do not look at signatures.
    """
    text = (world.folder / "directory.yaml").read_text(encoding="utf-8")
    known = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - every value is a text
    ports: dict[Place, int] = {}
    for one in known["endpoints"]:
        place = one["organisation"], one.get("service", "")
        if "referral" in one["takes"] and "pathways" not in one:
            ports[place] = free_port()
            url = f"http://127.0.0.1:{ports[place]}/inbound"
            one |= {"channel": "webhook", "url": url}
    path = world.folder / "webhooks.yaml"
    path.write_text(yaml.safe_dump(known, allow_unicode=True), encoding="utf-8")
    await world.broker.stop()
    await asyncio.to_thread(_put_secrets, world, {ods for ods, _ in ports})
    await world.broker.start()
    code, said = await world.cli("directory", "load", str(path))
    if code != 0:
        sys.exit(said)
    return ports


def _put_secrets(world: World, organisations: set[str]) -> None:
    settings = rig.settings(world)
    with open_store(settings) as store:
        vault = Vault(open_ring(settings, store))
        for ods in sorted(organisations):
            secret = uuid7()
            row = (secret, ods, *vault.seal_secret(_SECRET, secret))
            store.write_now(partial(_put_secret, row))


async def _doors(world: World) -> list[Door]:
    """Return a door for each example of each pillar that sends, in an order that mixes them."""
    by_pillar = [await _doors_of(world, door, ods) for door, ods in SENDERS.items()]
    turns = itertools.zip_longest(*by_pillar)
    return [door for turn in turns for door in turn if door is not None]


async def _doors_of(world: World, name: str, ods: str) -> list[Door]:
    adapter = registry.load().adapters[name]
    sender = next(one for one in world.partners if one.ods == ods)
    headers = {"Authorization": f"Bearer {await sender.client.token()}"}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = []
    for example, practice in zip(adapter.examples.values(), itertools.cycle(PRACTICES)):
        body = {**example, "reference": MARK.decode()}
        body["patient"] = {**example["patient"], "nhs_number": _PATIENT}
        if ods not in PRACTICES:
            body["practice"] = {"ods": practice}
        if "assessed_at" in body:
            body["assessed_at"] = now
        posted = json.dumps(body, ensure_ascii=False).encode()
        made.append(Door(world.port, adapter.door, headers, posted))
    return made


def _put_secret(row: tuple[str, str, str, bytes], tx: Tx) -> None:
    clients.put_secret(tx, *row)


def _patients(count: int) -> list[bytes]:
    """Return so many synthetic NHS numbers: a mix is not of one patient."""
    candidates = map(str, range(int(_PATIENT), 10**10))
    return [one.encode() for one in itertools.islice(filter(nhs_number, candidates), count)]


if __name__ == "__main__":
    main(sys.argv[1:])

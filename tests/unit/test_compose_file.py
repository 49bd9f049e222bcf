"""docker-compose.yml and Dockerfile are valid and safe to run, as far as no container can tell."""

import copy
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from broker.parts import Part
from broker.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
BROKER: dict[str, Any] = COMPOSE["services"]["broker"]


def problems(compose: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(compose)]


def dockerfile() -> list[tuple[str, str]]:
    """Instruction and arguments, one pair for each instruction."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_keeps_the_compose_specification() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert problems(COMPOSE) == []
    assert "version" not in COMPOSE


@pytest.mark.parametrize(
    "spoil",
    [
        lambda compose: compose["services"]["broker"].update(volume=["data:/data"]),
        lambda compose: compose["services"]["broker"].update(ports="8080:8080"),
        lambda compose: compose["services"]["broker"]["healthcheck"].update(test={"cmd": "true"}),
        lambda compose: compose["services"]["broker"].update(read_only=["yes"]),
        lambda compose: compose.update(service={}),
    ],
    ids=["misspelt key", "ports as text", "test as mapping", "list for boolean", "top level"],
)
def test_a_broken_compose_file_is_refused(spoil: Callable[[dict[str, Any]], None]) -> None:
    broken = copy.deepcopy(COMPOSE)
    spoil(broken)
    assert problems(broken)


def test_health_is_checked_by_asking_whether_the_broker_is_ready() -> None:
    test = BROKER["healthcheck"]["test"]
    assert test[0] == "CMD"
    assert "/health/ready" in test[-1]
    compile(test[-1], "healthcheck", "exec")
    in_image = dict(dockerfile())["HEALTHCHECK"]
    command = json.loads(in_image.partition("CMD ")[2])
    assert "/health/ready" in command[-1]
    compile(command[-1], "healthcheck", "exec")


def test_partners_can_sign_in_for_the_address_that_is_published() -> None:
    environment = BROKER["environment"]
    assert environment["BROKER_HOST"] == "0.0.0.0"  # noqa: S104
    (port,) = BROKER["ports"]
    address, outside, inside = port.split(":")
    assert inside == environment["BROKER_PORT"]
    public = environment["BROKER_PUBLIC_URL"]
    assert public == f"${{BROKER_PUBLIC_URL:-http://{address}:{outside}}}"


def test_data_and_keys_have_a_named_volume_each_and_neither_is_in_the_other() -> None:
    mounted = {PurePosixPath(volume["target"]): volume for volume in BROKER["volumes"]}
    data = PurePosixPath(BROKER["environment"]["BROKER_DATA_DIR"])
    keys = PurePosixPath(BROKER["environment"]["BROKER_KEYS_DIR"])
    assert not data.is_relative_to(keys)
    assert not keys.is_relative_to(data)
    assert mounted[data]["type"] == mounted[keys]["type"] == "volume"
    assert mounted[data]["source"] != mounted[keys]["source"]
    assert {mounted[data]["source"], mounted[keys]["source"]} <= COMPOSE["volumes"].keys()


def test_the_image_has_the_same_places_and_declares_them_as_volumes() -> None:
    pairs = [pair for name, rest in dockerfile() if name == "ENV" for pair in rest.split()]
    settings = dict(pair.split("=", 1) for pair in pairs)
    volumes = json.loads(dict(dockerfile())["VOLUME"])
    for name in ("BROKER_DATA_DIR", "BROKER_KEYS_DIR"):
        assert settings[name] == BROKER["environment"][name]
        assert settings[name] in volumes


def test_the_image_ends_as_a_user_other_than_root_and_serves() -> None:
    users = [rest for name, rest in dockerfile() if name == "USER"]
    assert users[-1].split(":")[0] == "10001"
    last = dict(dockerfile())
    assert json.loads(last["ENTRYPOINT"]) == ["referral-broker"]
    assert json.loads(last["CMD"]) == ["serve"]
    assert last["STOPSIGNAL"] == "SIGTERM"


def test_the_container_can_write_to_its_volumes_only_and_gain_no_rights() -> None:
    assert BROKER["read_only"] is True
    assert BROKER["cap_drop"] == ["ALL"]
    assert BROKER["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in BROKER
    assert BROKER["restart"] == "unless-stopped"


def test_a_stop_leaves_time_to_drain() -> None:
    assert int(BROKER["stop_grace_period"].removesuffix("s")) > 15


# -- the full set-up -----------------------------------------------------------------------------

SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one.get("image") == "referral-broker"}


def of_profile(profile: str) -> set[str]:
    return {name for name, one in SERVICES.items() if one["profiles"] == [profile]}


def test_there_is_one_broker_alone_or_each_part_by_itself_with_its_servers() -> None:
    assert of_profile("embedded") == {"broker"}
    assert of_profile("embedded") | of_profile("full") == set(SERVICES)
    roles = [one["command"][-1] for name, one in OURS.items() if "--role" in one.get("command", ())]
    assert sorted(roles) == ["api", "api", "dispatch", "relay", "worker", "worker"]
    assert set(roles) == set(Part)
    assert sum(name.startswith("kafka-") for name in SERVICES) == 3
    assert "postgresql" in SERVICES


def test_every_setting_that_is_named_is_one() -> None:
    for one in OURS.values():
        given = one["environment"].items()
        settings = {name.removeprefix(PREFIX).lower(): value for name, value in given}
        assert settings.keys() <= Settings.model_fields.keys()
        stands_in = {"public_url": "https://broker.example", "database_url": "postgresql://x/y"}
        Settings(**{name: stands_in.get(name, value) for name, value in settings.items()})


def test_no_part_starts_before_ring_schema_and_topics_are_there() -> None:
    (made,) = SERVICES["set-up"]["command"]
    assert made.split("; ") == [
        "referral-broker keys create --unless-there",
        "referral-broker migrate",
        "referral-broker topics create",
    ]
    for name in of_profile("full") & OURS.keys() - {"set-up"}:
        waits = SERVICES[name]["depends_on"]["set-up"]["condition"]
        assert waits == "service_completed_successfully"


def test_every_part_has_the_same_ring_and_says_whether_it_is_ready() -> None:
    for name in of_profile("full") & OURS.keys():
        one = SERVICES[name]
        answers = name in {"api-1", "api-2"}
        sources = [volume["source"] for volume in one["volumes"]]
        assert sources == (["keys", "api"] if answers else ["keys"])
        assert one["environment"] == SERVICES["api-1"]["environment"]
        assert one["read_only"] is True and one["cap_drop"] == ["ALL"]
        if name != "set-up":
            assert ":9090/health/ready" in one["healthcheck"]["test"][-1]


def test_whichever_process_took_an_attachment_the_others_have_it() -> None:
    for name in ("api-1", "api-2"):
        mounted = {volume["target"]: volume["source"] for volume in SERVICES[name]["volumes"]}
        assert mounted[SERVICES[name]["environment"]["BROKER_DATA_DIR"]] == "api"
    assert "api" in COMPOSE["volumes"]


def test_kafka_keeps_what_it_acknowledged_though_a_node_is_lost() -> None:
    for number in (1, 2, 3):
        settings = SERVICES[f"kafka-{number}"]["environment"]
        assert settings["KAFKA_NODE_ID"] == str(number)
        assert settings["KAFKA_DEFAULT_REPLICATION_FACTOR"] == "3"
        assert settings["KAFKA_MIN_INSYNC_REPLICAS"] == "2"
        assert settings["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
        assert f"kafka-{number}:9092" in settings["KAFKA_ADVERTISED_LISTENERS"]

"""Reads one topic as a stranger does who was given its key: no line of the broker is used.

referral-broker topics key fhir.Task.v1 --reader "Who I am" > task.jwk
python examples/read_topic.py localhost:9092 fhir.Task.v1 task.jwk
"""

import asyncio
import json
import sys
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from joserfc import jwe
from joserfc.jwk import OctKey

ANY_HEADER = jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False)
ANY_HEADER.max_ciphertext_length = 16 * 1024 * 1024  # else what is over 64 kB would not open


async def main(servers: str, topic: str, key: OctKey) -> None:
    last: dict[str, int] = {}
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        async for record in consumer:
            event = {name: value.decode() for name, value in record.headers}
            subject, sequence = event["ce_subject"], int(event["ce_sequence"])
            if sequence <= last.get(subject, 0):
                continue  # a repeat: published at least once, so it may come twice
            last[subject] = sequence
            opened = jwe.decrypt_compact(record.value, key, registry=ANY_HEADER)
            if opened.protected["event"] == event["ce_id"]:  # else it was moved here from another
                print(json.dumps(event | {"data": json.loads(opened.plaintext)}), flush=True)


servers, topic, key_file = sys.argv[1:]
asyncio.run(main(servers, topic, OctKey.import_key(json.loads(Path(key_file).read_text()))))

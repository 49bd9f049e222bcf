"""Certificates and passwords for a Kafka that not everybody may talk to, made for one test run."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tests.kafka import HOST, Lock

USER: Final = "referral-broker"
PASSWORD: Final = "secret-of-the-broker-5521"
_SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_PLAIN: Final = (
    f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
)


@dataclass(frozen=True)
class Authority:
    """Vouches for whom it gives a certificate."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    path: Path

    @classmethod
    def made(cls, folder: Path, name: str) -> "Authority":
        """Make one whose certificate stands in `path`."""
        subject = _named(name)
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.BasicConstraints(ca=True, path_length=0)
        certificate = (
            _begun(subject, subject, key).add_extension(usage, critical=True).sign(key, _HASH)
        )
        path = folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return cls(subject, key, path)

    def give(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for a node of loopback or a client, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        where = x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))])
        certificate = (
            _begun(_named(name), self.name, key)
            .add_extension(where, critical=False)
            .sign(self.key, _HASH)
        )
        paths = self.path.with_name(f"{name}.pem"), self.path.with_name(f"{name}.key")
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths


_HASH: Final = hashes.SHA256()


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )


def locks(authority: Authority) -> Mapping[str, Lock]:
    """Return listeners that ask for a certificate of this authority (SSL), or a password, by SCRAM
    or plainly (SASL_SSL)."""
    certificate, key = authority.give("kafka")
    chain = certificate.with_name("kafka-chain.pem")  # Kafka wants both in one file
    chain.write_bytes(key.read_bytes() + certificate.read_bytes())
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(chain),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.path),
    }
    passwords = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "scram-sha-512.sasl.jaas.config": _SCRAM,
        "plain.sasl.jaas.config": _PLAIN,
    }
    user = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    return {
        "SSL": Lock({**tls, "ssl.client.auth": "required"}),
        "SASL_SSL": Lock({**tls, **passwords}, ("--add-scram", user)),
    }

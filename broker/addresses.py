"""Where the broker may connect to: the shape of a URL, and which addresses are anybody's business.

An allow-list by shape and a deny-list by address (OWASP API7, SSRF). Registries: IANA IPv4 and
IPv6 Special-Purpose Address Registries (RFC 6890 and its updates). Pure: nobody is asked.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from broker.errors import BrokerError


class UrlRefused(BrokerError):
    """The URL is not one that the broker will ever call. The message says what to write."""


@dataclass(frozen=True, slots=True)
class Place:
    """A URL taken apart: `host` as it was written, in lower case and without brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def netloc(self) -> str:
        """What the Host header says: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


_PORTS: Final = {"https": 443, "http": 80}
_LONGEST: Final = 2_048
# One grammar for the whole URL, so that nothing is left for two readers to read in two ways: no
# userinfo, no backslash, no white space, nothing beyond ASCII, no percent sign in the host, no
# fragment.
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*)?(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*)?)"
)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


def read_url(url: str, *, allow_plain_http: bool = False) -> Place:
    """Take a webhook's URL apart if its shape can be called at all. Raises UrlRefused."""
    match = _URL.fullmatch(url) if len(url) <= _LONGEST else None
    if match is None:
        raise UrlRefused(
            "Write the URL as https://host[:port]/path, in ASCII, without user, password, "
            "fragment or spaces."
        )
    scheme = match["scheme"].lower()
    if scheme not in _PORTS or (scheme == "http" and not allow_plain_http):
        raise UrlRefused("The URL must begin with https://.")
    port = int(match["port"]) if match["port"] else _PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise UrlRefused("The URL's port must be between 1 and 65535.")
    host = _six(match["six"]) if match["six"] else _name(match["host"].lower(), allow_plain_http)
    return Place(scheme, host, port, _with_path(match["target"]))


def _with_path(target: str) -> str:
    return target if target.startswith("/") else f"/{target}"


def _six(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise UrlRefused("What stands in brackets is not an IPv6 address.") from None


def _name(host: str, is_local_allowed: bool) -> str:
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # Some resolvers read 0177.1, 0x7f000001 and 2130706433 as 127.0.0.1: only the plain
        # dotted form is an address here.
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise UrlRefused("Write an IPv4 address as four decimal numbers.") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlRefused("The URL's host is not a DNS name.")
    if len(labels) < 2 and not is_local_allowed:
        raise UrlRefused("Write the host's full name, with its domain.")
    return host


# -- addresses -----------------------------------------------------------------------------------

_FOUR: Final = {
    "unspecified": "0.0.0.0/8",
    "private": "10.0.0.0/8 100.64.0.0/10 172.16.0.0/12 192.168.0.0/16",
    "link-local": "169.254.0.0/16",
    # 168.63.129.16 is a public number, and on Azure every machine's own wire server.
    "metadata": "168.63.129.16/32 192.0.0.192/32",
    "special": "192.0.0.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.175.48.0/24 "
    "198.18.0.0/15",
    "documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24",
    "multicast": "224.0.0.0/4",
    "reserved": "240.0.0.0/4",
}
_SIX: Final = {
    # Each of these hides an IPv4 address that a gateway nobody knows of would unwrap.
    "tunnel": "2001::/32 2002::/16",
    "special": "2001::/23 2620:4f:8000::/48",
    "documentation": "2001:db8::/32 3fff::/20",
}
_NETWORKS_4: Final = [(IPv4Network(n), why) for why, all_ in _FOUR.items() for n in all_.split()]
_NETWORKS_6: Final = [(IPv6Network(n), why) for why, all_ in _SIX.items() for n in all_.split()]
_NAT64: Final = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")


def is_address(host: str) -> bool:
    """Whether a host, as `read_url` gives it, is an address and needs no look-up."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def why_refused(address: str, *, allow_loopback: bool = False) -> str | None:
    """Return why an address must not be connected to, as a code, or None where it may be.

    IPv4 inside IPv6 (mapped, or behind the well-known NAT64 prefix) is judged as IPv4. Of IPv6,
    only global unicast may be called: so unique-local, link-local, site-local, multicast,
    IPv4-compatible and local-use NAT64 addresses are refused without being listed.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return "not-an-address"
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped
        if inner is None and found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner is None:
            return _judge_six(found, allow_loopback)
        found = inner
    if found.is_loopback:
        return None if allow_loopback else "loopback"
    for network, why in _NETWORKS_4:
        if found in network:
            return why
    return None


def _judge_six(address: IPv6Address, allow_loopback: bool) -> str | None:
    if address.is_loopback:
        return None if allow_loopback else "loopback"
    if address.scope_id is not None or address not in _GLOBAL_UNICAST:
        return "not-global"
    for network, why in _NETWORKS_6:
        if address in network:
            return why
    return None

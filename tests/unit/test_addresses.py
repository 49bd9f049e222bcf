"""Which URLs have a shape that can be called, and which addresses are anybody's business."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.addresses import UrlRefused, is_address, read_url, why_refused


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "netloc"),
    [
        ("https://gp.example.nhs.uk/in", "gp.example.nhs.uk", 443, "/in", "gp.example.nhs.uk"),
        ("HTTPS://GP.Example.nhs.uk", "gp.example.nhs.uk", 443, "/", "gp.example.nhs.uk"),
        ("https://a.uk:8443/?x=1@2", "a.uk", 8443, "/?x=1@2", "a.uk:8443"),
        ("https://a.uk?x=1", "a.uk", 443, "/?x=1", "a.uk"),
        ("https://8.8.8.8:443/a%20b", "8.8.8.8", 443, "/a%20b", "8.8.8.8"),
        ("https://[2606:4700::1111]:9/x", "2606:4700::1111", 9, "/x", "[2606:4700::1111]:9"),
        ("https://xn--80ak6aa92e.example/", "xn--80ak6aa92e.example", 443, "/", None),
    ],
)
def test_a_url_is_taken_apart_in_one_way(
    url: str, host: str, port: int, target: str, netloc: str | None
) -> None:
    place = read_url(url)
    assert (place.host, place.port, place.target) == (host, port, target)
    assert place.netloc == (netloc or host)


def test_plain_http_and_short_names_are_for_those_who_allow_them() -> None:
    with pytest.raises(UrlRefused, match="https"):
        read_url("http://a.example/")
    with pytest.raises(UrlRefused, match="full name"):
        read_url("https://localhost/")
    assert read_url("http://localhost:8080/x", allow_plain_http=True).port == 8080


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1"]
)
def test_a_public_address_may_be_called(address: str) -> None:
    assert why_refused(address) is None
    assert why_refused(f"::ffff:{address}") is None
    assert why_refused(f"64:ff9b::{address}") is None


def test_global_unicast_may_be_called() -> None:
    assert why_refused("2606:4700:4700::1111") is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_for_those_who_allow_it(address: str) -> None:
    assert why_refused(address) == "loopback"
    assert why_refused(address, allow_loopback=True) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.1", "169.254.169.254", "fe80::1", "::"])  # noqa: S104
def test_allowing_loopback_allows_nothing_else(address: str) -> None:
    assert why_refused(address, allow_loopback=True) is not None


@given(st.ip_addresses())
def test_nothing_may_be_called_that_the_standard_library_knows_not_to_be_public(
    address: IPv4Address | IPv6Address,
) -> None:
    if why_refused(str(address)) is None:
        inner = (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
        assert not inner.is_loopback
        assert not inner.is_multicast
        assert not inner.is_link_local
        assert not inner.is_private


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://a.example/{text}"):
        try:
            place = read_url(url)
        except UrlRefused:
            continue
        assert place.scheme == "https"
        assert place.host.isascii()
        assert "@" not in place.netloc
        assert is_address(place.host) or "." in place.host

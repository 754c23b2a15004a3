"""Where a client's URL may lead: to what everybody can reach, however the address is spelled."""

import ipaddress

import pytest

from gateway.outbound import is_public

INSIDE = """
0.0.0.0 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.0.1 169.254.169.254
168.63.129.16 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1
198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: ::1
::127.0.0.1 ::169.254.169.254 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254
::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::c0a8:101 64:ff9b:1::808:808 100::1
fc00::1 fd12:3456::1 fe80::1 fec0::1 ff02::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2
2a00::5efe:10.0.0.1 2a00::200:5efe:169.254.169.254 ::ffff:168.63.129.16
2001:db8::1 2002:7f00:1::1 2002:a9fe:a9fe:: 3fff::1 4000::1 5f00::1
""".split()
OUTSIDE = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
169.253.0.1 172.15.0.1 172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
223.255.255.255 2606:4700:4700::1111 2a00:1450:4001:80b::200e 2001:4860:4860::8888 ::ffff:8.8.8.8
64:ff9b::808:808 2a00::5efe:8.8.8.8 168.63.129.15
""".split()


@pytest.mark.parametrize("text", INSIDE)
def test_addresses_of_our_own_side_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", OUTSIDE)
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))

"""The IANA special-purpose address registries, as rows typed from what they state.

Source: IANA IPv4 Special-Purpose Address Registry and IANA IPv6 Special-Purpose Address Registry,
the multicast and class E rows of the IPv4 address space registry, and the multicast and deprecated
rows of the IPv6 address space registry; state of 2026-11-23. A row is: block, name, RFC, and
whether the registry calls it globally reachable (`yes`, `no`, or `n/a` where it does not say).
"""

from typing import Final, NamedTuple

READ_ON: Final = "2026-11-23"


class Row(NamedTuple):
    block: str
    name: str
    rfc: str
    globally_reachable: str


def _rows(table: str) -> tuple[Row, ...]:
    return tuple(
        Row(*(cell.strip() for cell in line.split("|")))
        for line in table.strip().splitlines()
        if line.strip()
    )


IPV4: Final = _rows(
    """
    0.0.0.0/8          | this network                        | 791  | no
    0.0.0.0/32         | this host on this network           | 1122 | no
    10.0.0.0/8         | private use                         | 1918 | no
    100.64.0.0/10      | shared address space                | 6598 | no
    127.0.0.0/8        | loopback                            | 1122 | no
    169.254.0.0/16     | link local                          | 3927 | no
    172.16.0.0/12      | private use                         | 1918 | no
    192.0.0.0/24       | IETF protocol assignments           | 6890 | no
    192.0.0.0/29       | IPv4 service continuity prefix      | 7335 | no
    192.0.0.8/32       | IPv4 dummy address                  | 7600 | no
    192.0.0.9/32       | port control protocol anycast       | 7723 | yes
    192.0.0.10/32      | traversal using relays anycast      | 8155 | yes
    192.0.0.170/32     | NAT64/DNS64 discovery               | 8880 | no
    192.0.0.171/32     | NAT64/DNS64 discovery               | 8880 | no
    192.0.2.0/24       | documentation (TEST-NET-1)          | 5737 | no
    192.31.196.0/24    | AS112-v4                            | 7535 | yes
    192.52.193.0/24    | AMT                                 | 7450 | yes
    192.88.99.0/24     | deprecated 6to4 relay anycast       | 7526 | n/a
    192.88.99.2/32     | 6a44 relay anycast                  | 6751 | no
    192.168.0.0/16     | private use                         | 1918 | no
    192.175.48.0/24    | direct delegation AS112 service     | 7534 | yes
    198.18.0.0/15      | benchmarking                        | 2544 | no
    198.51.100.0/24    | documentation (TEST-NET-2)          | 5737 | no
    203.0.113.0/24     | documentation (TEST-NET-3)          | 5737 | no
    224.0.0.0/4        | multicast                           | 5771 | n/a
    240.0.0.0/4        | reserved                            | 1112 | no
    255.255.255.255/32 | limited broadcast                   | 919  | no
    """
)

IPV6: Final = _rows(
    """
    ::1/128            | loopback                            | 4291 | no
    ::/128             | unspecified                         | 4291 | no
    ::ffff:0:0/96      | IPv4-mapped                         | 4291 | no
    64:ff9b::/96       | IPv4-IPv6 translation               | 6052 | yes
    64:ff9b:1::/48     | IPv4-IPv6 translation, local use    | 8215 | no
    100::/64           | discard only                        | 6666 | no
    100:0:0:1::/64     | dummy prefix                        | 9780 | no
    2001::/23          | IETF protocol assignments           | 2928 | no
    2001::/32          | Teredo                              | 4380 | n/a
    2001:1::1/128      | port control protocol anycast       | 7723 | yes
    2001:1::2/128      | traversal using relays anycast      | 8155 | yes
    2001:1::3/128      | DNS-SD service registration anycast | 9665 | yes
    2001:2::/48        | benchmarking                        | 5180 | no
    2001:3::/32        | AMT                                 | 7450 | yes
    2001:4:112::/48    | AS112-v6                            | 7535 | yes
    2001:10::/28       | deprecated ORCHID                   | 4843 | n/a
    2001:20::/28       | ORCHIDv2                            | 7343 | yes
    2001:30::/28       | drone remote id entity tags         | 9374 | yes
    2001:db8::/32      | documentation                       | 3849 | no
    2002::/16          | 6to4                                | 3056 | n/a
    2620:4f:8000::/48  | direct delegation AS112 service     | 7534 | yes
    3fff::/20          | documentation                       | 9637 | no
    5f00::/16          | segment routing SIDs                | 9602 | no
    fc00::/7           | unique local                        | 4193 | no
    fe80::/10          | link-local unicast                  | 4291 | no
    fec0::/10          | deprecated site local               | 3879 | n/a
    ff00::/8           | multicast                           | 4291 | n/a
    """
)

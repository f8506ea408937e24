"""Conflicts of an environment's network with its surroundings; tests/integration/test_nspawn.py builds real ones."""

import contextlib
import ipaddress
import json
import re
from pathlib import Path

import pytest
from fake_commands import FakeCommands

from streampulse.core.errors import OperatorError
from streampulse_ops.command import CommandError
from streampulse_ops.machines import network
from streampulse_ops.machines.network import Network

NET = Network("demo", ipaddress.IPv4Network("10.99.0.0/24"), Path("inventories/demo/hosts.yml"))
UPLINK = {"ifname": "eth0", "mtu": 1400}
OURS = {"ifname": "sp-demo", "ifalias": "streampulse demo", "mtu": 1500}
ABSENT = CommandError("no such rule")


def facts(
    monkeypatch: pytest.MonkeyPatch, links: list[dict[str, object]], routes: list[dict[str, object]], rules: bool
) -> FakeCommands:
    fake = FakeCommands(
        {
            "ip -json link show": json.dumps(links),
            "ip -json -4 route show table all": json.dumps([{"dst": "default", "dev": "eth0"}, *routes]),
            "iptables -w -t nat -C": "" if rules else ABSENT,
            "iptables -w -t filter -C": "" if rules else ABSENT,
        }
    )
    monkeypatch.setattr(network, "run", fake)
    return fake


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder that the environments share; IP forwarding is on."""
    monkeypatch.setattr(network, "FORWARDING", tmp_path / "ip_forward")
    network.FORWARDING.write_text("1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("destination", "taken"),
    [
        ("10.99.0.0/24", True),
        ("10.0.0.0/8", True),
        ("10.99.0.128/25", True),
        ("10.99.0.7", True),
        ("10.98.0.0/24", False),
        ("default", False),
        ("0.0.0.0/1", False),  # as VPNs set instead of a default route
    ],
)
def test_a_network_that_something_else_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, state: Path, destination: str, taken: bool
) -> None:
    fake = facts(monkeypatch, [UPLINK], [{"dst": destination, "dev": "tun0"}], rules=False)
    if taken:
        with pytest.raises(OperatorError, match=r"in use already by interface tun0.*nspawn_subnet in inventories/demo"):
            NET.raise_bridge(state)
        assert fake.changes() == []
    else:
        NET.check_free()


def test_a_foreign_interface_of_our_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    facts(monkeypatch, [UPLINK, {"ifname": "sp-demo", "mtu": 1500}], [], rules=False)
    with pytest.raises(OperatorError, match="not ours"):
        NET.check_free()


def chain(family: str, table: str, name: str, policy: str) -> dict[str, object]:
    """Return a base chain of forwarded packets as ``nft --json list ruleset`` prints it."""
    where = {"family": family, "table": table, "name": name, "handle": 1}
    return {"chain": {**where, "type": "filter", "hook": "forward", "prio": 0, "policy": policy}}


def allowing(family: str, table: str, name: str) -> dict[str, object]:
    match = {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "sp-demo"}
    where = {"family": family, "table": table, "chain": name, "handle": 2}
    return {"rule": {**where, "expr": [{"match": match}, {"accept": None}]}}


@pytest.mark.parametrize(
    ("items", "fix"),
    [
        ([chain("ip", "filter", "FORWARD", "drop"), allowing("ip", "filter", "FORWARD")], None),  # Docker's, and ours
        ([chain("inet", "mine", "forward", "accept"), chain("ip6", "mine", "forward", "drop")], None),
        ([chain("inet", "mine", "forward", "drop"), allowing("inet", "mine", "forward")], None),
        (
            [allowing("ip", "filter", "FORWARD"), chain("inet", "filter", "forward", "drop")],
            "nft insert rule inet filter forward iifname sp-demo accept; "
            "nft insert rule inet filter forward oifname sp-demo accept;",
        ),
        (
            [chain("inet", "firewalld", "filter_FORWARD", "accept")],
            "firewall-cmd --permanent --zone=trusted --add-interface=sp-demo && firewall-cmd --reload;",
        ),
        ([chain("inet", "firewalld", "filter_FORWARD", "accept"), allowing("inet", "firewalld", "zones")], None),
    ],
)
def test_a_firewall_that_stops_the_machines_is_named(
    monkeypatch: pytest.MonkeyPatch, state: Path, items: list[dict[str, object]], fix: str | None
) -> None:
    fake = facts(monkeypatch, [UPLINK, OURS], [], rules=True)
    fake.answers["nft --json list ruleset"] = json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *items]})
    with pytest.raises(OperatorError, match=re.escape(fix)) if fix else contextlib.nullcontext():
        NET.raise_bridge(state)


def test_removing_leaves_a_foreign_bridge(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    fake = facts(monkeypatch, [UPLINK, {"ifname": "sp-demo", "mtu": 1500}], [], rules=False)
    NET.remove_bridge(state)
    assert fake.changes() == []


def test_a_namespace_with_foreign_processes_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(network, "NAMESPACES", tmp_path)
    monkeypatch.setattr(network, "ENDING_SECONDS", 0.0)
    (tmp_path / "demo.one").touch()
    fake = facts(monkeypatch, [UPLINK], [], rules=True)
    fake.answers["ip netns pids demo.one"] = "41\n42\n"
    with pytest.raises(OperatorError, match="in use by pid 41, 42"):
        NET.disconnect("one")
    assert fake.changes() == []


def test_names_fit_into_the_kernels_limit() -> None:
    long = Network("an-environment-with-a-long-name", NET.subnet, NET.inventory)
    other = Network("an-environment-with-a-long-nama", NET.subnet, NET.inventory)
    assert len(long.bridge) <= 15
    assert len(long.veth("a-host-with-a-long-name")) <= 15
    assert long.bridge != other.bridge


@pytest.mark.parametrize("before", ["0", "1"])
def test_forwarding_is_set_back_with_the_last_bridge_of_all_environments(
    monkeypatch: pytest.MonkeyPatch, state: Path, before: str
) -> None:
    network.FORWARDING.write_text(before)
    links = [UPLINK]
    fake = facts(monkeypatch, [], [], rules=True)
    fake.answers["ip -json link show"] = lambda _words: json.dumps(links)
    fake.answers |= {"iptables -w -t nat -C": ABSENT, "iptables -w -t filter -C": ABSENT}
    other = Network("other", ipaddress.IPv4Network("10.98.0.0/24"), NET.inventory)
    for each in (NET, other):
        each.raise_bridge(state)
        links.append({"ifname": each.bridge, "ifalias": each.mark, "mtu": 1500})
    assert network.FORWARDING.read_text() == "1"

    def delete(words: list[str]) -> str:
        links[:] = [link for link in links if link["ifname"] != words[-1]]
        return ""

    fake.answers["ip link delete"] = delete
    NET.remove_bridge(state)
    assert network.FORWARDING.read_text() == "1"
    other.remove_bridge(state)
    assert network.FORWARDING.read_text() == before


def test_removing_takes_every_copy_of_a_rule(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    fake = facts(monkeypatch, [UPLINK, OURS], [], rules=False)
    left = {"nat": 2}

    def nat(_words: list[str]) -> str:
        if not left["nat"]:
            raise ABSENT
        return ""

    def delete(_words: list[str]) -> str:
        left["nat"] -= 1
        return ""

    fake.answers |= {"iptables -w -t nat -C": nat, "iptables -w -t nat -D": delete}
    NET.remove_bridge(state)
    assert fake.changes() == [
        "iptables -w -t nat -D POSTROUTING -s 10.99.0.0/24 ! -o sp-demo -j MASQUERADE",
        "iptables -w -t nat -D POSTROUTING -s 10.99.0.0/24 ! -o sp-demo -j MASQUERADE",
        "ip link delete sp-demo",
    ]


def test_a_machine_is_connected_with_the_packet_size_of_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(network, "NAMESPACES", tmp_path)
    fake = facts(monkeypatch, [UPLINK, OURS], [], rules=True)
    NET.connect("one", "10.99.0.11")
    pair = f"ip link add name {NET.veth('one')} mtu 1400 type veth peer name eth0 netns demo.one mtu 1400"
    assert pair in fake.changes()


def test_a_veth_pair_that_the_kernel_has_just_removed_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(network, "NAMESPACES", tmp_path)
    cable = {"ifname": NET.veth("one"), "mtu": 1500}
    listings = iter([[UPLINK, cable], [UPLINK]])
    fake = facts(monkeypatch, [], [], rules=True)
    fake.answers |= {
        "ip -json link show": lambda _words: json.dumps(next(listings)),
        "ip link delete": CommandError("Cannot find device"),
    }
    NET.disconnect("one")
    assert next(listings, None) is None

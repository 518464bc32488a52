"""Each change of a network of containers as one shell script: made under a lock (flock(1)), or not at all.

Sources: ip(8) -batch, nft(8) -f, nsenter(1), and the kernel's Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from cloudlab.containers import netfilter
from cloudlab.containers.netfilter import Port
from cloudlab.containers.network_plan import Attachment, Plan, Seen, mac_of

DIRECTORY = "/run/cloudlab/networks"
_LOCKED = "set -e; exec 9</run; flock 9\n"  # a directory that is always there: no lock file is left behind
CHANGED, GONE, NO_PROCESS, SAME_NAMESPACE, TAKEN, FULL, EXISTS = 75, 66, 63, 64, 65, 67, 68
_FORWARDING = "/proc/sys/net/ipv4/ip_forward"
# who flushed all rules has withdrawn ours too; the exit is there because `set -e` passes over what `!` is before
_OR_NO_TABLE = f" || ! nft list table ip {netfilter.TABLE} >/dev/null 2>&1 || exit 1"
_HOSTS = (
    "text=$(cat addresses/* /etc/hosts); printf '%s\\n' \"$text\" >hosts\n"  # the same file: containers have it mounted
)


def batch_for(attachment: Attachment) -> tuple[str, str]:
    """Return what ip(8) -batch does for a container: in the guest, and in the container's own network namespace."""
    one, plan = attachment, attachment.plan
    veth = f"up type veth peer name eth0 address {one.mac} netns {one.pid}"
    if plan.bridge:
        host = f"link add {one.host_interface} master {plan.bridge} {veth}\n"
    else:
        host = f"link add {one.host_interface} {veth}\naddr add {one.gateway} peer {one.address}/32 dev {one.host_interface}\n"
    inside = f"addr add {one.address}/{plan.subnet.prefixlen} dev eth0\nlink set eth0 up\nroute add default via {one.gateway}\n"
    return host, "link set lo up\n" + inside


def batch_for_network(plan: Plan) -> str:
    """Return what ip(8) -batch does for a network: a bridge; or what is to become of addresses that nobody has."""
    if not plan.bridge:
        return f"route add unreachable {plan.subnet}\n"
    add = f"link add {plan.bridge} address {mac_of(plan.gateway)} type bridge\n"
    return add + f"addr add {plan.gateway}/{plan.subnet.prefixlen} dev {plan.bridge}\nlink set {plan.bridge} up\n"


def _settings(interface: str, routed: bool) -> str:
    """Sources that can't be are dropped (rp_filter); 127.0.0.1 may be translated (route_localnet); see the kernel's ip-sysctl."""
    at = "/proc/sys/net/ipv4"
    lines = [f"echo 1 >{at}/conf/{interface}/{key}" for key in ("rp_filter", "route_localnet")]
    if routed:  # the guest answers for all the subnet, and at once
        lines += [f"echo 1 >{at}/conf/{interface}/proxy_arp", f"echo 0 >{at}/neigh/{interface}/proxy_delay"]
    return "\n".join(lines) + "\n"


def _fed(command: str, text: str, otherwise: str = "") -> str:
    """Return shell that gives a program its standard input."""
    return f"{command} <<'END'{otherwise}\n{text}END\n" if text else ""


def _unchanged(command: str, seen: str) -> str:
    return f'[ "$({command} 2>/dev/null)" = {shlex.quote(seen)} ] || exit {CHANGED}\n'


def creation(plan: Plan, seen: Seen) -> str:
    """Return the script that makes a network, if the networks are still those that were seen."""
    gone = f"ip link del {plan.bridge}" if plan.bridge else f"ip route del unreachable {plan.subnet}"
    rules = ("" if seen.plans else netfilter.ruleset()) + plan.membership("add")
    others = "\n".join(map(str, seen.plans.values()))
    return (
        f"{_LOCKED}undo() {{ :; }}\ntrap 'code=$?; undo; rmdir {DIRECTORY} 2>/dev/null || true; exit $code' EXIT\n"
        + f"mkdir -p {DIRECTORY}; cd {DIRECTORY}\n"
        + _unchanged("cat */network", others)
        + (f"[ ! -e /sys/class/net/{plan.bridge} ] || exit {EXISTS}\n" if plan.bridge else "")
        + f"undo() {{ {gone} 2>/dev/null || true; rm -rf {plan.name}; }}\n"
        + f"mkdir {plan.name} {plan.name}/addresses {plan.name}/containers\n"
        + _fed("ip -batch -", batch_for_network(plan))
        + (_settings(plan.bridge, routed=False) if plan.bridge else "")
        + _fed("nft -f -", rules)
        + f"[ ! -e /etc/resolv.conf ] || cat /etc/resolv.conf >{plan.name}/resolv.conf; : >>{plan.name}/resolv.conf\n"
        + f"cd {plan.name}; echo '{plan.gateway} gateway' >addresses/1\n{_HOSTS}cd ..\n"
        + f"[ -e ip_forward ] || cat {_FORWARDING} >ip_forward\necho 1 >{_FORWARDING}\n"
        + f"echo '{plan}' >{plan.name}/network\ntrap - EXIT\n"
    )


def claim(wanted: Attachment, directory: str = DIRECTORY) -> str:
    """Return the script that takes an address for a container, the lowest free one, and prints what is known of all.

    Who was there and has ended keeps its address; a number is free if there is no file of its name.
    """
    one, veth = wanted, f"/sys/class/net/{wanted.host_interface}"
    namespace, last = f"/proc/{one.pid}/ns/net", one.plan.subnet.num_addresses - 2
    ports, aliases = str(one).split()[-1], str(one).split()[-2]
    return f"""{_LOCKED}cd {directory}/{one.plan.name} 2>/dev/null || exit {GONE}
[ -e {namespace} ] || exit {NO_PROCESS}
[ ! {namespace} -ef /proc/self/ns/net ] || exit {SAME_NAMESPACE}
k=
for record in ../*/containers/{one.name}; do
  [ -e "$record" ] || continue
  read -r line <"$record"; set -- $line
  echo "$2"
  [ "$2" = {one.plan.name} ] && [ -s "addresses/$4" ] || exit {TAKEN}
  [ ! -e {veth} ] || [ ! -e "/proc/$5/ns/net" ] || exit {TAKEN}
  k=$4; echo "was $line"
done
[ -n "$k" ] || [ ! -e {veth} ] || exit {EXISTS}
if [ -z "$k" ]; then
  k=1; while [ -e "addresses/$k" ]; do k=$((k + 1)); done
  [ "$k" -le {last} ] || exit {FULL}
fi
: >"addresses/$k"
echo "container {one.plan.name} {one.name} $k {one.pid} {aliases} {ports}" >containers/{one.name}
cat ../*/network ../*/containers/*
"""


def attaching(one: Attachment) -> str:
    """Return the script that makes a container's veth pair, publishes its ports and tells the others its name."""
    host, inside = batch_for(one)
    gone = f"ip link del {one.host_interface} 2>/dev/null || true; rm -f addresses/{one.number} containers/{one.name}"
    line = " ".join([str(one.address), one.name, *one.aliases])
    return (
        f"{_LOCKED}cd {DIRECTORY}/{one.plan.name}\n"
        + _unchanged(f"cat containers/{one.name}", str(one))
        + f"trap 'code=$?; {gone}; exit $code' EXIT\n"
        + _fed("ip -batch -", host)
        + ("" if one.plan.bridge else _settings(one.host_interface, routed=True))
        + _fed(f"nsenter --net=/proc/{one.pid}/ns/net ip -batch -", inside)
        + _fed("nft -f -", one.published)
        + f"echo '{line}' >addresses/{one.number}\n{_HOSTS}trap - EXIT\n"
    )


def detaching(one: Attachment, published: bool = True) -> str:
    """Return the script that takes a container off its network, if it is still as it was seen."""
    check = _unchanged(f"cat containers/{one.name}", str(one))
    forgotten = f"rm -f containers/{one.name} addresses/{one.number}\n{_HOSTS}"
    cleared = _cleared(one) if published else ""
    return f"{_LOCKED}cd {DIRECTORY}/{one.plan.name}\n{check}{cleared}{forgotten}"


def clearing(one: Attachment) -> str:
    """Return the script that takes away what a container that has ended left; if it can't, the one in its place will fail."""
    return f"({_cleared(one)})\n"


def _cleared(one: Attachment) -> str:
    """Take away veth and ports. The kernel has removed the veth by itself if the container has ended."""
    return f"ip link del {one.host_interface} 2>/dev/null || true\n" + _fed("nft -f -", one.withdrawn, _OR_NO_TABLE)


def removal(plan: Plan, attachments: Sequence[Attachment]) -> str:
    """Return the script that leaves nothing of a network; with the last one the rules go too, and forwarding is as it was.

    What is known of it goes last: if a step before fails, the network can be removed again.
    """
    links = "".join(f"link del {each.host_interface}\n" for each in attachments)
    bridge = f"[ ! -e /sys/class/net/{plan.bridge} ] || ip link del {plan.bridge}\n"
    route = f"ip route del unreachable {plan.subnet} 2>/dev/null || true\n"
    rules = "".join(each.withdrawn for each in attachments) + plan.membership("delete")
    return (
        f"{_LOCKED}cd {DIRECTORY}\n"
        + _unchanged(f"cat {plan.name}/network {plan.name}/containers/*", "\n".join(map(str, [plan, *attachments])))
        + _fed("ip -force -batch -", links, " 2>/dev/null || true")  # some may have gone with their containers
        + (bridge if plan.bridge else route)
        + "set -- */network\nif [ $# -gt 1 ]; then\n"
        + _fed("nft -f -", rules, _OR_NO_TABLE)
        + f"rm -r {plan.name}\nelse\nnft 'table ip {netfilter.TABLE}; delete table ip {netfilter.TABLE}'\n"
        + f"cat ip_forward >{_FORWARDING}; rm -r {plan.name} ip_forward; cd /; rmdir {DIRECTORY}\nfi\n"
    )


def changing(one: Attachment, seen: Seen, rules: str) -> str:
    """Return the script that gives a container other ports, if nothing has changed since it was seen."""
    check = _unchanged("cat */network */containers/*", seen.text)
    rewritten = f"echo '{one}' >{one.plan.name}/containers/{one.name}\n"
    return f"{_LOCKED}cd {DIRECTORY}\n{check}{_fed('nft -f -', rules)}{rewritten}"


def listening(ports: Sequence[Port]) -> str:
    """Shell that lists programs of the guest itself that listen."""
    return "ss -Hlnptu\n" if ports else ""

"""Finding a mesh on the local network, by multicast DNS (RFC 6762, RFC 6763). Needs the extra `lan` (zeroconf)."""

from meshnode.lan.found import FoundMember, FoundMesh, by_mesh
from meshnode.lan.mdns import LanUnavailable, announced, look_around

__all__ = ["FoundMember", "FoundMesh", "LanUnavailable", "announced", "by_mesh", "look_around"]

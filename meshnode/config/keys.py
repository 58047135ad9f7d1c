"""The keys of a node's configuration: each field of `NodeConfig` carries its own documentation.

What lives here: `NodeConfig`, `Setting` and `SETTINGS`. What does not: where values come from
(`meshnode.config.sources`) and how a single one is read (`meshnode.config.values`).

One flat table on purpose: a key has the same name in the file (`max_memory`), in the environment
(`MESHNODE_MAX_MEMORY`) and as a flag (`--max-memory`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Final, get_args, get_origin, get_type_hints

from meshnode.config import values
from meshnode.config.values import Parser, SocketAddress, StaticPeer

ENVIRONMENT_PREFIX: Final = "MESHNODE_"
CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""`planner.CacheType`, which is not imported for its words alone: every verb reads the config."""
DEFAULT_LISTEN: Final = SocketAddress("::", 4411)


@dataclass(frozen=True, slots=True)
class Key:
    """The part of a key's description that its author writes. `example` is TOML; `flag` only where it is not the key's
    own name with dashes; `default_text` only where the default's value says too little; `takes` only where the parser
    names the value too coarsely for a flag's help."""

    group: str
    parse: Parser
    meaning: str
    example: str
    default_text: str = ""
    flag: str = ""
    takes: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything known of one key."""

    key: str
    about: Key
    default: object
    repeatable: bool

    @property
    def variable(self) -> str:
        """The environment variable of this key."""
        return ENVIRONMENT_PREFIX + self.key.upper()

    @property
    def flag(self) -> str:
        """The flag of `meshnode run`."""
        return self.about.flag or "--" + self.key.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """True for a flag without a value."""
        return self.about.parse is values.boolean

    @property
    def takes(self) -> str:
        """What the flag's value is, as its help names it: `SIZE`, `SECONDS`, `[lan|wan|local]`."""
        unit = next((unit for ending, unit in _UNITS.items() if self.key.endswith(ending)), "")
        return self.about.takes or unit or values.takes_of(self.about.parse)

    @property
    def bounds(self) -> str:
        """The numbers that are right (`0 to 0.9`), or ""."""
        return values.bounds_of(self.about.parse)

    @property
    def values_text(self) -> str:
        """Which values are right where only some are: the words, or the bounds of a number; else ""."""
        words = values.takes_of(self.about.parse)
        is_choice = words.startswith("[") and not self.is_switch
        return words.strip("[]").replace("|", ", ") if is_choice else self.bounds

    @property
    def default_text(self) -> str:
        """The default as people read it."""
        if self.about.default_text:
            return self.about.default_text
        if isinstance(self.default, bool):
            return "true" if self.default else "false"
        if isinstance(self.default, tuple):
            return "[]"
        return f'"{self.default}"' if isinstance(self.default, str) else str(self.default)


_UNITS = {"_gb_s": "GB/S", "_ms": "MS", "_s": "SECONDS", "_port": "PORT"}
"""What a number is, by the end of its key."""

_NODE, _NETWORK, _OFFER, _MODELS = "The node", "Network", "What this machine gives", "Models"
_READY, _ENGINE, _CONTROL, _LOG = "When a split is ready", "Engine", "Control", "Logs"


@dataclass(frozen=True)
class NodeConfig:
    """Everything a node can be told. Sizes are bytes, times are seconds unless the name says `_ms`."""

    state_dir: Annotated[Path, Key(
        _NODE, values.path,
        "Where the node keeps its key, its credential and the peers it knows. Two processes can't share one.",
        example='"/var/lib/meshnode"', default_text="$XDG_STATE_HOME/meshnode, else ~/.local/state/meshnode",
        takes="DIR",
    )] = Path()  # fmt: skip
    name: Annotated[str, Key(
        _NODE, values.node_name,
        "What people call this machine; shown beside its id. Nothing is decided by it.",
        example='"attic"', default_text="the host name",
    )] = ""  # fmt: skip
    client: Annotated[bool, Key(
        _NODE, values.boolean,
        "Join or found as a client: use the mesh, give it no compute. The credential decides the role from then on.",
        example="true",
    )] = False  # fmt: skip

    listen: Annotated[SocketAddress, Key(
        _NETWORK, values.listen_address,
        "The UDP address and port for links, dialled and accepted ones. `*` is every address, IPv6 and IPv4; port 0"
        " lets the system choose at the first start; later ones take the same port again where it is free.",
        example='"*:4411"', default_text='"*:4411"',
    )] = DEFAULT_LISTEN  # fmt: skip
    advertise: Annotated[tuple[SocketAddress, ...], Key(
        _NETWORK, values.list_of(values.socket_address, at_most=8),
        "Addresses that peers shall try first, such as a forwarded port of the router. The machine's own addresses are"
        " found by themselves.",
        example='["203.0.113.7:4411"]',
    )] = ()  # fmt: skip
    peers: Annotated[tuple[StaticPeer, ...], Key(
        _NETWORK, values.list_of(values.static_peer, at_most=64),
        "Members to dial at start besides those remembered from last time, as `NODE_ID@ADDR:PORT`.",
        example='["mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2q@192.168.1.5:4411"]', flag="--peer",
    )] = ()  # fmt: skip
    network: Annotated[str, Key(
        _NETWORK, values.choice("lan", "wan", "local"),
        "How patient failure detection is: `lan` for one house, `wan` across the internet, `local` for one machine.",
        example='"wan"',
    )] = "lan"  # fmt: skip
    max_links: Annotated[int, Key(
        _NETWORK, values.whole(1, 1024),
        "Most links held at once; in a larger mesh a part of the members is reached through others.",
        example="64",
    )] = 64  # fmt: skip
    quiet_lan: Annotated[bool, Key(
        _NETWORK, values.boolean,
        "Send nothing to everybody on the local network. Else a node that misses members calls for them there, so that"
        " they find each other when the router has given out other addresses; a call names neither node nor mesh.",
        example="true",
    )] = False  # fmt: skip
    tunnel_carrier: Annotated[str, Key(
        _NETWORK, values.choice("auto", "tcp", "quic"),
        "What carries tunnels between nodes, for engines and API requests. `auto` takes TLS over TCP where it connects,"
        " which is the fast one, and else the QUIC link; `tcp` and `quic` take nothing else.",
        example='"quic"',
    )] = "auto"  # fmt: skip
    tunnel_tcp_port: Annotated[int | None, Key(
        _NETWORK, values.whole(0, 65_535),
        "The TCP port for tunnels, at the same address as `listen`. Where it is taken, or 0, the system chooses; peers"
        " are told.",
        example="4411", default_text="the number of the UDP port",
    )] = None  # fmt: skip

    max_memory: Annotated[int | None, Key(
        _OFFER, values.memory_size,
        "Offer at most this much, over all devices.",
        example='"24GB"', default_text="no cap",
    )] = None  # fmt: skip
    declare_usable: Annotated[int | None, Key(
        _OFFER, values.memory_size,
        "State what may be used instead of measuring it. Nothing is subtracted; it is marked `declared` everywhere.",
        example='"80GB"', default_text="measured",
    )] = None  # fmt: skip
    declare_host: Annotated[int | None, Key(
        _OFFER, values.parse_size,
        "State the host memory for being a coordinator (token embedding, host buffers) instead of measuring it.",
        example='"8GB"', default_text="measured",
    )] = None  # fmt: skip
    headroom: Annotated[float, Key(
        _OFFER, values.number(0.0, 0.9),
        "Share of each device left free, 0.1 for a tenth. Machines packed to the last byte die at the first token.",
        example="0.10", takes="SHARE",
    )] = 0.10  # fmt: skip
    offer_ram: Annotated[bool, Key(
        _OFFER, values.boolean,
        "Offer the RAM of a machine that has a GPU as a slow device of its own.",
        example="true",
    )] = False  # fmt: skip
    memory_bandwidth_gb_s: Annotated[float | None, Key(
        _OFFER, values.number(0.1, 100_000.0),
        "Memory bandwidth in GB/s, where it is neither measured (`meshnode bench`) nor known from the device's name.",
        example="68.0", default_text="measured or nameplate",
    )] = None  # fmt: skip
    willing: Annotated[str, Key(
        _OFFER, values.choice("always", "when_needed", "never"),
        "`always` takes stages, `when_needed` only if no plan exists without this node, `never` not at all.",
        example='"when_needed"',
    )] = "always"  # fmt: skip
    capacity_interval_s: Annotated[float, Key(
        _OFFER, values.number(0.1, 3600.0),
        "How often this machine's memory is looked at. A change of more than 5 % is told to the mesh.",
        example="5.0",
    )] = 5.0  # fmt: skip

    models: Annotated[tuple[str, ...], Key(
        _MODELS, values.list_of(values.text, at_most=64),
        "Models to pursue: a GGUF file, a safetensors directory, or the name or file of a profile. The mesh waits until"
        " it can hold each and says what is short.",
        example='["/models/qwen3-coder-480b-00001-of-00006.gguf"]', flag="--model", takes="MODEL",
    )] = ()  # fmt: skip
    model_dirs: Annotated[tuple[Path, ...], Key(
        _MODELS, values.list_of(values.path, at_most=64),
        "Directories whose model files this node has at hand.",
        example='["/models"]', flag="--model-dir", takes="DIR",
    )] = ()  # fmt: skip
    interested_in: Annotated[tuple[str, ...] | None, Key(
        _MODELS, values.list_of(values.text, at_most=64),
        "Models this node takes stages of.",
        example='["qwen3-coder-480b-a35b-q4_k_xl"]', default_text="every model", flag="--interested-in", takes="MODEL",
    )] = None  # fmt: skip
    context: Annotated[int | None, Key(
        _MODELS, values.whole(1, 16_777_216),
        "Context length in tokens, per lane, for the models pursued.",
        example="32768", default_text="the largest that fits, at most the model's own", takes="TOKENS",
    )] = None  # fmt: skip
    lanes: Annotated[int, Key(
        _MODELS, values.whole(1, 4096),
        "Parallel sequences for the models pursued.",
        example="1",
    )] = 1  # fmt: skip
    kv_type: Annotated[str, Key(
        _MODELS, values.choice("auto", *CACHE_TYPES),
        "Type of the KV cache's elements, K and V alike. auto: f16, and where that does not fit (or, with no context"
        " set, leaves less than the model's own) q8_0, then q4_0.",
        example='"auto"',
    )] = "f16"  # fmt: skip
    k_type: Annotated[str | None, Key(
        _MODELS, values.choice(*CACHE_TYPES),
        "Type of the K cache's elements, where it is to differ from kv_type.",
        example='"q8_0"', default_text="as kv_type",
    )] = None  # fmt: skip
    v_type: Annotated[str | None, Key(
        _MODELS, values.choice(*CACHE_TYPES),
        "Type of the V cache's elements, where it is to differ from kv_type.",
        example='"q4_0"', default_text="as kv_type",
    )] = None  # fmt: skip
    objective: Annotated[str, Key(
        _MODELS, values.choice("latency", "throughput", "fewest", "proportional"),
        "What a plan is best at: `latency` the time of a token, `throughput` tokens per second of all lanes, `fewest`"
        " as few stages as possible; `proportional` gives each machine layers in proportion to its memory.",
        example='"fewest"',
    )] = "latency"  # fmt: skip
    engine: Annotated[str, Key(
        _MODELS, values.choice("llama_cpp_rpc", "chain"),
        "The engine profile: where endpoints lie and what a hop costs. Nodes carry plans of `llama_cpp_rpc` out;"
        " `chain` is for engines that pass activations from stage to stage, which you run yourself (`meshnode plan"
        " --export`).",
        example='"chain"',
    )] = "llama_cpp_rpc"  # fmt: skip

    quorum: Annotated[int, Key(
        _READY, values.whole(1, 1024),
        "Fewest participants a split starts with.",
        example="2",
    )] = 2  # fmt: skip
    dwell_s: Annotated[float, Key(
        _READY, values.number(0.0, 3600.0),
        "How long members and capacities must stay the same before a split is planned.",
        example="8.0",
    )] = 8.0  # fmt: skip
    first_quorum_window_s: Annotated[float, Key(
        _READY, values.number(0.0, 3600.0),
        "How long to look out for more nodes after the quorum is first reached.",
        example="8.0",
    )] = 8.0  # fmt: skip
    deadline_s: Annotated[float, Key(
        _READY, values.number(0.1, 86_400.0),
        "After this a split takes what is there, or says that the quorum was not reached.",
        example="60.0",
    )] = 60.0  # fmt: skip
    pending_s: Annotated[float, Key(
        _READY, values.number(0.0, 3600.0),
        "How long a node may hold a split up for one cause (connecting, RTT not yet measured, inventory unknown).",
        example="10.0",
    )] = 10.0  # fmt: skip
    max_stage_rtt_ms: Annotated[float | None, Key(
        _READY, values.number(0.0, 600_000.0),
        "Leave out nodes whose RTT is above this or unknown. By default RTT ranks and excludes nobody.",
        example="80.0", default_text="no limit",
    )] = None  # fmt: skip
    min_capacity: Annotated[int, Key(
        _READY, values.parse_size,
        "Leave out nodes that offer less.",
        example='"4GB"', default_text="0",
    )] = 0  # fmt: skip
    allow_relayed: Annotated[bool, Key(
        _READY, values.boolean,
        "Let nodes take stages that are reached only through another member.",
        example="true",
    )] = False  # fmt: skip
    exclude: Annotated[tuple[str, ...], Key(
        _READY, values.list_of(values.node_prefix, at_most=1024),
        "Nodes to leave out of every split: ids, or their first 10 characters or more.",
        example='["mfrggzdfmz"]',
    )] = ()  # fmt: skip
    force_split: Annotated[bool, Key(
        _READY, values.boolean,
        "Plan a model over the mesh even where this node holds it alone. The best plan may still be one node: then no"
        " other is known to make it faster.",
        example="true",
    )] = False  # fmt: skip

    rpc_server: Annotated[Path | None, Key(
        _ENGINE, values.path,
        "llama.cpp's `rpc-server`, which runs this node's stages. With `llama_server` it comes before what is on PATH"
        " and before the package llama-cpp-python.",
        example='"/opt/llama.cpp/bin/rpc-server"', default_text="on PATH, else llama-cpp-python", takes="FILE",
    )] = None  # fmt: skip
    llama_server: Annotated[Path | None, Key(
        _ENGINE, values.path,
        "llama.cpp's `llama-server` of the same build, which runs the models this node coordinates.",
        example='"/opt/llama.cpp/bin/llama-server"', default_text="on PATH, else llama-cpp-python", takes="FILE",
    )] = None  # fmt: skip
    engine_threads: Annotated[int | None, Key(
        _ENGINE, values.whole(1, 1024),
        "Threads of an engine process for what it computes on the CPU.",
        example="8", default_text="the machine's cores",
    )] = None  # fmt: skip
    engine_folders: Annotated[tuple[Path, ...], Key(
        _ENGINE, values.list_of(values.path, at_most=64),
        "Folders that engine processes may read and write, run programs of and use devices in, beside what they need on"
        " most machines: a cache of compiled kernels, a build's libraries elsewhere. `/` lifts the bounds on files for"
        " all but the state directory.",
        example='["/data/cuda/lib64"]', takes="DIR",
    )] = ()  # fmt: skip
    max_weights_cache: Annotated[int | None, Key(
        _ENGINE, values.parse_size,
        "Most disk space for copies of large tensors, by which the engine finds what this node has of a model instead"
        " of having it sent. 0 keeps none.",
        example='"200GB"', default_text="what the disk has, less 1.1GB",
    )] = None  # fmt: skip
    api_port: Annotated[int, Key(
        _ENGINE, values.whole(0, 65_535),
        "Port of 127.0.0.1 for the OpenAI-compatible interface, which answers for every model of the mesh. 0 lets the"
        " system choose.",
        example="9337",
    )] = 9337  # fmt: skip
    api_key: Annotated[str | None, Key(
        _ENGINE, values.text,
        "Programs must send this key (`Authorization: Bearer KEY`) to use the interface. Better in the file or the"
        " environment than as a flag, which other users of the machine can read.",
        example='"a long random text"', default_text="none needed", takes="KEY",
    )] = None  # fmt: skip

    control_socket: Annotated[Path | None, Key(
        _CONTROL, values.path,
        "The Unix socket that the other verbs talk to. Its directory is made with mode 0700.",
        example='"/run/meshnode/control.sock"',
        default_text="$XDG_RUNTIME_DIR/meshnode/<hash of state_dir>/control.sock, else below /tmp/meshnode-<uid>",
        takes="FILE",
    )] = None  # fmt: skip
    control_tcp: Annotated[SocketAddress | None, Key(
        _CONTROL, values.loopback_address,
        "Also serve the control interface on this loopback address. Each request needs the token in the file"
        " `control-token` of the state directory.",
        example='"127.0.0.1:9338"', default_text="off",
    )] = None  # fmt: skip

    page_port: Annotated[int, Key(
        _CONTROL, values.whole(0, 65_535),
        "The port on 127.0.0.1 of the live page, which `meshnode ui` opens; nothing listens before that. 0 lets the"
        " system choose, once.",
        example="9339",
    )] = 0  # fmt: skip

    log_format: Annotated[str, Key(
        _LOG, values.choice("json", "pretty", "auto"),
        "`json` is one object per line, `pretty` aligned text with colours, `auto` pretty on a terminal and else json.",
        example='"json"',
    )] = "auto"  # fmt: skip
    log_level: Annotated[str, Key(
        _LOG, values.choice("debug", "info", "warning", "error"),
        "The quietest level that is written.",
        example='"debug"',
    )] = "info"  # fmt: skip
    log_file: Annotated[Path | None, Key(
        _LOG, values.path,
        "Write the log here instead of to stdout; opened anew on SIGHUP, so that it can be rotated.",
        example='"/var/log/meshnode.log"', default_text="stdout", takes="FILE",
    )] = None  # fmt: skip

    otlp_endpoint: Annotated[str | None, Key(
        _LOG, values.http_url,
        "Send traces of each split's life to this OpenTelemetry collector (OTLP over HTTP). Needs the extra"
        " `meshnode[otel]`.",
        example='"http://localhost:4318"', default_text="off",
    )] = None  # fmt: skip

    @property
    def memory_bandwidth_bytes_per_s(self) -> int | None:
        """`memory_bandwidth_gb_s` in bytes per second."""
        return None if self.memory_bandwidth_gb_s is None else round(self.memory_bandwidth_gb_s * 1e9)


def _settings() -> dict[str, Setting]:
    hints = get_type_hints(NodeConfig, include_extras=True)
    found: dict[str, Setting] = {}
    for entry in fields(NodeConfig):
        declared, about = get_args(hints[entry.name])
        is_list = any(get_origin(option) is tuple for option in (declared, *get_args(declared)))
        found[entry.name] = Setting(entry.name, about, entry.default, is_list)
    return found


SETTINGS: Final[dict[str, Setting]] = _settings()
"""Every key with its documentation, in the order of the reference."""

"""`meshnode doctor`: what goes wrong in practice, looked for and explained."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json, printable
from meshnode.exit_codes import UNREACHABLE

if TYPE_CHECKING:
    from meshnode.config import NodeConfig
    from meshnode.doctor import Finding
    from meshnode.doctor.machine import MachineFacts

MAX_WIDTH = 100
_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_TITLES = {
    "config": "configuration key", "daemon": "node of", "state_directory": "state directory", "identity": "keys in",
    "addresses": "addresses of", "nat": "NAT before", "reachability": "path to", "path_mtu": "packet size to",
    "clock": "clock of", "versions": "version of", "memory": "memory:", "devices": "device", "limits": "limits of",
    "port": "UDP port", "engine": "engine of",
}  # fmt: skip


@click.command(short_help="Check this node and its paths for what goes wrong in practice.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Check what goes wrong in practice and say what to do: the state directory, memory and its limits, devices, the
    engine, the UDP port, the paths to each peer in both directions, packet sizes, NAT, clocks, versions, keys in use
    twice, and addresses that can't be right.

    Without a running node it checks what can be checked then. Exit codes: 0 all well, 1 the worst finding is a
    warning, 2 it is an error.

    \b
    Examples:
      meshnode doctor
      meshnode doctor --json | jq -r '.findings[] | select(.grade != "ok") | .advice'
      meshnode doctor > /dev/null || echo "look at the node"
    """
    from meshnode.doctor import Finding, worst

    report = examined(state_dir, config_file)
    findings = [Finding.from_dict(one) for one in report["findings"]]
    code = worst(findings).exit_code
    if as_json:
        print_json({**report, "exit_code": code})
    else:
        _print(findings)
    raise SystemExit(code)


def examined(state_dir: Path | None, config_file: Path | None) -> Json:
    """What the running node found; what can be found without one where none runs. `running` tells which."""
    try:
        report = client_of(state_dir, config_file).post("/v1/doctor", {})
    except Failure as failure:
        return _examined_here(state_dir, config_file, failure)
    return {"running": True, **report}


def _examined_here(state_dir: Path | None, config_file: Path | None, failure: Failure) -> Json:
    from meshnode.config import ConfigError, load_config
    from meshnode.doctor import Finding, Grade, check_machine, worst
    from meshnode.doctor.machine import look_at_machine

    findings: list[Finding] = []
    try:
        config = load_config({"state_dir": state_dir}, file=config_file)
    except ConfigError as error:
        checked = "flags, environment and config file"
        findings.append(Finding("config", Grade.ERROR, error.key, checked, str(error), "correct it there"))
    else:
        checked = "whether the node runs and answers"
        grade = Grade.WARNING if failure.exit_code == UNREACHABLE else Grade.ERROR
        findings.append(Finding("daemon", grade, str(config.state_dir), checked, failure.message, failure.advice))
        machine = look_at_machine(config, running=False)
        findings += check_machine(machine, client=config.client)
        findings += _engine_here(config, machine)
    return {
        "running": False,
        "worst": worst(findings).value,
        "findings": [finding.to_dict() for finding in findings],
        "peers": [],
    }


def _engine_here(config: NodeConfig, machine: MachineFacts) -> list[Finding]:
    """What a node would find at its start."""
    import anyio

    from meshnode.doctor.engines import EngineBounds, EngineFacts, check_engines
    from meshnode.engine.found import NoEngine, find_engine, reach_of

    devices = tuple(device.id for device in machine.capacity.devices)
    if config.client:
        return check_engines(EngineFacts(is_client=True, word=None))
    try:
        engine = anyio.run(find_engine, config.rpc_server, config.llama_server, reach_of(config))
    except NoEngine as missing:
        return check_engines(EngineFacts(False, None, missing.reason, missing.advice, devices))
    bounds = EngineBounds(engine.private_network, engine.confinement.landlock, engine.confinement.sockets)
    return check_engines(EngineFacts(False, engine.word, devices=devices, bounds=bounds))


def _print(findings: list[Finding]) -> None:
    """The worst last, where the eye is when the verb ends."""
    for finding in sorted(findings, key=lambda finding: finding.grade.exit_code):
        _print_one(finding)
    counts = Counter(finding.grade.value for finding in findings)
    click.echo(f"\n{counts['error']} error(s), {counts['warning']} warning(s), {counts['ok']} ok")


def _print_one(finding: Finding) -> None:
    grade = finding.grade.value
    title = f"{_TITLES.get(finding.check, finding.check)} {finding.subject}"
    mark = click.style(f"{grade:<8}", fg=_COLOURS[grade], bold=grade != "ok")
    first, *rest = _wrapped(title, indent=9)
    click.echo("\n".join([f"{mark} {click.style(first[9:], bold=True)}", *rest]))
    _print_line("checked", finding.checked)
    _print_line("found", finding.found)
    if finding.advice:
        _print_line("do", finding.advice)


def _print_line(label: str, text: str) -> None:
    first, *rest = _wrapped(text, indent=18)
    click.echo("\n".join([f"{'':9}{label:<9}{first[18:]}", *rest]))


def _wrapped(text: str, indent: int) -> list[str]:
    width, margin = min(MAX_WIDTH, shutil.get_terminal_size().columns), " " * indent
    return textwrap.wrap(printable(text), width, initial_indent=margin, subsequent_indent=margin) or [margin]

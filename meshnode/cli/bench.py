"""`meshnode bench`: measure this machine's memory bandwidth once, so that plans can predict speed."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.exit_codes import BAD_USAGE


@click.command(short_help="Measure this machine's memory bandwidth.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Measure the bandwidth of this machine's RAM (a few seconds, all cores) and remember it in the state directory.

    The node uses the figure from its next look at the machine on; without one, plans that place layers in RAM are
    capacity-only. GPUs have their maker's figure.

    \b
    Examples:
      meshnode bench
      meshnode bench --json
    """
    from meshnode.child import ChildFailed
    from meshnode.config import ConfigError, load_config
    from meshnode.resources import SystemProbe, measure_memory_bandwidth, store_bandwidth

    try:
        config = load_config({"state_dir": state_dir}, file=config_file)
    except ConfigError as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    probe = SystemProbe()
    try:
        measured = measure_memory_bandwidth(probe)
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        store_bandwidth(config.state_dir, probe, measured)
    except ChildFailed as error:
        raise Failure(str(error), "close programs that use much memory and try again") from error
    except OSError as error:
        raise Failure(f"{config.state_dir}: {error.strerror}", "name a state directory you may write") from error
    if as_json:
        print_json({"memory_bandwidth_bytes_per_s": measured.bytes_per_s, "source": measured.source.value})
    else:
        click.echo(f"memory bandwidth {(measured.bytes_per_s or 0) / 1e9:.1f}GB/s, remembered in {config.state_dir}")

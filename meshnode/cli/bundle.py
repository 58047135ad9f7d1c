"""`meshnode bundle`: what somebody who helps needs to see, in one zip without secrets."""

from __future__ import annotations

import time
from pathlib import Path

import click

from meshnode.cli.client import client_of, json_option, node_options
from meshnode.cli.doctor import examined
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.exit_codes import BAD_USAGE


@click.command(short_help="Pack what helps to find a fault into a zip, without secrets.")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE",
              help="The zip to make. Default: meshnode-bundle-TIME.zip here.")  # fmt: skip
@click.option("--hide-addresses", is_flag=True, help="Replace addresses too, each by a number of its own.")
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool, output: Path | None, hide_addresses: bool
) -> None:
    """Pack versions, configuration, status, peers, recent events, doctor's findings and the end of the log into a zip,
    for whoever helps you. Keys, tokens, credentials and passwords are blotted out; node names and ids, model names
    and, without --hide-addresses, addresses stay. Without a running node it packs what there is.

    \b
    Examples:
      meshnode bundle
      meshnode bundle --hide-addresses -o attic.zip
      unzip -p attic.zip doctor.json | jq .worst
    """
    from meshnode.bundle import BundleExists, BundleRedactor, gathered, secrets_of, write_bundle
    from meshnode.bundle.contents import Source
    from meshnode.config import ConfigError, load_config

    try:
        config = load_config({"state_dir": state_dir}, file=config_file)
    except ConfigError as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    path = output or Path(time.strftime("meshnode-bundle-%Y%m%dT%H%M%SZ.zip", time.gmtime()))
    report = examined(state_dir, config_file)
    client = client_of(state_dir, config_file)
    source = Source(client.get, client.text) if report["running"] else None
    redactor = BundleRedactor(secrets_of(config.state_dir), hide_addresses=hide_addresses, home=str(Path.home()))
    try:
        notes = write_bundle(path, gathered(config, report, source, hides_addresses=hide_addresses), redactor)
    except BundleExists as error:
        raise Failure(f"{path} is there already", "name another file with -o", BAD_USAGE) from error
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", "name a place that can be written with -o") from error
    if as_json:
        print_json({"file": str(path.absolute()), "bytes": path.stat().st_size, "left_out": notes})
        return
    click.echo(f"wrote {path} ({path.stat().st_size / 1000:.0f} kB)")
    for note in notes:
        click.echo(f"note: {note}")
    if not hide_addresses:
        click.echo("addresses stand in it; --hide-addresses leaves them out", err=True)

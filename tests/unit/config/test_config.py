"""Where a node's configuration comes from, which source wins, and what a wrong one is told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from meshnode.config import ConfigError, load_config
from meshnode.config.keys import SETTINGS, NodeConfig
from meshnode.config.values import SocketAddress
from meshnode.reference import config_page, example_config

EXAMPLE = Path(__file__).parents[3] / "configs" / "node.example.toml"


def a_file(directory: Path, content: str) -> Path:
    file = directory / "node.toml"
    file.write_text(content, encoding="utf-8")
    return file


def an_environment(directory: Path, **variables: str) -> dict[str, str]:
    """An environment that sees nothing of the machine's own configuration."""
    return {"XDG_CONFIG_HOME": str(directory / "none"), "XDG_STATE_HOME": str(directory / "state"), **variables}


def uncommented(example: str) -> str:
    """The example with every assignment made real."""
    lines = [line[2:] for line in example.splitlines() if line.startswith("# ") and " = " in line]
    return "\n".join(line for line in lines if line.split(" = ")[0] in SETTINGS)


def test_without_any_source_every_key_has_its_default(tmp_path: Path) -> None:
    config = load_config({}, an_environment(tmp_path))
    assert config == NodeConfig(state_dir=tmp_path / "state" / "meshnode")


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = a_file(tmp_path, 'max_memory = "1GB"\nquorum = 3\nlanes = 4\n')
    environment = an_environment(tmp_path, MESHNODE_MAX_MEMORY="2GB", MESHNODE_QUORUM="5")
    config = load_config({"max_memory": "3GB", "quorum": None}, environment, file)
    assert (config.max_memory, config.quorum, config.lanes, config.dwell_s) == (3_000_000_000, 5, 4, 8.0)


def test_file_is_found_through_the_environment(tmp_path: Path) -> None:
    file = a_file(tmp_path, "quorum = 7\n")
    assert load_config({}, an_environment(tmp_path, MESHNODE_CONFIG=str(file))).quorum == 7


def test_file_is_found_at_the_xdg_place(tmp_path: Path) -> None:
    (tmp_path / "config" / "meshnode").mkdir(parents=True)
    a_file(tmp_path / "config" / "meshnode", "quorum = 7\n")
    environment = an_environment(tmp_path) | {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert load_config({}, environment).quorum == 7


def test_relative_xdg_state_home_is_ignored() -> None:
    config = load_config({}, {"XDG_STATE_HOME": "relative", "XDG_CONFIG_HOME": "/nonexistent"})
    assert config.state_dir == Path.home() / ".local" / "state" / "meshnode"


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [("max_memry", "max_memory"), ("max-memory", "max_memory"), ("maxMemory", "max_memory"), ("quorun", "quorum")],
)
def test_typo_in_the_file_names_key_line_and_the_nearest_right_one(tmp_path: Path, typo: str, nearest: str) -> None:
    file = a_file(tmp_path, f'lanes = 2\n"{typo}" = 1\n')
    with pytest.raises(ConfigError, match=f"{typo}: expected a known key; did you mean {nearest}\\? .*line 2"):
        load_config({}, an_environment(tmp_path), file)


def test_key_like_no_other_is_sent_to_the_reference(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"zzzz: expected a known key; docs/configuration.md"):
        load_config({}, an_environment(tmp_path), a_file(tmp_path, "zzzz = 1"))


def test_typo_in_the_environment_names_the_nearest_right_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MESHNODE_MAX_MEMROY.*did you mean MESHNODE_MAX_MEMORY"):
        load_config({}, an_environment(tmp_path, MESHNODE_MAX_MEMROY="1GB"))


def test_variables_an_orchestrator_injects_are_left_alone(tmp_path: Path) -> None:
    injected = {
        "MESHNODE_SERVICE_HOST": "10.0.0.1",
        "MESHNODE_PORT_4411_UDP_ADDR": "10.0.0.1",
        "MESHNODE_PORT": "udp://x",
    }
    assert load_config({}, an_environment(tmp_path, **injected)).quorum == 2


@pytest.mark.parametrize("bad", ["24GBs", "GB", "-1GB", "1e9", "24 furlongs", "", "nan", "0GB"])
def test_bad_size_names_key_found_value_and_what_is_right(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"max_memory": bad}, an_environment(tmp_path))
    assert str(caught.value).startswith(f"max_memory: found {bad!r}, expected a size such as 24GB")
    assert caught.value.source == "flag --max-memory"


def test_both_a_cap_and_a_declaration_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only one of max_memory and declare_usable"):
        load_config({"max_memory": "1GB", "declare_usable": "2GB"}, an_environment(tmp_path))


def test_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config file: found .*absent.toml.*No such file"):
        load_config({}, an_environment(tmp_path), tmp_path / "absent.toml")


def test_broken_toml_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"valid TOML.*line 2"):
        load_config({}, an_environment(tmp_path), a_file(tmp_path, "lanes = 1\nquorum = = 2\n"))


def test_file_that_is_no_text_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="valid TOML in UTF-8"):
        load_config({}, an_environment(tmp_path), file)


def test_lists_come_from_arrays_repeated_flags_and_commas(tmp_path: Path) -> None:
    file = a_file(tmp_path, 'models = ["a", "b"]\n')
    assert load_config({}, an_environment(tmp_path), file).models == ("a", "b")
    assert load_config({"models": ("c", "d")}, an_environment(tmp_path), file).models == ("c", "d")
    assert load_config({}, an_environment(tmp_path, MESHNODE_MODELS="e, f"), file).models == ("e", "f")


def test_every_example_value_is_accepted_and_differs_in_no_key_from_the_code(tmp_path: Path) -> None:
    content = uncommented(EXAMPLE.read_text(encoding="utf-8"))
    table = tomllib.loads(content)
    assert list(table) == list(SETTINGS)
    table.pop("declare_usable")  # contradicts max_memory, as its own test says
    wanted = "\n".join(line for line in content.splitlines() if not line.startswith("declare_usable"))
    config = load_config({}, an_environment(tmp_path), a_file(tmp_path, wanted))
    assert config.listen == SocketAddress("::", 4411)
    assert config.max_memory == 24_000_000_000


def test_example_file_is_the_one_the_code_makes() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == example_config()


def test_commented_example_changes_nothing(tmp_path: Path) -> None:
    assert load_config({}, an_environment(tmp_path), EXAMPLE) == load_config({}, an_environment(tmp_path))


def test_reference_names_every_key_variable_and_flag() -> None:
    page = config_page()
    for setting in SETTINGS.values():
        assert f"### `{setting.key}`\n\n{setting.about.meaning}" in page
        assert f"environment: `{setting.variable}`" in page
        assert f"flag: `{setting.flag}`" in page


def test_every_default_is_accepted_by_its_own_parser() -> None:
    for setting in SETTINGS.values():
        if setting.default is not None and setting.key not in {"listen", "state_dir", "name"}:
            assert setting.about.parse(setting.default) == setting.default


def test_wrong_entry_of_a_list_is_shown_as_it_was_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"advertise": ("attic",)}, an_environment(tmp_path))
    assert str(caught.value).startswith("advertise: found 'attic', expected a numeric address and port")


def test_size_without_a_unit_is_told_apart_from_memory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_memory: found 24, expected a size such as 24GB .* at least 1MB"):
        load_config({}, an_environment(tmp_path), a_file(tmp_path, "max_memory = 24\n"))


def test_config_place_of_another_user_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ConfigError, match=r"config file: found .*expected a readable file .Permission denied."):
        load_config({}, an_environment(tmp_path))


def test_user_without_a_home_needs_a_state_directory_and_no_config(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(ConfigError, match="state_dir: expected a directory, since this user has no home"):
        load_config({}, {})
    assert load_config({"state_dir": "/var/lib/meshnode"}, {}).state_dir == Path("/var/lib/meshnode")


def test_home_of_nobody_in_a_path_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="log_file: found '~no-such-user-here/log', expected a path; the home"):
        load_config({"log_file": "~no-such-user-here/log"}, an_environment(tmp_path))


def test_table_in_the_file_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"node: expected no table: all keys stand side by side.*line 1"):
        load_config({}, an_environment(tmp_path), a_file(tmp_path, '[node]\nname = "attic"\n'))

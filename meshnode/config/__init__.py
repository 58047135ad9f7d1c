"""A node's configuration.

What lives here: where it comes from (`sources`), its keys (`keys`), how a single value is read (`values`), what a
change of it changes in a running node (`reload`), and its JSON (`as_json`). What does not: the rooms that take it.
"""

from meshnode.config.keys import NodeConfig
from meshnode.config.sources import ConfigError, default_config_file, default_state_dir, load_config, nearest_key

__all__ = ["ConfigError", "NodeConfig", "default_config_file", "default_state_dir", "load_config", "nearest_key"]

"""From a config.json to a ModelSpec: shapes of every tensor, layer and cache."""

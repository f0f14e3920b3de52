"""The grammar of configurations, and the bytes of KV and weight formats. Knows no model."""

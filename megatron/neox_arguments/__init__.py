"""The configuration: typed groups of keys, reading of YAML with origins, derived values, checks. Imports no torch."""

from megatron.neox_arguments.arguments import NeoXArgs as NeoXArgs

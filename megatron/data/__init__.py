"""From text to the exact tokens of step N: indexed datasets, packed samples, blends, samplers and loaders."""

"""The only room that knows DeepSpeed: from layer specs to an engine that runs a global batch and steps the optimizer."""

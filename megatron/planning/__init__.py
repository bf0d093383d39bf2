"""What a run will need: parameters, memory, FLOPs, layouts. Arithmetic on the configuration alone, without torch."""

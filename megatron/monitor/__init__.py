"""What a run tells: step metrics, floating-point operations, memory, the console, and one file for each place metrics go."""
